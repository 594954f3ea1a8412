// Task `deploy`: puts the whole set of contracts on the network chosen with --network, hands the roles over,
// and writes pinaivu/chain/deployments/NETWORK.json. Repeatable: what stands is left alone, a run that broke
// off is continued from Ignition's journal. What `parameters/NETWORK.json` says is checked before anything is
// sent. Whether the result is right says `pinaivu roles`, which shares no code with this.
import { existsSync } from "node:fs";
import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import path from "node:path";
import readline from "node:readline/promises";

import { errorDeploymentResultToExceptionMessage } from "@nomicfoundation/hardhat-ignition/helpers";
import { deploy, listTransactions, trackTransaction } from "@nomicfoundation/ignition-core";
import { decodeFunctionResult, encodeFunctionData, erc20Abi, formatEther, getAddress } from "viem";

import { load, pinaivuModule } from "../ignition/modules/Pinaivu.js";
import { networkNames, same, settingsOf } from "../ignition/settings.js";

const STARTS = ["DEPLOYMENT", "CALL", "STATIC_CALL"].map((kind) => `${kind}_EXECUTION_STATE_INITIALIZE`);
const TOKEN_DECIMALS = 6;
const POLL_MS = 1_000;
const ATTEMPTS = 3;
const CONFIRMATIONS = 5; // blocks until a transaction counts
const GAS = 30_000_000n; // what all transactions together use, rounded up

export default async function deployTask({ out, journal, yes }, hre) {
  const network = hre.globalOptions.network;
  if (!network || !networkNames().includes(network)) {
    return fail(`name a network: --network ${networkNames().join("|")} (contracts/ignition/parameters)`);
  }
  try {
    const file = path.resolve(out, `${network}.json`);
    await run(hre, network, { file, journal: path.resolve(journal, network), yes });
  } catch (error) {
    fail(error.message);
  }
}

async function run(hre, network, { file, journal, yes }) {
  const settings = settingsOf(network);
  const connection = await hre.network.create();
  const { provider } = connection;
  await checkChain(provider, settings);
  if (await stands(provider, file)) {
    return console.log(`${file}: deployed already, nothing to do`);
  }
  const [deployer] = await request(provider, "eth_accounts");
  await describe(provider, network, settings, deployer);
  if (!settings.local && !yes && !(await confirmed(network))) throw new Error("nothing was sent");

  const result = await continued(provider, settings, deployer, journal);
  if (result.type !== "SUCCESSFUL_DEPLOYMENT") {
    throw new Error(
      `${errorDeploymentResultToExceptionMessage(result)}\nRun the same command again to go on`,
    );
  }
  const content = await record(provider, settings, journal, result.contracts);
  await replace(file, `${JSON.stringify(content, null, 2)}\n`);
  console.log(`wrote ${file}`);
}

/** Deploys what is missing. */
async function continued(provider, settings, deployer, deploymentDir) {
  const confirmations = (await minesAtOnce(provider)) ? 1 : CONFIRMATIONS;
  const ask = () =>
    deploy({
      artifactResolver: { loadArtifact: load, getBuildInfo: () => undefined },
      provider,
      executionEventListener: undefined,
      deploymentDir,
      ignitionModule: pinaivuModule(settings, deployer),
      deploymentParameters: {},
      accounts: [deployer],
      strategy: "basic",
      config: { requiredConfirmations: confirmations },
    });
  for (let attempt = 1; ; ++attempt) {
    await tidy(deploymentDir);
    try {
      return await ask();
    } catch (error) {
      const { nonce, expectedNonce } = error.messageArguments ?? {};
      if (attempt === ATTEMPTS || (nonce ?? expectedNonce) === undefined) throw error;
      if (nonce !== undefined) await recover(provider, deployer, nonce, deploymentDir, confirmations);
      // Otherwise the account sent something else meanwhile: Ignition counts anew when it is asked again.
    }
  }
}

/**
 * Takes from the journal what a run noted last before it was killed and Ignition can't go on from: half a
 * line, or the beginning of a step of which nothing was sent. Ignition's list of addresses, which it rewrites
 * in place after each step, is made anew from what is left: it may be cut short, or a step behind.
 */
async function tidy(deploymentDir) {
  const file = path.join(deploymentDir, "journal.jsonl");
  if (!existsSync(file)) return;
  const lines = (await readFile(file, "utf8")).split("\n").filter((line) => line !== "");
  const messages = lines.flatMap((line, at) => (at === lines.length - 1 ? whole(line) : [JSON.parse(line)]));
  const isRequest = ({ type }) => type === "NETWORK_INTERACTION_REQUEST";
  const requested = new Set(messages.filter(isRequest).map(({ futureId }) => futureId));
  const kept = messages.filter(({ type, futureId }) => !STARTS.includes(type) || requested.has(futureId));
  await replace(file, kept.map((message) => `\n${JSON.stringify(message)}`).join(""));
  const addresses = Object.fromEntries(kept.flatMap(addressIn));
  await replace(path.join(deploymentDir, "deployed_addresses.json"), JSON.stringify(addresses, null, 2));
}

/** Name and address of the contract that a line of the journal says is there, if it is such a line. */
function addressIn({ type, futureId, result, contractAddress }) {
  if (type === "CONTRACT_AT_EXECUTION_STATE_INITIALIZE") return [[futureId, contractAddress]];
  const created = type === "DEPLOYMENT_EXECUTION_STATE_COMPLETE" && result.type === "SUCCESS";
  return created ? [[futureId, result.address]] : [];
}

function whole(line) {
  try {
    return [JSON.parse(line)];
  } catch {
    return [];
  }
}

/**
 * The last run ended between noting that it was about to send a transaction and noting that it was sent.
 * Only one transaction of an account can have a nonce, so an empty one takes the place if none is known; then
 * Ignition is told which of the two it became.
 */
async function recover(provider, deployer, nonce, deploymentDir, confirmations) {
  const count = (block) => request(provider, "eth_getTransactionCount", deployer, block);
  if (Number(await count("pending")) <= nonce) {
    const empty = { from: deployer, to: deployer, value: "0x0", nonce: hex(nonce) };
    await request(provider, "eth_sendTransaction", empty);
  }
  while (Number(await count("latest")) <= nonce) await pause();
  const { hash, block } = await transactionOf(provider, deployer, nonce);
  console.log(`the last run ended while it sent transaction ${nonce}; it became ${hash}`);
  while (Number(await request(provider, "eth_blockNumber")) < block + confirmations - 1) await pause();
  await trackTransaction(deploymentDir, hash, provider, confirmations);
}

/** The account's mined transaction with this nonce. */
async function transactionOf(provider, account, nonce) {
  const count = async (block) =>
    Number(await request(provider, "eth_getTransactionCount", account, hex(block)));
  let last = Number(await request(provider, "eth_blockNumber"));
  let first = 0;
  while (first < last) {
    const middle = Math.floor((first + last) / 2);
    if ((await count(middle)) > nonce) last = middle;
    else first = middle + 1;
  }
  const { transactions } = await request(provider, "eth_getBlockByNumber", hex(first), true);
  const found = transactions.find((tx) => same(tx.from, account) && Number(tx.nonce) === nonce);
  return { hash: found.hash, block: first };
}

/** Whether this is a development chain that makes a block per transaction and none without. */
async function minesAtOnce(provider) {
  try {
    return await request(provider, "hardhat_getAutomine");
  } catch {
    return false; // a real chain knows no such method
  }
}

function hex(number) {
  return `0x${number.toString(16)}`;
}

function request(provider, method, ...params) {
  return provider.request({ method, params });
}

function pause() {
  return new Promise((resolve) => setTimeout(resolve, POLL_MS));
}

async function checkChain(provider, settings) {
  const chainId = Number(await request(provider, "eth_chainId"));
  if (chainId !== settings.chainId) {
    throw new Error(`the RPC URL serves chain ${chainId}, the parameters are for chain ${settings.chainId}`);
  }
}

/** Whether the file names contracts and the chain holds them. */
async function stands(provider, file) {
  if (!existsSync(file)) return false;
  const { settlement } = JSON.parse(await readFile(file, "utf8"));
  if (await hasCode(provider, settlement)) return true;
  throw new Error(`${file} names contracts that this chain doesn't hold; move it away to deploy anew`);
}

async function describe(provider, network, settings, deployer) {
  const price = BigInt(await request(provider, "eth_gasPrice"));
  const balance = BigInt(await request(provider, "eth_getBalance", deployer, "latest"));
  console.log(`network   ${network}, chain ${settings.chainId}`);
  console.log(
    `deployer  ${getAddress(deployer)}, ${formatEther(balance)} of ${formatEther(GAS * price)} needed`,
  );
  if (balance < GAS * price) throw new Error(`send the deployer ${formatEther(GAS * price - balance)} more`);
  if (!settings.local && Object.values(settings.holders).some((holder) => same(holder, deployer))) {
    throw new Error("a role's holder is the deployer's account; the deployer must keep nothing");
  }
  console.log(`token     ${await describeToken(provider, settings.token)}`);
  for (const [role, holder] of Object.entries(settings.holders)) {
    const kind = (await hasCode(provider, holder)) ? "a contract" : "a plain key";
    console.log(`${role.padEnd(14)}${getAddress(holder)}, ${kind}`);
  }
}

/** Refuses what can be seen to be no settlement token; a fee on transfers can't be seen without money. */
async function describeToken(provider, token) {
  if (token === "test") return "a new TestToken: play money";
  if (!(await hasCode(provider, token))) throw new Error(`token: there is no contract at ${token}`);
  const decimals = await view(provider, token, "decimals");
  if (decimals !== TOKEN_DECIMALS) {
    throw new Error(`token: ${token} says decimals() = ${decimals}, Pinaivu counts in ${TOKEN_DECIMALS}`);
  }
  const symbol = await view(provider, token, "symbol");
  return `${getAddress(token)} (${symbol}); that it takes no fee on transfers and doesn't rebase is on you`;
}

async function view(provider, to, functionName) {
  const data = encodeFunctionData({ abi: erc20Abi, functionName });
  try {
    const answer = await request(provider, "eth_call", { to, data }, "latest");
    return decodeFunctionResult({ abi: erc20Abi, functionName, data: answer });
  } catch (error) {
    throw new Error(`token: ${to} doesn't answer ${functionName}(): it is no ERC-20 token`, { cause: error });
  }
}

async function hasCode(provider, address) {
  return (await request(provider, "eth_getCode", address, "latest")) !== "0x";
}

async function confirmed(network) {
  const terminal = readline.createInterface({ input: process.stdin, output: process.stdout });
  const answer = await terminal.question(`Deploy to ${network}? Type its name: `);
  terminal.close();
  return answer.trim() === network;
}

/** What the deployment file says; `block` is the first one that any of the contracts can have events in. */
async function record(provider, settings, journal, contracts) {
  const blocks = [];
  for (const { txHash } of await listTransactions(journal)) {
    const receipt = await request(provider, "eth_getTransactionReceipt", txHash);
    if (receipt) blocks.push(Number(receipt.blockNumber));
  }
  const at = (name) => contracts[`Pinaivu#${name}`].address.toLowerCase();
  const holders = Object.entries(settings.holders).map(([role, holder]) => [role, holder.toLowerCase()]);
  return {
    version: 1,
    chain_id: settings.chainId,
    block: Math.min(...blocks),
    token: settings.token === "test" ? at("TestToken") : settings.token.toLowerCase(),
    access_manager: at("AccessManager"),
    settlement: at("Settlement"),
    receipt_log: at("ReceiptLog"),
    enclave_registry: at("EnclaveRegistry"),
    node_registry: at("NodeRegistry"),
    gateway_registry: at("GatewayRegistry"),
    model_registry: at("ModelRegistry"),
    objective_faults: at("ObjectiveFaults"),
    holders: Object.fromEntries(holders),
  };
}

/** Writes a file whole or not at all. */
async function replace(file, content) {
  await mkdir(path.dirname(file), { recursive: true });
  await writeFile(`${file}.part`, content);
  await rename(`${file}.part`, file);
}

function fail(message) {
  console.error(`deploy: ${message}`);
  process.exitCode = 1;
}
