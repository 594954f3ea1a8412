#!/usr/bin/env node
// The npm package's compiler as a program that forge accepts: it answers `--version` and `--standard-json`.
"use strict";
const fs = require("node:fs");
const solc = require("../node_modules/solc");

if (process.argv.includes("--version")) {
  process.stdout.write(`Version: ${solc.version().replace("Emscripten.clang", "Linux.g++")}\n`);
} else if (process.argv.includes("--standard-json")) {
  process.stdout.write(solc.compile(fs.readFileSync(0, "utf8")));
} else {
  process.stderr.write("tools/solc.cjs: only --version and --standard-json are understood\n");
  process.exit(2);
}
