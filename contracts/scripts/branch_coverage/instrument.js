// Rewrites a source file that Hardhat has instrumented for statements so that its branches report too.
import { createHash } from "node:crypto";

import parser from "@solidity-parser/parser";

const HIT = "__NomicFoundationCoverage.sendHit"; // of the library that Hardhat adds to the file
const LOGICAL = ["&&", "||"];

/**
 * @param {string} file path that names the file in the report
 * @param {string} source Solidity, without line breaks added
 * @returns {{source: string, branches: Map<string, {line: number, text: string, outcome: string}>}}
 */
export function instrument(file, source) {
  const reporter = `__outcome_${createHash("sha256").update(file).digest("hex").slice(0, 16)}`;
  const branches = new Map();
  const insertions = []; // [offset, text], later applied from the end
  const seen = new Set();

  function name(node, text, outcomes) {
    const digest = createHash("sha256").update(`${file}:${node.range}`).digest("hex");
    const tags = outcomes.map((_, i) => digest.slice(0, 63) + i.toString(16));
    const line = node.loc.start.line;
    tags.forEach((tag, i) => branches.set(tag, { line, text, outcome: outcomes[i] }));
    return tags;
  }

  function condition(node) {
    while (node.type === "TupleExpression" && node.components.length === 1) node = node.components[0];
    const [start, last] = node.range;
    const operator = node.type === "BinaryOperation" && LOGICAL.includes(node.operator);
    if (operator || seen.has(start)) return; // its operands report
    seen.add(start);
    const text = source.slice(start, last + 1).replace(/\s+/g, " ");
    const [no] = name(node, text, ["false", "true"]);
    insertions.push([start, `${reporter}(`], [last + 1, `, 0x${no})`]);
  }

  function block(node, text, outcome) {
    const [tag] = name(node, text, [outcome]);
    insertions.push([node.range[0] + 1, `${HIT}(0x${tag});`]);
  }

  parser.visit(parser.parse(source, { range: true, loc: true }), {
    IfStatement: (node) => condition(node.condition),
    WhileStatement: (node) => condition(node.condition),
    DoWhileStatement: (node) => condition(node.condition),
    ForStatement: (node) => node.conditionExpression && condition(node.conditionExpression),
    Conditional: (node) => condition(node.condition),
    BinaryOperation(node) {
      if (!LOGICAL.includes(node.operator)) return;
      condition(node.left);
      condition(node.right);
    },
    TryStatement(node) {
      const text = source.slice(node.expression.range[0], node.expression.range[1] + 1).replace(/\s+/g, " ");
      block(node.body, `try ${text}`, "success");
      for (const clause of node.catchClauses) block(clause.body, `try ${text}`, "failure");
    },
  });

  insertions.sort((a, b) => b[0] - a[0]);
  for (const [offset, text] of insertions) {
    source = source.slice(0, offset) + text + source.slice(offset);
  }
  if (branches.size !== 0) {
    source += `
function ${reporter}(bool outcome, uint256 no) pure returns (bool) {
    ${HIT}(outcome ? no + 1 : no);
    return outcome;
}
`;
  }
  return { source, branches };
}
