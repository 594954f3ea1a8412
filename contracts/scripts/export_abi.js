// Task `export-abi`: writes ABI and creation bytecode of every contract a deployment needs to
// pinaivu/chain/abi/NAME.json, so that Python users need no Node. With --check it writes nothing and
// fails where the committed files differ from what the sources compile to.
import { createHash } from "node:crypto";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import path from "node:path";

const FOLDER = "pinaivu/chain/abi";

const CONTRACTS = [
  "contracts/Settlement.sol:Settlement",
  "contracts/ReceiptLog.sol:ReceiptLog",
  "contracts/EnclaveRegistry.sol:EnclaveRegistry",
  "contracts/NodeRegistry.sol:NodeRegistry",
  "contracts/GatewayRegistry.sol:GatewayRegistry",
  "contracts/ModelRegistry.sol:ModelRegistry",
  "contracts/ObjectiveFaults.sol:ObjectiveFaults",
  "contracts/mocks/TestToken.sol:TestToken",
  "contracts/mocks/SimulatedAttestationVerifier.sol:SimulatedAttestationVerifier",
  "@openzeppelin/contracts/access/manager/AccessManager.sol:AccessManager",
];

export default async function exportAbi({ check }, hre) {
  await hre.tasks.getTask("build").run({ noTests: true, quiet: true });
  const folder = path.join(hre.config.paths.root, FOLDER);
  const wanted = new Map();
  for (const contract of CONTRACTS) {
    wanted.set(`${contract.split(":")[1]}.json`, await render(hre.artifacts, contract));
  }
  const stale = await differences(folder, wanted);
  if (check) {
    if (stale.length === 0) {
      console.log(`${FOLDER}: ${wanted.size} files agree with the sources`);
    } else {
      console.error(`${FOLDER} is out of date (${stale.join(", ")}): run \`npm run abi\``);
      process.exitCode = 1;
    }
    return;
  }
  await mkdir(folder, { recursive: true });
  for (const name of stale) {
    const file = path.join(folder, name);
    await (wanted.has(name) ? writeFile(file, wanted.get(name)) : rm(file));
  }
  console.log(`${FOLDER}: ${stale.length} of ${wanted.size} files changed`);
}

// The digest covers what the compiler recorded of the build: its version and settings, and the hash of
// every source file behind this contract. Remappings are left out: they depend on what else was compiled
// in the same run, and the sources they lead to are hashed anyway.
async function render(artifacts, contract) {
  const artifact = await artifacts.readArtifact(contract);
  if (Object.keys(artifact.linkReferences).length !== 0) throw new Error(`${contract} needs linking`);
  const outputFile = await artifacts.getBuildInfoOutputPath(artifact.buildInfoId);
  const { output } = JSON.parse(await readFile(outputFile, "utf8"));
  const metadata = JSON.parse(output.contracts[artifact.inputSourceName][artifact.contractName].metadata);
  delete metadata.settings.remappings;
  const build = JSON.stringify(sorted(metadata));
  const entry = {
    abi: artifact.abi,
    buildDigest: `0x${createHash("sha256").update(build).digest("hex")}`,
    bytecode: artifact.bytecode,
    contract,
  };
  return `${JSON.stringify(sorted(entry), null, 1)}\n`;
}

// Members by name; lists keep their order, which carries meaning in an ABI.
function sorted(value) {
  if (Array.isArray(value)) return value.map(sorted);
  if (value === null || typeof value !== "object") return value;
  const names = Object.keys(value).sort();
  return Object.fromEntries(names.map((name) => [name, sorted(value[name])]));
}

async function differences(folder, wanted) {
  const present = await readdir(folder).catch(() => []);
  const names = new Set([...wanted.keys(), ...present.filter((name) => name.endsWith(".json"))]);
  const stale = [];
  for (const name of [...names].sort()) {
    const committed = await readFile(path.join(folder, name), "utf8").catch(() => undefined);
    if (committed !== wanted.get(name)) stale.push(name);
  }
  return stale;
}
