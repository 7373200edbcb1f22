#!/usr/bin/env node
// Runs the stigmer of this platform's package in place of itself, as far as
// Node.js can: same streams, same signals, same end.
"use strict";

const { spawn } = require("node:child_process");
const { constants } = require("node:os");
const { isatty } = require("node:tty");

const name = `stigmer-${process.platform}-${process.arch}`;
let binary;
try {
  binary = require.resolve(`${name}/bin/stigmer`);
} catch {
  console.error(`error: cannot run stigmer: the package ${name} is not installed`);
  console.error("hint: install with optional dependencies; there is one for Linux and macOS, on x64 and arm64");
  process.exit(1);
}

const child = spawn(binary, process.argv.slice(2), { stdio: "inherit" });
child.on("error", (cause) => {
  console.error(`error: cannot run ${binary}: ${cause.message}`);
  process.exit(1);
});
for (const signal of ["SIGTERM", "SIGHUP", "SIGINT"]) {
  process.on(signal, () => {
    // A terminal's Ctrl-C reaches the child by itself; two of them would kill.
    if (signal !== "SIGINT" || ![0, 1, 2].some(isatty)) child.kill(signal);
  });
}
child.on("exit", (code, signal) => {
  process.exit(signal ? 128 + constants.signals[signal] : code);
});
