// What a network is deployed with: parameters/NETWORK.json (or in the folder that PINAIVU_PARAMETERS names)
// over parameters/defaults.json, checked before anything is sent. Durations in seconds. The contracts check
// most of this again, and `pinaivu roles` all of it; here the errors say which line to change. `settingsOf`
// throws an Error that lists every mistake.
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";

import { isAddress, zeroAddress } from "viem";

const OWN_FOLDER = new URL("parameters/", import.meta.url);
const FOLDER = folder(process.env.PINAIVU_PARAMETERS);
const LOCAL_CHAINS = [31_337, 1_337]; // as in SimulatedAttestationVerifier and pinaivu/chain/roles.py
const HOLDERS = ["admin", "administrator", "guardian", "registrar"];
const TIMES = ["unsettledMax", "pauseMax", "withdrawalDelay", "adminDelay", "pauseInterval", "limiterWindow"];
const LONGEST_WITHDRAWAL = 30 * 86_400; // as in Settlement
const DURATIONS = ["payoutDelay", "unbondingDelay", "epochLifetime"];
const MEMBERS = [
  ...["chainId", "token", "holders", "beneficiary", "verifiers", "simulator", "times", "debitLimitPpm"],
  ...DURATIONS,
];

export function networkNames() {
  const files = readdirSync(FOLDER).filter((name) => name.endsWith(".json"));
  return files.map((name) => name.slice(0, -5)).filter((name) => name !== "defaults");
}

export function settingsOf(network) {
  const given = read(FOLDER, `${network}.json`);
  const defaults = read(OWN_FOLDER, "defaults.json");
  const settings = { ...defaults, ...given, times: { ...defaults.times, ...given.times } };
  const mistakes = [...mistakesIn(settings)];
  if (mistakes.length !== 0) {
    const list = mistakes.map((mistake) => `  - ${mistake}`).join("\n");
    throw new Error(`${new URL(`${network}.json`, FOLDER).pathname} can't be deployed:\n${list}`);
  }
  return { ...settings, local: LOCAL_CHAINS.includes(settings.chainId) };
}

function folder(elsewhere) {
  return elsewhere ? pathToFileURL(path.resolve(elsewhere) + path.sep) : OWN_FOLDER;
}

function read(place, name) {
  const file = new URL(name, place);
  try {
    return JSON.parse(readFileSync(file, "utf8"));
  } catch (error) {
    throw new Error(`${file.pathname}: ${error.message}`, { cause: error });
  }
}

function* mistakesIn(settings) {
  for (const name of Object.keys(settings)) {
    if (!MEMBERS.includes(name)) yield `${name}: there is no such parameter (${MEMBERS.join(", ")})`;
  }
  if (!Number.isSafeInteger(settings.chainId) || settings.chainId < 1) yield "chainId: a chain's number";
  const local = LOCAL_CHAINS.includes(settings.chainId);
  if (!(local && settings.token === "test")) yield* notAddress("token", settings.token);
  yield* mistakesInHolders(settings.holders ?? {}, local);
  yield* notAddress("beneficiary", settings.beneficiary);
  yield* mistakesInVerifiers(settings, local);
  yield* mistakesInTimes(settings);
  if (!isInteger(settings.debitLimitPpm, 10_000, local ? 1_000_000 : 999_999)) {
    yield "debitLimitPpm: share of the deposits, 10000 (1 %) to 999999; 1000000, no limit, on local chains";
  }
}

function* notAddress(name, value) {
  if (typeof value !== "string" || !isAddress(value)) {
    yield `${name}: an address (0x and 40 digits, its checksum right if it has capitals) is missing`;
  } else if (value === zeroAddress) yield `${name}: must not be the zero address`;
}

function* mistakesInHolders(holders, local) {
  for (const name of HOLDERS) yield* notAddress(`holders.${name}`, holders[name]);
  for (const name of Object.keys(holders)) {
    if (!HOLDERS.includes(name)) yield `holders.${name}: there is no such role (${HOLDERS.join(", ")})`;
  }
  if (local) return;
  for (const name of ["admin", "administrator", "registrar"]) {
    if (holders.guardian && same(holders.guardian, holders[name])) {
      yield `holders.guardian: is the ${name} too; the one who may veto must be somebody else`;
    }
  }
}

function* mistakesInVerifiers({ verifiers, simulator, times }, local) {
  if (simulator !== undefined && !local) {
    yield "simulator: only on local chains; elsewhere name verifiers.members and verifiers.threshold";
  }
  if (simulator !== undefined) return void (yield* notAddress("simulator", simulator));
  const { members = [], threshold } = verifiers ?? {};
  for (const [at, member] of members.entries()) yield* notAddress(`verifiers.members[${at}]`, member);
  if (new Set(members.map((member) => String(member).toLowerCase())).size !== members.length) {
    yield "verifiers.members: one is named twice";
  }
  if (!isInteger(threshold, 2, members.length)) {
    yield `verifiers: at least 2 members, and a threshold of 2 to their number (${members.length})`;
  }
}

function* mistakesInTimes({ times, unbondingDelay, ...settings }) {
  for (const name of Object.keys(times)) {
    if (!TIMES.includes(name)) yield `times.${name}: there is no such time (${TIMES.join(", ")})`;
  }
  const all = { ...times, unbondingDelay };
  for (const name of DURATIONS) all[name] ??= settings[name];
  for (const [name, value] of Object.entries(all)) {
    if (!isInteger(value, 1, 2 ** 32 - 1)) yield `${name}: seconds, 1 to 4294967295, not ${value}`;
  }
  const order = ["unsettledMax", "pauseMax", "withdrawalDelay", "adminDelay"];
  for (const [at, name] of order.slice(1).entries()) {
    const shorter = order[at];
    if (times[name] <= times[shorter]) {
      yield `times.${name} (${times[name]} s) must be longer than times.${shorter} (${times[shorter]} s)`;
    }
  }
  yield* mistakesInBounds(times, { payoutDelay: settings.payoutDelay, unbondingDelay });
}

function* mistakesInBounds(times, waysOut) {
  if (times.unsettledMax + times.pauseMax >= times.withdrawalDelay) {
    yield "times.withdrawalDelay must be longer than times.unsettledMax and times.pauseMax together";
  }
  if (times.withdrawalDelay > LONGEST_WITHDRAWAL) {
    yield `times.withdrawalDelay must not be longer than 30 days (${LONGEST_WITHDRAWAL} s)`;
  }
  if (times.pauseInterval <= times.withdrawalDelay) {
    yield "times.pauseInterval must be longer than times.withdrawalDelay";
  }
  if (times.limiterWindow < times.pauseMax) {
    yield "times.limiterWindow must not be shorter than times.pauseMax";
  }
  for (const [name, value] of Object.entries(waysOut)) {
    if (value < times.withdrawalDelay) yield `${name} must not be shorter than times.withdrawalDelay`;
  }
}

function isInteger(value, least, most) {
  return Number.isSafeInteger(value) && value >= least && value <= most;
}

export function same(one, other) {
  return String(one).toLowerCase() === String(other).toLowerCase();
}
