// Compiles and tests the contracts offline: the compiler is the npm package, found by path, so another
// version fails instead of being downloaded. `hardhat export-abi [--check]` writes pinaivu/chain/abi/.
import { readdirSync } from "node:fs";
import { createRequire } from "node:module";

import hardhatIgnition from "@nomicfoundation/hardhat-ignition";
import hardhatKeystore from "@nomicfoundation/hardhat-keystore";
import { configVariable, defineConfig, task } from "hardhat/config";

import { networkNames } from "./contracts/ignition/settings.js";
import { branchCoverage } from "./contracts/scripts/branch_coverage/index.js";

const require = createRequire(import.meta.url);

const compiler = {
  version: "0.8.37",
  path: require.resolve("solc/soljson.js"),
  settings: {
    viaIR: true, // a settled batch has more live values than the legacy stack holds
    optimizer: { enabled: true, runs: 1_000_000 },
    evmVersion: "prague", // transient storage; nothing newer, so that any current chain can run it
    metadata: { bytecodeHash: "none" }, // bytecode depends on the code only, not on comments or paths
    outputSelection: { "*": { "*": ["metadata", "storageLayout"] } }, // for what `export-abi` writes
  },
};

// Tests deploy the compiled artifacts and import interfaces only, so their own code may be compiled fast.
// Library tests are the exception: there the library's code stands inside the test.
const LIBRARY_TESTS = ["MerkleLog.t.sol", "PackedRows.t.sol", "TypedDataVectors.t.sol"];
const fastCompiler = {
  ...compiler,
  settings: { ...compiler.settings, viaIR: false, optimizer: { enabled: false } },
};
const overrides = Object.fromEntries(
  readdirSync(new URL("tests/contracts", import.meta.url))
    .filter((name) => name.endsWith(".t.sol") && !LIBRARY_TESTS.includes(name))
    .map((name) => [`tests/contracts/${name}`, fastCompiler]),
);

// The same tests, briefly in `make test` and long in `make test-deep`.
const runs = (fuzz, invariant) => ({
  fsPermissions: { readDirectory: ["./tests/vectors", "./artifacts"] },
  fuzz: { runs: fuzz, seed: "0x70696e61697675" },
  invariant: { runs: invariant, depth: 32, failOnRevert: true },
});

const exportAbi = task("export-abi", "Write ABI and bytecode of every contract to pinaivu/chain/abi")
  .addFlag({ name: "check", description: "Write nothing; fail if the committed files differ" })
  .setAction(() => import("./contracts/scripts/export_abi.js"))
  .build();

const journal = {
  name: "journal",
  description: "Folder of Ignition's journals, to go on from",
  defaultValue: "contracts/ignition/deployments",
};

const deploy = task("deploy", "Deploy every contract to --network, or go on where a run broke off")
  .addOption({
    name: "out",
    description: "Folder of the file with the addresses",
    defaultValue: "pinaivu/chain/deployments",
  })
  .addOption(journal)
  .addFlag({ name: "yes", description: "Don't ask before sending" })
  .setAction(() => import("./contracts/scripts/deploy.js"))
  .build();

const verification = task("verification", "Write what block explorers need to show the deployment's source")
  .addOption(journal)
  .addOption({ name: "out", description: "Folder to write to", defaultValue: "build/verification" })
  .setAction(() => import("./contracts/scripts/verification.js"))
  .build();

// One network per file of parameters. URL and key come from the keystore or the environment, and are asked
// for only when something is deployed.
const deployed = {
  type: "http",
  chainType: "generic",
  url: configVariable("PINAIVU_RPC_URL"),
  accounts: [configVariable("PINAIVU_DEPLOYER_KEY")],
};

export default defineConfig({
  plugins: [hardhatIgnition, hardhatKeystore, branchCoverage],
  solidity: {
    profiles: {
      default: { compilers: [compiler], overrides },
      production: { compilers: [compiler] },
    },
    npmFilesToBuild: ["@openzeppelin/contracts/access/manager/AccessManager.sol"],
  },
  paths: {
    sources: "./contracts",
    tests: { solidity: "./tests/contracts" },
    ignition: "./contracts/ignition",
  },
  networks: {
    default: { type: "edr-simulated", chainType: "l1", hardfork: "osaka" },
    ...Object.fromEntries(networkNames().map((name) => [name, deployed])),
  },
  tasks: [exportAbi, deploy, verification],
  test: { solidity: { profiles: { default: runs(256, 32), deep: runs(10_000, 10_000) } } },
});
