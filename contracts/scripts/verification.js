// Task `verification`: what a block explorer needs to show the source of a deployment, one folder per
// contract: the compiler's standard JSON input (only the sources that this contract is made of), and in
// contract.json its address, name, compiler version and constructor arguments. Each input is compiled here
// with the pinned compiler; the task fails where that doesn't give the code that is on the chain.
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import path from "node:path";

import { decodeFunctionData, getAddress } from "viem";

import { load } from "../ignition/modules/Pinaivu.js";

const solc = createRequire(import.meta.url)("solc");
const SELECTOR_DIGITS = 8;

export default async function verification({ journal, out }, hre) {
  const { network } = hre.globalOptions;
  const { provider } = await hre.network.create();
  await hre.tasks.getTask("build").run({ noTests: true, quiet: true });
  for (const [name, { address, creation }] of await created(path.join(journal, network))) {
    const folder = path.join(out, network, name);
    const artifact = await hre.artifacts.readArtifact(fullNameOf(name));
    const { input, version } = await inputOf(hre.artifacts, artifact);
    const compiled = compile(input, artifact);
    const code = await provider.request({ method: "eth_getCode", params: [address, "latest"] });
    if (!creation.startsWith(compiled.creation) || masked(code, compiled) !== compiled.runtime) {
      throw new Error(`${name}: its source doesn't compile to the code at ${address}`);
    }
    const description = {
      address: getAddress(address),
      contract: `${artifact.inputSourceName}:${name}`,
      compilerVersion: version,
      constructorArguments: creation.slice(compiled.creation.length),
    };
    await mkdir(folder, { recursive: true });
    await writeFile(path.join(folder, "input.json"), JSON.stringify(input));
    await writeFile(path.join(folder, "contract.json"), `${JSON.stringify(description, null, 2)}\n`);
    console.log(`${folder}: compiles to the code at ${description.address}`);
  }
}

/** Contract name → address and the digits it was created from (code, then arguments), by the journal. */
async function created(folder) {
  const lines = (await readFile(path.join(folder, "journal.jsonl"), "utf8")).split("\n");
  const addresses = JSON.parse(await readFile(path.join(folder, "deployed_addresses.json"), "utf8"));
  const contracts = new Map();
  for (const line of lines.filter((text) => text.includes('"ONCHAIN_INTERACTION"'))) {
    const { futureId, networkInteraction } = JSON.parse(line);
    const id = futureId.slice(futureId.indexOf("#") + 1);
    const launched = id.startsWith("launch_");
    if (!launched && addresses[futureId] === undefined) continue; // the hand-over
    const name = launched ? id.slice("launch_".length) : id;
    const creation = launched ? launchedFrom(networkInteraction.data) : networkInteraction.data.slice(2);
    contracts.set(name, { address: addresses[`Pinaivu#${name}`], creation });
  }
  return contracts;
}

function launchedFrom(data) {
  const [, code, call] = decodeFunctionData({ abi: load("Launcher").abi, data }).args;
  return code.slice(2) + call.slice(2 + SELECTOR_DIGITS);
}

function fullNameOf(name) {
  const { sourceName } = load(name);
  return `${sourceName}:${name}`;
}

/** The build's input, with no other sources than those behind this contract. */
async function inputOf(artifacts, { buildInfoId, inputSourceName, contractName }) {
  const { input, solcLongVersion } = JSON.parse(
    await readFile(await artifacts.getBuildInfoPath(buildInfoId), "utf8"),
  );
  const { output } = JSON.parse(await readFile(await artifacts.getBuildInfoOutputPath(buildInfoId), "utf8"));
  const metadata = JSON.parse(output.contracts[inputSourceName][contractName].metadata);
  const sources = Object.keys(metadata.sources).map((name) => [name, input.sources[name]]);
  const outputSelection = {
    [inputSourceName]: { [contractName]: ["abi", "evm.bytecode", "evm.deployedBytecode"] },
  };
  return {
    input: {
      ...input,
      sources: Object.fromEntries(sources),
      settings: { ...input.settings, outputSelection },
    },
    version: `v${solcLongVersion}`,
  };
}

function compile(input, { inputSourceName, contractName }) {
  const output = JSON.parse(solc.compile(JSON.stringify(input)));
  const wrong = (output.errors ?? []).filter(({ severity }) => severity === "error");
  if (wrong.length !== 0) throw new Error(`${contractName}: ${wrong[0].formattedMessage}`);
  const { bytecode, deployedBytecode } = output.contracts[inputSourceName][contractName].evm;
  return {
    creation: bytecode.object,
    runtime: deployedBytecode.object,
    immutables: Object.values(deployedBytecode.immutableReferences).flat(),
  };
}

/** The chain's code with zeros for its immutables. */
function masked(code, { immutables }) {
  const digits = [...code.slice(2)];
  for (const { start, length } of immutables) digits.fill("0", 2 * start, 2 * (start + length));
  return digits.join("");
}
