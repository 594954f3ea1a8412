// Task `export-abi`: writes ABI, creation bytecode and the places of immutables of every contract that a
// deployment needs to pinaivu/chain/abi/NAME.json, so that Python users need no Node, and docs/storage.md.
// With --check it writes nothing and fails where the committed files differ from what the sources compile to.
import { createHash } from "node:crypto";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import path from "node:path";

import { storagePage } from "./storage_page.js";

const FOLDER = "pinaivu/chain/abi";
const STORAGE_PAGE = "docs/storage.md";
const WITHOUT_STORAGE_SECTION = /mocks|@openzeppelin/;

const CONTRACTS = [
  "contracts/Settlement.sol:Settlement",
  "contracts/ReceiptLog.sol:ReceiptLog",
  "contracts/EnclaveRegistry.sol:EnclaveRegistry",
  "contracts/QuorumAttestationVerifier.sol:QuorumAttestationVerifier",
  "contracts/NodeRegistry.sol:NodeRegistry",
  "contracts/GatewayRegistry.sol:GatewayRegistry",
  "contracts/ModelRegistry.sol:ModelRegistry",
  "contracts/Launcher.sol:Launcher",
  "contracts/ObjectiveFaults.sol:ObjectiveFaults",
  "contracts/mocks/TestToken.sol:TestToken",
  "contracts/mocks/SimulatedAttestationVerifier.sol:SimulatedAttestationVerifier",
  "@openzeppelin/contracts/access/manager/AccessManager.sol:AccessManager",
];

export default async function exportAbi({ check }, hre) {
  await hre.tasks.getTask("build").run({ noTests: true, quiet: true });
  const builds = await Promise.all(CONTRACTS.map((contract) => built(hre.artifacts, contract)));
  const wanted = new Map(builds.map((build) => [`${FOLDER}/${build.name}.json`, render(build)]));
  const listed = builds.filter(({ contract }) => !WITHOUT_STORAGE_SECTION.test(contract));
  wanted.set(STORAGE_PAGE, storagePage(listed.map(({ name, output }) => [name, output.storageLayout])));

  const root = hre.config.paths.root;
  const stale = await differences(root, wanted);
  if (!check) {
    await mkdir(path.join(root, FOLDER), { recursive: true });
    for (const name of stale) {
      const file = path.join(root, name);
      await (wanted.has(name) ? writeFile(file, wanted.get(name)) : rm(file));
    }
    console.log(`${FOLDER}, ${STORAGE_PAGE}: ${stale.length} of ${wanted.size} files changed`);
  } else if (stale.length === 0) {
    console.log(`${FOLDER}, ${STORAGE_PAGE}: ${wanted.size} files agree with the sources`);
  } else {
    console.error(`out of date (${stale.join(", ")}): run \`tools/npm run -s abi\``);
    process.exitCode = 1;
  }
}

// A contract's artifact, and what the compiler put out for it beside.
async function built(artifacts, contract) {
  const artifact = await artifacts.readArtifact(contract);
  if (Object.keys(artifact.linkReferences).length !== 0) throw new Error(`${contract} needs linking`);
  const outputFile = await artifacts.getBuildInfoOutputPath(artifact.buildInfoId);
  const { output } = JSON.parse(await readFile(outputFile, "utf8"));
  const { inputSourceName, contractName: name } = artifact;
  const compiled = output.contracts[inputSourceName][name];
  return { contract, name, artifact, output: compiled, sources: output.sources };
}

// The digest covers what the compiler recorded of the build: its version and settings, and the hash of
// every source file behind this contract. Remappings are left out: they depend on what else was compiled
// in the same run, and the sources they lead to are hashed anyway.
function render({ contract, artifact, output, sources }) {
  const metadata = JSON.parse(output.metadata);
  delete metadata.settings.remappings;
  const build = JSON.stringify(sorted(metadata));
  const entry = {
    abi: artifact.abi,
    buildDigest: `0x${createHash("sha256").update(build).digest("hex")}`,
    bytecode: artifact.bytecode,
    contract,
    runtime: runtimeOf(artifact, sources),
  };
  return `${JSON.stringify(sorted(entry), null, 1)}\n`;
}

// Where the code that a chain will hold stands inside the creation code (in bytes), and where in that code
// which immutable is filled in: enough to compare a chain's code with the creation code, and to read the
// immutables from it.
function runtimeOf(artifact, sources) {
  const [creation, runtime] = [artifact.bytecode.slice(2), artifact.deployedBytecode.slice(2)];
  const start = creation.indexOf(runtime);
  if (runtime === "" || start === -1) throw new Error(`${artifact.contractName} holds no runtime code`);
  const names = immutableNames(sources);
  const immutables = {};
  for (const [id, places] of Object.entries(artifact.immutableReferences)) {
    immutables[names.get(Number(id))] = places.map((place) => place.start).sort((a, b) => a - b);
  }
  return { immutables, length: runtime.length / 2, start: start / 2 };
}

function immutableNames(sources) {
  const names = new Map();
  for (const { ast } of Object.values(sources)) {
    for (const contract of ast.nodes.filter((node) => node.nodeType === "ContractDefinition")) {
      for (const node of contract.nodes) {
        if (node.mutability === "immutable") names.set(node.id, node.name);
      }
    }
  }
  return names;
}

// Members by name; lists keep their order, which carries meaning in an ABI.
function sorted(value) {
  if (Array.isArray(value)) return value.map(sorted);
  if (value === null || typeof value !== "object") return value;
  const names = Object.keys(value).sort();
  return Object.fromEntries(names.map((name) => [name, sorted(value[name])]));
}

async function differences(root, wanted) {
  const present = await readdir(path.join(root, FOLDER)).catch(() => []);
  const exported = present.filter((name) => name.endsWith(".json")).map((name) => `${FOLDER}/${name}`);
  const stale = [];
  for (const name of [...new Set([...wanted.keys(), ...exported])].sort()) {
    const committed = await readFile(path.join(root, name), "utf8").catch(() => undefined);
    if (committed !== wanted.get(name)) stale.push(name);
  }
  return stale;
}
