// Renders docs/storage.md: where every contract keeps what, from the compiler's own storage layout.

const HEADER = `# Where the contracts keep what

Written by \`tools/npm run -s abi\` from the compiler's storage layout; \`make test\` fails when it is out of date. Use it
with \`eth_getStorageAt\` and \`eth_getProof\`. The value of a mapping at slot \`s\` for key \`k\` lies at
\`keccak256(k ‖ s)\`, both padded to 32 bytes; in a nested mapping that result takes the place of \`s\`. Byte 0 of a slot is
its lowest. Constructor arguments that never change lie in the code, not in storage.
`;

// `layouts`: [contract name, storageLayout of the compiler's output], in the order of the page.
export function storagePage(layouts) {
  return [HEADER, ...layouts.map(([name, layout]) => section(name, layout))].join("\n");
}

function section(name, { storage, types }) {
  const used = new Set();
  const rows = storage.map((entry) => row(entry, entry.slot, types, used));
  const structs = [...used].flatMap((id) => [
    "",
    `\`${label(types[id])}\`, ${slots(types[id])}:`,
    "",
    ...table(types[id].members.map((member) => row(member, `+${member.slot}`, types, used))),
  ]);
  return [`## ${name}`, "", ...table(rows), ...structs, ""].join("\n");
}

function table(rows) {
  return ["| slot | bytes | name | type |", "| --- | --- | --- | --- |", ...rows];
}

function row(entry, slot, types, used) {
  const type = types[entry.type];
  structsIn(entry.type, types, used);
  const last = entry.offset + Number(type.numberOfBytes) - 1;
  const span = last === entry.offset ? last : `${entry.offset}–${last}`;
  const bytes = Number(type.numberOfBytes) > 32 ? "all" : span;
  return `| ${slot} | ${bytes} | ${entry.label.replace(/^_/, "")} | \`${label(type)}\` |`;
}

// Structs are described where they are first met, whether held directly, in a mapping or in an array.
function structsIn(id, types, used) {
  const type = types[id];
  if (type.members) used.add(id);
  if (type.value) structsIn(type.value, types, used);
  if (type.base) structsIn(type.base, types, used);
}

function label(type) {
  return type.label.replaceAll(/\b(struct|contract|enum) (?:\w+\.)?/g, "");
}

function slots(type) {
  const count = Number(type.numberOfBytes) / 32;
  return count === 1 ? "one slot" : `${count} slots`;
}
