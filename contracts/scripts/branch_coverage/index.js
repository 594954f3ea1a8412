// Hardhat's `--coverage` counts statements. This plugin adds branches to it: both outcomes of every
// condition, of every operand of `&&` and `||`, and both ways out of every `try`. What there is to reach
// stands in coverage/branches.json, by tag; the tags that were reached are in coverage/data, among those
// of the statements. tools/analysis/check_coverage.py reads both. Idle without `--coverage`.
//
// Not seen: branches inside assembly, and those that the compiler adds (checked arithmetic, decoding).
import { mkdir, writeFile } from "node:fs/promises";
import path from "node:path";

const branches = new Map(); // tag → { file, line, text, outcome }

const solidity = async () => ({
  default: async () => ({
    async preprocessProjectFileBeforeBuilding(context, sourceName, fsPath, content, version, next) {
      const source = await next(context, sourceName, fsPath, content, version);
      if (!context.globalOptions.coverage || (await context.solidity.getScope(fsPath)) === "tests") {
        return source;
      }
      const { instrument } = await import("./instrument.js");
      const file = path.relative(context.config.paths.root, fsPath);
      const result = instrument(file, source);
      for (const [tag, branch] of result.branches) branches.set(tag, { file, ...branch });
      return result.source;
    },
  }),
});

const test = async () => ({
  default: async () => ({
    async onTestRunDone(context, id, next) {
      await next(context, id);
      if (!context.globalOptions.coverage) return;
      const report = Object.fromEntries(branches);
      const folder = path.join(context.config.paths.root, "coverage");
      await mkdir(folder, { recursive: true });
      await writeFile(path.join(folder, "branches.json"), `${JSON.stringify(report, null, 1)}\n`);
    },
  }),
});

export const branchCoverage = { id: "branch-coverage", hookHandlers: { solidity, test } };
