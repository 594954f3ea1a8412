// The whole deployment as an Ignition module: every contract, then all roles in one transaction after which
// the deploying account can do nothing. What goes out is the committed bytecode of pinaivu/chain/abi.
//
// Settlement and ObjectiveFaults are named in the constructors of contracts that come before them, so a
// Launcher creates these two: their addresses follow from its address alone (docs/adr/0007).
import { readFileSync } from "node:fs";

import { buildModule } from "@nomicfoundation/ignition-core";
import { toFunctionSelector } from "viem";

const PACKAGE = new URL("../../../pinaivu/chain/", import.meta.url);
const ADMIN_ROLE = 0;
const LAUNCHES = { faults: 1, settlement: 2 };
/** Field of the deployment file → contract, of every contract that may hold restricted functions. */
const CONTRACTS = {
  settlement: "Settlement",
  enclave_registry: "EnclaveRegistry",
  model_registry: "ModelRegistry",
  attestation_verifier: "QuorumAttestationVerifier",
};

/** @param settings What `settingsOf` returns; @param deployer The account that sends. */
export function pinaivuModule(settings, deployer) {
  return buildModule("Pinaivu", (m) => {
    const parts = contracts(m, settings, deployer);
    handOver(m, settings, deployer, parts);
    return Object.fromEntries(Object.entries(parts).filter(([, part]) => typeof part !== "string"));
  });
}

/** Every contract, by its field in the deployment file. */
function contracts(m, settings, deployer) {
  let previous = []; // one after the other: a run that goes on then has one open transaction at most
  const create = (name, ...constructorArguments) => {
    const contract = m.contract(name, load(name), constructorArguments, { after: previous });
    previous = [contract];
    return contract;
  };
  const { times } = settings;
  const launcher = create("Launcher");
  const addressOf = (number) => m.staticCall(launcher, "addressOf", [number], 0, { id: `address_${number}` });
  const [faults, settlement] = [addressOf(LAUNCHES.faults), addressOf(LAUNCHES.settlement)];

  const manager = create("AccessManager", deployer);
  const token = settings.token === "test" ? create("TestToken") : settings.token;
  const verifier = settings.simulator
    ? create("SimulatedAttestationVerifier", settlement, settings.simulator)
    : create("QuorumAttestationVerifier", manager, settlement, ...quorum(settings), times.adminDelay);
  const log = create("ReceiptLog", settlement);
  const enclaves = create(
    "EnclaveRegistry",
    ...[manager, log, verifier, times.adminDelay, settings.epochLifetime],
  );
  const nodes = create(
    "NodeRegistry",
    ...[settlement, settings.payoutDelay, token, faults, settings.unbondingDelay],
  );
  const gateways = create("GatewayRegistry", settlement);
  const models = create("ModelRegistry", manager);
  const launch = (field, name, constructorArguments, after) =>
    launched(m, launcher, LAUNCHES[field], name, constructorArguments, after);
  const judge = launch(
    "faults",
    "ObjectiveFaults",
    [settlement, nodes, enclaves, settings.beneficiary],
    previous,
  );
  const config = {
    token,
    authority: manager,
    receiptLog: log,
    enclaveRegistry: enclaves,
    nodeRegistry: nodes,
    gatewayRegistry: gateways,
    modelRegistry: models,
    faults: judge,
    debitLimitPpm: settings.debitLimitPpm,
    times,
  };
  return {
    token,
    access_manager: manager,
    settlement: launch("settlement", "Settlement", [config], [judge]),
    receipt_log: log,
    enclave_registry: enclaves,
    node_registry: nodes,
    gateway_registry: gateways,
    model_registry: models,
    objective_faults: judge,
    attestation_verifier: verifier,
  };
}

/** The contract that the launcher creates as number `number`. */
function launched(m, launcher, number, name, constructorArguments, after) {
  const artifact = load(name);
  // Ignition encodes calls only, so the constructor is described as a function; the launcher cuts off the
  // selector.
  const { inputs } = artifact.abi.find((entry) => entry.type === "constructor");
  const construct = {
    type: "function",
    name: "construct",
    stateMutability: "nonpayable",
    inputs,
    outputs: [],
  };
  const description = m.contractAt(`${name}Constructor`, { ...artifact, abi: [construct] }, launcher);
  const encoded = m.encodeFunctionCall(description, "construct", constructorArguments, {
    id: `arguments_of_${name}`,
  });
  const launch = m.call(launcher, "launch", [number, artifact.bytecode, encoded], {
    id: `launch_${name}`,
    after,
  });
  const address = m.staticCall(launcher, "addressOf", [number], 0, {
    id: `launched_${number}`,
    after: [launch],
  });
  return m.contractAt(name, artifact, address);
}

function quorum({ verifiers: { members, threshold } }) {
  const ascending = [...members].sort((a, b) => (BigInt(a) < BigInt(b) ? -1 : 1));
  return [ascending, threshold];
}

/** Sets every role of the table and takes the deployer's own away, all or nothing. */
function handOver(m, settings, deployer, parts) {
  const manager = parts.access_manager;
  const steps = [];
  const step = (name, values) => {
    const id = `step_${steps.length}_${name}`;
    steps.push(m.encodeFunctionCall(manager, name, values, { id }));
  };
  const roles = roleTable();
  for (const role of roles) {
    const delay = settings.local || role.delay === "none" ? 0 : settings.times[role.delay];
    for (const [field, selectors] of functionsOf(role, settings)) {
      step("setTargetFunctionRole", [parts[field], selectors, role.id]);
    }
    if (role.id !== ADMIN_ROLE) step("labelRole", [role.id, role.name]);
    if (role.vetoed_by !== null) {
      step("setRoleGuardian", [role.id, roles.find(({ name }) => name === role.vetoed_by).id]);
    }
    step("grantRole", [role.id, settings.holders[role.name], delay]);
  }
  if (settings.holders.admin.toLowerCase() !== deployer.toLowerCase()) {
    step("renounceRole", [ADMIN_ROLE, deployer]);
  }
  m.call(manager, "multicall", [steps], { id: "hand_over", after: Object.values(parts).filter(isFuture) });
}

/** A role's restricted functions: field of the deployment file → selectors. */
function functionsOf(role, settings) {
  const grouped = new Map();
  for (const { contract, name } of role.functions) {
    if (contract === "attestation_verifier" && settings.simulator) continue; // it has none
    const entry = load(CONTRACTS[contract]).abi.find(
      (item) => item.type === "function" && item.name === name,
    );
    grouped.set(contract, [...(grouped.get(contract) ?? []), toFunctionSelector(entry)]);
  }
  return grouped;
}

function isFuture(part) {
  return typeof part !== "string";
}

function roleTable() {
  return JSON.parse(readFileSync(new URL("roles.json", PACKAGE), "utf8")).roles;
}

/** The committed ABI and bytecode of a contract, as an artifact. */
export function load(contractName) {
  const { abi, bytecode, contract } = JSON.parse(readFileSync(new URL(`abi/${contractName}.json`, PACKAGE)));
  const sourceName = contract.slice(0, contract.lastIndexOf(":"));
  return { abi, bytecode, contractName, sourceName, linkReferences: {} };
}
