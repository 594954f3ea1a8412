// Holds the golden vectors against an implementation that isn't ours: viem.
//
//   node tests/vectors/third_party.mjs check      every struct hash, digest and signature of
//                                                 typed_data.json; exit code 1 on any mismatch
//   node tests/vectors/third_party.mjs generate   writes typed_data_viem.json: drawn values of every
//                                                 type, hashed and signed by viem alone
//
// The types below are the specification's, copied by hand and not taken from our code; `check` also
// compares them with the table in typed_data.json, and typed_data_viem.json with a fresh generation.
import { readFileSync, writeFileSync } from "node:fs";

import { concat, hashStruct, hashTypedData, keccak256, numberToHex, recoverAddress, toHex } from "viem";
import { privateKeyToAddress, sign } from "viem/accounts";

const SPECIFICATION = `
Grant(bytes32 logId,address payer,address gateway,uint64 grantEpoch,uint96 maxTotal,uint96 maxPerJob,uint96 maxPerDay,uint64 maxPriceIn,uint64 maxPriceOut,uint64 notBeforeMs,uint64 notAfterMs,bytes32 salt,string[] models)
Job(bytes32 logId,bytes16 jobId,address gateway,bytes32 grantDigest,bytes32 account,uint128 accountLimit,uint8 kind,bytes32 fingerprint,uint64 features,uint32 promptTokens,uint32 maxOutputTokens,uint64 maxPriceIn,uint64 maxPriceOut,uint96 maxCost,uint64 valueOfTime,uint8 mode,bytes32 session,bytes32 requestCommitment,uint64 createdMs,uint64 deadlineMs,string model,address[] allow,address[] deny,bytes32[] anchors)
Offer(bytes32 logId,address node,bytes32 fingerprint,uint64 features,uint32 contextTokens,uint64 priceOut,uint32 ttftMs,uint64 tpsMilli,uint32 slots,uint64 sequence,uint64 issuedMs,uint64 expiresMs,string model)
Bid(bytes32 jobDigest,bytes32 nonce,bytes32 offerDigest,address node,uint64 priceOut,uint32 ttftMs,uint64 tpsMilli)
Award(bytes32 logId,uint64 epoch,bytes16 jobId,bytes32 jobDigest,address gateway,address node,uint8 rank,bytes32 prior,bytes32 bidDigest,uint8 clearing,uint64 priceIn,uint64 priceOut,uint32 promptTokens,uint32 maxOutputTokens,uint96 maxAmount,uint64 startByte,bytes32 requestCommitment,bytes32 anchor,bytes32 nonce,bytes32 bidsRoot,bytes32 lease,uint64 awardedMs,uint64 expiresMs)
Completion(bytes32 awardDigest,address node,bytes32 fingerprint,bytes32 segmentCommitment,bytes32 responseCommitment,uint64 startByte,uint64 endByte,uint32 promptTokens,uint32 outputTokens,uint32 acks,bytes32 lastPreimage,uint8 finish,uint64 startedMs,uint64 firstTokenMs,uint64 finishedMs,bytes32 auditCommitment)
Failure(bytes32 awardDigest,address gateway,uint8 reason,uint32 acks,uint32 outputTokens,uint64 endByte,uint64 reportedMs)
Delivery(bytes32 jobDigest,address gateway,bytes32 responseCommitment,uint8 outcome,uint64 deliveredMs,Part[] parts)
Part(bytes32 awardDigest,bytes32 completionDigest,bytes32 segmentCommitment,uint64 startByte,uint64 endByte,uint32 outputTokens,uint32 acks,uint8 result,uint64 firstTokenMs,uint64 finishedMs)
Receipt(bytes32 logId,uint64 epoch,bytes16 jobId,address gateway,address payer,bytes32 account,bytes32 jobDigest,bytes32 grantDigest,bytes32 deliveryDigest,bytes32 fingerprint,bytes32 requestCommitment,bytes32 responseCommitment,uint8 status,uint8 reason,uint96 total,uint64 payerCounter,uint128 payerTotal,uint64 accountCounter,uint128 accountTotal,uint128 accountLimit,uint96 grantSpent,uint96 grantSpentDay,bytes32 nonce,bytes32 bidsRoot,uint32 bids,uint64 receivedMs,uint64 awardedMs,uint64 firstTokenMs,uint64 finishedMs,uint64 closedMs,bytes32 measurement,bytes32 parametersDigest,bytes32 supersedes,string model,Segment[] segments)
Segment(address node,uint8 rank,bytes32 awardDigest,bytes32 completionDigest,bytes32 segmentCommitment,uint64 startByte,uint64 endByte,uint32 promptBilled,uint32 outputBilled,uint32 outputNode,uint32 outputGateway,uint32 acks,uint64 priceIn,uint64 priceOut,uint8 clearing,uint8 result,uint96 amount,uint96 fee,uint64 nodeCounter,uint128 nodeTotal)
Checkpoint(bytes32 logId,uint64 epoch,uint64 size,bytes32 root,uint64 timeMs)
Batch(bytes32 logId,uint64 epoch,uint64 sequence,uint64 prevSize,uint64 newSize,bytes32 prevRoot,bytes32 newRoot,uint32 parties,bytes32 statementRoot,uint96 fees,uint64 timeMs,bytes debits,bytes credits)
EpochStart(bytes32 logId,uint64 epoch,uint64 size,bytes32 root,bytes32 manifestDigest,uint64 timeMs)
Lost(bytes32 logId,uint64 epoch,uint64 lostEpoch,uint64 size,bytes32 root,bytes32 checkpointDigest,uint64 timeMs)
Refusal(bytes32 logId,uint64 epoch,bytes32 receiptDigest,uint8 reason,bytes32 standing,uint64 timeMs)
NodeRegistration(address node,address payout,bytes32 peerX,bytes32 peerY,uint64 nonce,uint64 deadlineMs)
GatewayRegistration(address gateway,bytes32 peerX,bytes32 peerY,uint64 nonce,uint64 deadlineMs,string[] endpoints)
PeerBinding(address owner,uint8 role,bytes32 peerX,bytes32 peerY)
Verdict(bytes32 logId,address key,bytes32 measurement,bytes32 parametersDigest,bytes32 manifestDigest,bytes32 payloadDigest,uint64 blockNumber,bytes32 blockHash,uint64 documentMs,uint64 expiresMs)
Log(address operator,uint64 number)
Lease(bytes32 logId,uint64 epoch,address gateway,address node,bytes32 grantDigest,bytes32 bidDigest,bytes32 nonce,bytes32 bidsRoot,uint64 priceIn,uint64 priceOut,uint32 slots,uint32 maxJobs,uint96 maxAmount,uint64 issuedMs,uint64 expiresMs,string model)
`;

const OURS = new URL("typed_data.json", import.meta.url);
const THEIRS = new URL("typed_data_viem.json", import.meta.url);
const KEY = `0x${"09".repeat(32)}`;
const VECTORS_PER_TYPE = 4;

const TYPES = Object.fromEntries(
  [...SPECIFICATION.matchAll(/^(\w+)\((.*)\)$/gm)].map(([, name, members]) => [
    name,
    members.split(",").map((member) => {
      const [type, memberName] = member.split(" ");
      return { name: memberName, type };
    }),
  ]),
);

function typeHash(name) {
  const text = (of) => `${of}(${TYPES[of].map(({ type, name }) => `${type} ${name}`).join(",")})`;
  const referenced = new Set();
  const visit = (of) => {
    for (const { type } of TYPES[of]) {
      const base = type.replace("[]", "");
      if (base in TYPES && !referenced.has(base)) {
        referenced.add(base);
        visit(base);
      }
    }
  };
  visit(name);
  return keccak256(toHex(text(name) + [...referenced].sort().map(text).join("")));
}

function viemDomain({ chainId, settlement }) {
  return { name: "Pinaivu", version: "1", chainId, verifyingContract: settlement };
}

// The JSON form writes integers above 32 bits as decimal strings; viem wants numbers.
function viemValue(type, value) {
  if (type.endsWith("[]")) return value.map((item) => viemValue(type.slice(0, -2), item));
  if (type in TYPES) return viemMessage(type, value);
  return type.startsWith("uint") ? BigInt(value) : value;
}

function viemMessage(type, message) {
  const members = TYPES[type];
  const given = Object.keys(message).sort().join();
  const expected = members
    .map(({ name }) => name)
    .sort()
    .join();
  if (given !== expected) throw new Error(`${type} has the members ${given}, not ${expected}`);
  return Object.fromEntries(members.map(({ name, type }) => [name, viemValue(type, message[name])]));
}

function hashesOf({ type, domain, message }) {
  const data = viemMessage(type, message);
  return {
    structHash: hashStruct({ data, primaryType: type, types: TYPES }),
    digest: hashTypedData({ domain: viemDomain(domain), types: TYPES, primaryType: type, message: data }),
  };
}

async function checkFile(file) {
  const { signer, typeHashes, types, vectors } = JSON.parse(readFileSync(file, "utf8"));
  const faults = [];
  const compare = (what, found, expected) => {
    if (found !== expected) faults.push(`${what}: ${found} in the file, ${expected} by viem`);
  };
  compare("types", JSON.stringify(ordered(types)), JSON.stringify(ordered(TYPES)));
  for (const name of Object.keys(TYPES)) {
    compare(`typeHashes.${name}`, typeHashes[name], typeHash(name));
    if (!vectors.some(({ type }) => type === name)) faults.push(`no vector of type ${name}`);
  }
  for (const [index, vector] of vectors.entries()) {
    const { structHash, digest } = hashesOf(vector);
    compare(`vector ${index} (${vector.type}) structHash`, vector.structHash, structHash);
    compare(`vector ${index} (${vector.type}) digest`, vector.digest, digest);
    const recovered = await recoverAddress({ hash: digest, signature: vector.signature });
    compare(`vector ${index} (${vector.type}) signer`, signer, recovered.toLowerCase());
  }
  return { count: vectors.length, faults };
}

// SHA-3 of a counter: the same values on every machine and in every release of Node.
function* drawnBytes(seed) {
  for (let counter = 0; ; counter++) {
    const block = keccak256(concat([toHex(seed), numberToHex(counter, { size: 8 })]));
    for (let at = 2; at < block.length; at += 2) yield Number.parseInt(block.slice(at, at + 2), 16);
  }
}

class Drawer {
  #bytes = drawnBytes("pinaivu golden vectors, drawn by viem's side");

  hex(size) {
    const bytes = Array.from({ length: size }, () => this.#bytes.next().value);
    return toHex(Uint8Array.from(bytes));
  }

  below(limit) {
    return Number(BigInt(this.hex(6)) % BigInt(limit));
  }

  value(type) {
    if (type.endsWith("[]")) return this.#list(() => this.value(type.slice(0, -2)));
    if (type in TYPES) return this.message(type);
    if (type === "string")
      return this.#list(() => ["qwen/7b", "@v1.0+x", "µ", "推論", "🜁", '"\\\n'][this.below(6)]).join("");
    if (type === "bytes") return this.hex(32 * this.below(5));
    if (type === "address") return this.hex(20);
    if (type.startsWith("bytes")) return this.hex(Number(type.slice(5)));
    return this.#uint(Number(type.slice(4)));
  }

  message(type) {
    return Object.fromEntries(TYPES[type].map(({ name, type }) => [name, this.value(type)]));
  }

  #list(draw) {
    return Array.from({ length: this.below(5) }, draw);
  }

  // One in eight at either end of the range, the others with a drawn number of leading zero bits.
  #uint(bits) {
    const maximum = (1n << BigInt(bits)) - 1n;
    const choice = this.below(8);
    const drawn = (BigInt(this.hex(bits / 8)) & maximum) >> BigInt(this.below(bits));
    const value = choice === 0 ? 0n : choice === 1 ? maximum : drawn;
    return bits <= 32 ? Number(value) : value.toString();
  }
}

async function generate() {
  const drawer = new Drawer();
  const vectors = [];
  for (const type of Object.keys(TYPES)) {
    for (let number = 0; number < VECTORS_PER_TYPE; number++) {
      const domain = { chainId: 1 + drawer.below(2 ** 32), settlement: drawer.hex(20) };
      const message = drawer.message(type);
      const { structHash, digest } = hashesOf({ type, domain, message });
      const signature = await sign({ hash: digest, privateKey: KEY, to: "hex" });
      vectors.push({ type, domain, message, structHash, digest, signature });
    }
  }
  const typeHashes = Object.fromEntries(Object.keys(TYPES).map((name) => [name, typeHash(name)]));
  const signer = privateKeyToAddress(KEY).toLowerCase();
  return `${JSON.stringify(ordered({ signer, typeHashes, types: TYPES, vectors }), null, 1)}\n`;
}

function ordered(value) {
  if (Array.isArray(value)) return value.map(ordered);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(
    Object.keys(value)
      .sort()
      .map((name) => [name, ordered(value[name])]),
  );
}

async function check() {
  let failed = false;
  for (const file of [OURS, THEIRS]) {
    const { count, faults } = await checkFile(file);
    for (const fault of faults) console.error(fault);
    console.log(`${file.pathname.split("/").pop()}: ${count} vectors, ${faults.length} mismatches`);
    failed ||= faults.length !== 0;
  }
  if (readFileSync(THEIRS, "utf8") !== (await generate())) {
    console.error("typed_data_viem.json is not what `generate` writes");
    failed = true;
  }
  process.exitCode = failed ? 1 : 0;
}

const mode = process.argv[2];
if (mode === "generate") writeFileSync(THEIRS, await generate());
else if (mode === "check") await check();
else {
  console.error("usage: node tests/vectors/third_party.mjs check | generate");
  process.exitCode = 3;
}
