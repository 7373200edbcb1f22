#!/usr/bin/env python3
"""Measures stigmer beside what else people use, and writes target/bench.md.

    python3 tests/bench/bench.py [--rounds N] [--build]        (or: make bench)

Everything is measured on this machine in one run, with the same Temporal, the
same loopback server and the same probe; the candidates take turns within each
round, so that a slow moment of the machine affects them all. Figures are
medians. What is not installed (runsv, supervisord, curl) is reported as not
measured. STIGMER names the binary; the default is target/release/stigmer.
"""

import argparse
import json
import os
import platform
import re
import select
import shutil
import signal
import socket
import socketserver
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target").absolute()
VERSION = (ROOT / "src/pinned.txt").read_text().split()[1]
LIMIT_SECONDS = 60
# stigmer restarts at once what has served for 10 s; the others get as long.
STABLE_SECONDS = 10.5
PROBE_INTERVAL_SECONDS = 0.001
# Between SERVING and a stop: a server that has just begun has more to take down.
SETTLE_SECONDS = 0.5
LOAD_COUNT = 300
LOAD_IN_FLIGHT = 40
EPHEMERAL_ROUNDS = 10
SERVICE = b"temporal.api.workflowservice.v1.WorkflowService"


def main():
    if sys.argv[1:2] == ["--serve"]:
        return serve_files(sys.argv[2])
    parser = argparse.ArgumentParser(description="Measure stigmer beside its alternatives.")
    parser.add_argument("--rounds", type=int, default=7, help="of each measurement (default: 7)")
    parser.add_argument("--build", action="store_true", help="also time cold builds (minutes)")
    parser.add_argument("--only", choices=["install", "start", "load", "ephemeral", "commands", "supervision"], help="measure this alone")
    options = parser.parse_args()
    binary = Path(os.environ.get("STIGMER") or TARGET / "release/stigmer").absolute()
    if not binary.exists():
        sys.exit(f"error: {binary} is missing\nhint: build it with 'cargo build --release', or set STIGMER")
    TARGET.mkdir(exist_ok=True)
    script("mirror.py", TARGET / "mirror")
    script("sdk.py", TARGET / "python")
    with tempfile.TemporaryDirectory(dir=TARGET, prefix="bench-") as scratch:
        bench = Bench(binary, Path(scratch), options.rounds)
        try:
            parts = {"install": bench.install, "start": bench.start_and_stop}
            parts |= {"load": bench.load, "ephemeral": bench.ephemeral}
            parts |= {"commands": bench.commands, "supervision": bench.supervision}
            for name, measure in parts.items():
                if options.only in (None, name):
                    measure()
            bench.binary_size()
            if options.build:
                bench.build()
        finally:
            bench.end_processes()
    report = bench.report()
    (TARGET / "bench.md").write_text(report)
    # Every single figure, for those who want to see the spread.
    (TARGET / "bench.json").write_text(json.dumps(bench.figures, indent=1))
    print(report)
    say(f"written to {TARGET / 'bench.md'}")


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def script(name, *arguments):
    command = [sys.executable, "-B", str(ROOT / "tests/real" / name), *map(str, arguments)]
    if subprocess.run(command, stdin=subprocess.DEVNULL).returncode != 0:
        sys.exit(1)


class Bench:
    def __init__(self, binary, scratch, rounds):
        self.binary = binary
        self.scratch = scratch
        self.rounds = rounds
        self.processes = []
        self.rows = []
        self.busyness = os.getloadavg()[0]
        self.figures = {}
        self.archive = self.find_archive()
        self.temporal = scratch / "temporal"
        with open(self.temporal, "wb") as file:
            subprocess.run(["tar", "xzOf", self.archive, "temporal"], stdout=file, check=True)
        self.temporal.chmod(0o755)

    def find_archive(self):
        machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
        name = f"temporal_cli_{VERSION}_{platform.system().lower()}_{machine}.tar.gz"
        return TARGET / "mirror" / f"v{VERSION}" / name

    # Measurements

    def install(self):
        """Until the verified executable stands under its name, against curl | tar, which verifies nothing."""
        rounds = self.rounds
        server = self.spawn([sys.executable, "-B", __file__, "--serve", TARGET / "mirror"], stdout=subprocess.PIPE)
        base = f"http://127.0.0.1:{int(server.stdout.readline())}"
        url = f"{base}/v{VERSION}/{self.archive.name}"
        content = self.temporal.read_bytes()
        times = {name: [] for name in ["stigmer", "curl", "synced", "transfer", "write"]}
        peaks = []
        for number in range(rounds):
            say(f"install, round {number + 1} of {rounds}")
            took, peak = self.install_with_stigmer(base)
            times["stigmer"].append(took)
            peaks.append(peak)
            if shutil.which("curl"):
                pipe = 'curl -sL "$0" | tar xz -C "$1"'
                times["curl"].append(self.timed_in_empty_directory(["sh", "-c", pipe, url]))
                pipe += ' && sync "$1/temporal"'
                times["synced"].append(self.timed_in_empty_directory(["sh", "-c", pipe, url]))
                times["transfer"].append(self.timed(["curl", "-sL", "-o", "/dev/null", url]))
            times["write"].append(self.write_synced(content))
        self.end(server)
        took = self.medians("install", times)
        floor = f"writing and syncing the executable's {len(content) / 1e6:.0f} MB: {seconds(took['write'])}"
        if "curl" in took:
            floor += f"; the transfer alone: {seconds(took['transfer'])}"
            other = f"`curl \\| tar xz` {seconds(took['curl'])}, then `sync` {seconds(took['synced'])}"
            ratio = f"{took['stigmer'] / took['curl']:.2f} (synced: {took['stigmer'] / took['synced']:.2f})"
        else:
            other, ratio = "curl: not measured, not installed", ""
        self.row("install from loopback, verified and synced", seconds(took["stigmer"]), other, ratio, "<= 0.60", floor)
        self.row("peak RSS of an install", megabytes(max(peaks)), "", "", "< 12 MB", "")

    def install_with_stigmer(self, base):
        home = self.new_directory("home")
        os.sync()
        began = time.perf_counter()
        options = ["--mirror", base, "--port", free_port(), "--ui-port", free_port()]
        process = self.spawn([self.binary, "local", "start", *options], stdout=subprocess.PIPE, home=home)
        for line in process.stdout:
            if b"binary installed" in line:
                took = time.perf_counter() - began
                peak = status_field(process.pid, "VmHWM")
                break
        else:
            sys.exit(f"error: stigmer installed nothing: {process.stderr_path.read_text()}")
        self.end(process)
        shutil.rmtree(home)
        return took, peak

    def timed_in_empty_directory(self, command):
        directory = self.new_directory("unpacked")
        os.sync()
        took = self.timed([*command, str(directory)])
        shutil.rmtree(directory)
        return took

    def write_synced(self, content):
        path = self.scratch / "written"
        os.sync()
        began = time.perf_counter()
        with open(path, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        took = time.perf_counter() - began
        path.unlink()
        return took

    def start_and_stop(self):
        """From spawn to SERVING and from the wish to stop to the end, on a database that exists."""
        bare_home, home, sdk_home = (self.new_home(name) for name in ["bare", "stigmer", "sdk"])
        steps = [
            lambda: self.bare_session(bare_home / "temporal.db", "bare", "bare stop"),
            lambda: self.stigmer_session(home),
            lambda: {"sdk": self.sdk_start(sdk_home / "temporal.db")},
            lambda: self.bare_session(bare_home / "temporal.db", "bare short", "bare short stop", settle=0),
            lambda: {"run": self.timed([self.binary, "local", "run", "--", "true"], home=home, ports=True)},
            lambda: self.bare_session(self.new_directory("new") / "temporal.db", "bare new", "bare new stop"),
            lambda: self.new_database_session(),
        ]
        times = {}
        for number in range(-1, self.rounds):
            # The first round makes the databases and warms the disk's cache.
            say(f"start and stop, round {number + 1} of {self.rounds}" if number >= 0 else "making the databases")
            # Each goes first in turn, for what ran before leaves its mark.
            turn = max(number, 0) % len(steps)
            for step in steps[turn:] + steps[:turn]:
                for name, value in step().items():
                    if number >= 0:
                        times.setdefault(name, []).append(value)
        took = self.medians("start", times)
        bare = f"bare `temporal server start-dev` {seconds(took['bare'])}"

        def row(what, name, other, than, budget, floor):
            self.row(what, seconds(took[name]), other, f"{took[name] / took[than]:.2f}", budget, floor)

        row("start until SERVING", "serving", bare, "bare", "<= 1.03", "bare Temporal")
        row("start until `Ready` is printed", "ready", bare, "bare", "<= 1.03", "bare Temporal")
        sdk = f"Python SDK's `start_local` {seconds(took['sdk'])}"
        row("the same against the SDK", "ready", sdk, "sdk", "< 1", "bare Temporal")
        # Both are stigmer's own, and so small that a busy machine does not hide them.
        self.row("of this, until Temporal is spawned", milliseconds(took["spawned"]), "", "", "", "spawning `true`")
        self.row("of this, `Ready` after SERVING", milliseconds(took["ready lag"]), "", "", "", "0")
        new = f"bare {seconds(took['bare new'])}"
        row("start until SERVING, new database", "new", new, "bare new", "", "bare Temporal")
        row("start until `Ready` is printed, new database", "new ready", new, "bare new", "<= 0.80", "bare Temporal")
        stop = f"bare, SIGTERM to exit {seconds(took['bare stop'])}"
        row("`stop`", "stop", stop, "bare stop", "", "Temporal's own stop, which varies by 0.4 s")
        lag = milliseconds(took["stop lag"])
        self.row("`stop` returns after Temporal's exit", lag, "", "", "< 50 ms", "0")
        bare = took["bare short"] + took["bare short stop"]
        budget = f"overhead < 60 ms; here {milliseconds(took['run'] - bare)}"
        other = f"bare start and stop {seconds(bare)}"
        self.row("`run -- true`", seconds(took["run"]), other, f"{took['run'] / bare:.2f}", budget, "bare Temporal")

    def ephemeral(self):
        """A Temporal in memory from nothing to nothing, as each test run has it; `true` is the test."""
        home = self.new_home("ephemeral")
        steps = [
            ("stigmer", lambda: self.timed([self.binary, "local", "run", "--ephemeral", "--", "true"], home=home)),
            ("sdk", lambda: self.sdk_session()[1]),
        ]
        times = {}
        # The first round reads the executable into memory.
        for number in range(-1, EPHEMERAL_ROUNDS):
            for name, measure in steps if number % 2 else reversed(steps):
                value = measure()
                if number >= 0:
                    times.setdefault(name, []).append(value)
        took = self.medians("ephemeral", times)
        other = f"Python SDK's `start_local`, enter and exit {seconds(took['sdk'])}"
        ratio = f"{took['stigmer'] / took['sdk']:.2f}"
        self.row("`run --ephemeral -- true`", seconds(took["stigmer"]), other, ratio, "<= 1.05", "Temporal's own start")

    def bare_session(self, database, start_name, stop_name, settle=SETTLE_SECONDS):
        port, ui_port = free_port(), free_port()
        began = time.perf_counter()
        process = self.spawn(self.server_command(self.temporal, port, ui_port, database))
        figures = {start_name: wait_until_serving(int(port), process) - began}
        time.sleep(settle)
        began = time.perf_counter()
        process.terminate()
        process.wait(LIMIT_SECONDS)
        figures[stop_name] = time.perf_counter() - began
        self.processes.remove(process)
        return figures

    def stigmer_session(self, home):
        port, ui_port = free_port(), free_port()
        began = time.perf_counter()
        command = [self.binary, "local", "start", "--port", port, "--ui-port", ui_port]
        process = self.spawn(command, home=home, stdout=subprocess.PIPE)
        lines = LineTimes(process.stdout, [b"Daemon Ready."])
        spawn = ChildTime(process.pid)
        serving = wait_until_serving(int(port), process)
        (ready,), spawned = lines.wait(), spawn.wait()
        figures = {"spawned": spawned - began, "serving": serving - began, "ready": ready - began}
        figures["ready lag"] = ready - serving
        time.sleep(SETTLE_SECONDS)
        gone = ExitTime(self.temporal_pid(home))
        began = time.perf_counter()
        self.timed([self.binary, "local", "stop"], home=home)
        ended = time.perf_counter()
        figures |= {"stop": ended - began, "stop lag": ended - gone.wait()}
        process.wait(LIMIT_SECONDS)
        self.processes.remove(process)
        return figures

    def new_database_session(self):
        figures = self.stigmer_session(self.new_home("new"))
        return {"new": figures["serving"], "new ready": figures["ready"]}

    def sdk_start(self, database):
        return self.sdk_session(database)[0]

    def sdk_session(self, database=None):
        """Seconds until it serves, and until it is gone."""
        program = """
import asyncio, os, sys, time
from temporalio.testing import WorkflowEnvironment
async def main():
    began = time.perf_counter()
    environment = await WorkflowEnvironment.start_local(
        dev_server_existing_path=sys.argv[1], dev_server_database_filename=sys.argv[2] or None)
    print(time.perf_counter() - began, flush=True)
    await environment.shutdown()
    print(time.perf_counter() - began, flush=True)
    os._exit(0)
asyncio.run(main())
"""
        python = TARGET / "python/bin/python"
        command = [python, "-B", "-c", program, self.temporal, database or ""]
        done = subprocess.run([*map(str, command)], env=self.environment(), capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"error: the SDK's start_local failed:\n{done.stderr}")
        return [float(line) for line in done.stdout.split()]

    def load(self):
        """Small workflows, many at a time, and single starts, each round on new databases."""
        candidates = {
            "stigmer": lambda: self.start_stigmer(self.new_home("load")),
            "bare": lambda: self.start_bare(self.new_directory("load") / "temporal.db"),
            "in memory": lambda: self.start_bare(None),
        }
        throughput = {name: [] for name in candidates}
        starts = {name: [] for name in candidates}
        names = list(candidates)
        for number in range(self.rounds):
            say(f"load, round {number + 1} of {self.rounds}")
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                process, ports = candidates[name]()
                told = self.run_load(ports[1])
                self.end(process)
                throughput[name].append(told["per_second"])
                starts[name].append(statistics.median(told["starts"]))
        self.figures["load"] = {"per second": throughput, "start_workflow": starts}
        for than, budget in [("bare", ">= 2.0"), ("in memory", ">= 0.8")]:
            many, one = throughput, starts
            what = f"{LOAD_COUNT} small workflows, {LOAD_IN_FLIGHT} in flight"
            rate = [f"{statistics.median(many[name]):.1f} a second" for name in ["stigmer", than]]
            self.row(what, rate[0], f"{than} {rate[1]}", spread(many["stigmer"], many[than]), budget, "")
            took = [milliseconds(statistics.median(one[name])) for name in ["stigmer", than]]
            self.row("one `start_workflow`", took[0], f"{than} {took[1]}", spread(one["stigmer"], one[than]), "", "")

    def run_load(self, port):
        command = [TARGET / "python/bin/python", "-B", ROOT / "tests/bench/load.py", LOAD_COUNT, LOAD_IN_FLIGHT]
        environment = self.environment() | {"TEMPORAL_ADDRESS": f"127.0.0.1:{port}"}
        done = subprocess.run([*map(str, command)], env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"error: the load failed:\n{done.stderr}")
        return json.loads(done.stdout)

    def start_bare(self, database):
        ports = ["--port", free_port()]
        process = self.spawn(self.server_command(self.temporal, ports[1], free_port(), database))
        wait_until_serving(int(ports[1]), process)
        return process, ports

    def commands(self):
        """What is typed while it runs."""
        home = self.new_home("commands")
        daemon, ports = self.start_stigmer(home)
        times = {"start": [], "status": [], "true": []}
        for _ in range(3 * self.rounds):
            times["start"].append(self.timed([self.binary, "local", "start", *ports], home=home))
            times["status"].append(self.timed([self.binary, "local", "status"], home=home))
            times["true"].append(self.timed(["true"]))
        self.end(daemon)
        took = self.medians("commands", times)
        floor = f"spawning `true`: {milliseconds(took['true'])}"
        self.row("second `start` while running", milliseconds(took["start"]), "", "", "< 20 ms", floor)
        self.row("`status`", milliseconds(took["status"]), "", "", "", floor)

    def supervision(self):
        """Idle cost, and from `kill -9` to SERVING, of all supervisors at once on one machine."""
        supervisors = [self.under_stigmer(), self.under_runsv(), self.under_supervisord()]
        supervisors = {supervised.name: supervised for supervised in supervisors if supervised}
        idle = self.idle_figures(supervisors)
        times = {name: [] for name in supervisors}
        for number in range(self.rounds):
            say(f"crash, round {number + 1} of {self.rounds}: {STABLE_SECONDS} s of serving before each")
            time.sleep(STABLE_SECONDS)
            for name, supervised in supervisors.items():
                times[name].append(supervised.crash())
        for supervised in supervisors.values():
            supervised.stop()
        took = self.medians("crash", times)
        for name in ["runsv", "supervisord"]:
            budget = "<= 1.10" if name == "runsv" else "< 1"
            mine = seconds(took["stigmer"])
            if name in took:
                ratio = f"{took['stigmer'] / took[name]:.2f}"
                self.row("`kill -9` to SERVING", mine, f"{name} {seconds(took[name])}", ratio, budget, "bare start")
            else:
                self.row("`kill -9` to SERVING", mine, f"{name}: not measured, not installed", "", budget, "bare start")
        others = [name for name in idle if name != "stigmer"]

        def row(what, field, show, budget):
            other = ", ".join(f"{name} {show(idle[name][field])}" for name in others)
            self.row(what, show(idle["stigmer"][field]), other, "", budget, "")

        row("idle RSS", "rss", megabytes, "< 1.5 MB static, < 3 MB dynamic")
        row("idle PSS", "pss", megabytes, "")
        row("voluntary context switches in 10 s", "switches", str, "those of one health check")
        row("seconds of 10 in which it woke", "woke", str, "1 (one health check)")

    def idle_figures(self, supervisors):
        """Once a second for ten seconds: does it wake at all?"""
        say("idle for 10 s")
        time.sleep(1)
        counts = {name: [context_switches(supervised.pid)] for name, supervised in supervisors.items()}
        for _ in range(10):
            time.sleep(1)
            for name, supervised in supervisors.items():
                counts[name].append(context_switches(supervised.pid))
        figures = {}
        for name, supervised in supervisors.items():
            seen = counts[name]
            figures[name] = {
                "rss": status_field(supervised.pid, "VmRSS"),
                "pss": pss(supervised.pid),
                "switches": seen[-1] - seen[0],
                "woke": sum(later > earlier for earlier, later in zip(seen, seen[1:])),
            }
        return figures

    def under_stigmer(self):
        home = self.new_home("supervised")
        process, ports = self.start_stigmer(home)
        return Supervised(self, "stigmer", process, int(ports[1]), lambda: self.temporal_pid(home))

    def under_runsv(self):
        if not shutil.which("runsv"):
            return None
        service = self.new_directory("service")
        port = free_port()
        server = self.server_command(self.temporal, port, free_port(), service / "temporal.db")
        run = service / "run"
        run.write_text(f"#!/bin/sh\nexec {' '.join(map(str, server))} >>{service}/log 2>&1\n")
        run.chmod(0o755)
        process = self.spawn(["runsv", service])
        wait_until_serving(int(port), process)
        return Supervised(self, "runsv", process, int(port), lambda: child_of(process.pid))

    def under_supervisord(self):
        if not shutil.which("supervisord"):
            return None
        directory = self.new_directory("supervisord")
        port = free_port()
        server = self.server_command(self.temporal, port, free_port(), directory / "temporal.db")
        configuration = directory / "supervisord.conf"
        configuration.write_text(
            f"[supervisord]\nnodaemon=true\nlogfile={directory}/supervisord.log\npidfile={directory}/pid\n"
            f"[program:temporal]\ncommand={' '.join(map(str, server))}\nautorestart=true\n"
            f"stdout_logfile={directory}/log\nredirect_stderr=true\n"
        )
        process = self.spawn(["supervisord", "-c", configuration])
        wait_until_serving(int(port), process)
        return Supervised(self, "supervisord", process, int(port), lambda: child_of(process.pid))

    def binary_size(self):
        static = "static" if b"statically linked" in output_of(["file", "-L", str(self.binary)]) else "dynamic"
        size = self.binary.stat().st_size
        self.row(f"binary size ({static})", f"{size:,} bytes", "", "", "<= 1,600,000 static", "")

    def build(self):
        """Cold release builds: ours, and our dependencies under an empty main."""
        empty = self.new_directory("empty")
        subprocess.run([ROOT / ".ci/empty-main", empty], check=True)
        times = {"ours": [], "empty": []}
        for number in range(2):
            say(f"cold build, round {number + 1} of 2")
            for name, directory in [("ours", ROOT), ("empty", empty)]:
                target = self.new_directory("build")
                command = ["cargo", "build", "--release", "--quiet", "--locked", "--target-dir", target]
                times[name].append(self.timed([*command, "--manifest-path", directory / "Cargo.toml"], clean=False))
                shutil.rmtree(target)
        took = self.medians("build", times)
        other = f"the same dependencies, empty `main`: {seconds(took['empty'])}"
        ratio = f"{took['ours'] / took['empty']:.2f}"
        self.row("cold release build", seconds(took["ours"]), other, ratio, "<= 1.25", "the dependencies")

    # Processes

    def start_stigmer(self, home):
        """A ready daemon in the foreground, and the options that name its ports."""
        ports = ["--port", free_port(), "--ui-port", free_port()]
        process = self.spawn([self.binary, "local", "start", *ports], home=home)
        wait_until_serving(int(ports[1]), process)
        # SERVING is seen here a moment before it is written there.
        wait_for(lambda: self.status(home)["ready"])
        return process, ports

    def server_command(self, executable, port, ui_port, database):
        """In memory where there is no database."""
        options = ["--ip", "127.0.0.1", "--port", port, "--ui-port", ui_port]
        options += ["--db-filename", database] if database else []
        return [executable, "server", "start-dev", *options]

    def environment(self, home=None, ports=False):
        unwanted = re.compile(r"STIGMER|TEMPORAL_|(https?|all|no)_proxy$", re.IGNORECASE)
        environment = {name: value for name, value in os.environ.items() if not unwanted.match(name)}
        if home:
            # Its own cache, or only the first of them would download.
            environment |= {"STIGMER_HOME": str(home), "STIGMER_CACHE": str(home / "cache")}
        if ports:
            environment |= {"STIGMER_TEMPORAL_PORT": free_port(), "STIGMER_TEMPORAL_UI_PORT": free_port()}
        return environment

    def spawn(self, command, home=None, stdout=subprocess.DEVNULL):
        errors = self.scratch / f"stderr-{time.monotonic_ns()}"
        with open(errors, "wb") as stderr:
            process = subprocess.Popen(
                [str(word) for word in command],
                env=self.environment(home),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
            )
        process.stderr_path = errors
        self.processes.append(process)
        return process

    def timed(self, command, home=None, ports=False, clean=True):
        """Runs the command to its end, which must be a success."""
        command = [str(word) for word in command]
        environment = self.environment(home, ports) if clean else None
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        began = time.perf_counter()
        code = subprocess.Popen(command, env=environment, **streams).wait()
        took = time.perf_counter() - began
        if code != 0:
            sys.exit(f"error: {' '.join(command)} ended with {code}")
        return took

    def end(self, process):
        process.terminate()
        process.wait(LIMIT_SECONDS)
        # Not before: who still reads it in another thread must see its end first.
        if process.stdout:
            process.stdout.close()
        self.processes.remove(process)

    def end_processes(self):
        for process in list(self.processes):
            self.end(process)

    def status(self, home):
        return json.loads(output_of([str(self.binary), "local", "status", "--json"], self.environment(home)))

    def temporal_pid(self, home):
        return self.status(home)["temporal_pid"]

    def new_directory(self, name):
        return Path(tempfile.mkdtemp(dir=self.scratch, prefix=f"{name}-"))

    def new_home(self, name):
        """A home that has Temporal, put there as a user would."""
        home = self.new_directory(name)
        home.chmod(0o700)
        (home / "bin").mkdir()
        os.link(self.temporal, home / "bin/temporal")
        return home

    # The report

    def medians(self, part, times):
        """Of what was measured; keeps the single figures too."""
        self.figures[part] = times
        return {name: statistics.median(values) for name, values in times.items() if values}

    def row(self, *cells):
        self.rows.append(cells)

    def report(self):
        head = ["what", "stigmer", "beside it", "ratio", "budget", "floor"]
        lines = [head, ["---"] * len(head), *self.rows]
        table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        # One of two cores taken by others is enough to double a start.
        busy = " (**busy: the ratios say little**)" if self.busyness > 0.5 else ""
        version = output_of([str(self.binary), "--version"]).decode().strip()
        return (
            f"# {version} beside its alternatives\n\n"
            f"{platform.system()} {platform.release()}, {platform.machine()}, {os.cpu_count()} cores; "
            f"Temporal CLI {VERSION}; medians of {self.rounds} rounds, the candidates taking turns in each. "
            f"Load of the machine before: {self.busyness:.1f}{busy}.\n\n"
            f"{table}\n"
        )


class Supervised:
    """A Temporal that something keeps running."""

    def __init__(self, bench, name, process, port, server_pid):
        self.bench = bench
        self.name = name
        self.process = process
        self.pid = process.pid
        self.port = port
        self.server_pid = server_pid

    def crash(self):
        """Kills the server; gives the time until another one serves."""
        pid = self.server_pid()
        gone = os.pidfd_open(pid)
        began = time.perf_counter()
        os.kill(pid, signal.SIGKILL)
        # A dying server answers no more from here on.
        select.select([gone], [], [], LIMIT_SECONDS)
        os.close(gone)
        return wait_until_serving(self.port, self.process) - began

    def stop(self):
        self.bench.end(self.process)


class ExitTime:
    """When a process that is no child of ours ended."""

    def __init__(self, pid):
        self.pidfd = os.pidfd_open(pid)
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()

    def watch(self):
        select.select([self.pidfd], [], [], LIMIT_SECONDS)
        self.time = time.perf_counter()
        os.close(self.pidfd)

    def wait(self):
        self.thread.join()
        return self.time


class ChildTime:
    """When a process began to have a child."""

    def __init__(self, pid):
        self.children = Path(f"/proc/{pid}/task/{pid}/children")
        self.time = time.perf_counter()
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()

    def watch(self):
        deadline = time.perf_counter() + LIMIT_SECONDS
        while not self.children.read_text() and time.perf_counter() < deadline:
            time.sleep(PROBE_INTERVAL_SECONDS / 4)
        self.time = time.perf_counter()

    def wait(self):
        self.thread.join()
        return self.time


class LineTimes:
    """When lines with these texts came, one after the other."""

    def __init__(self, stream, texts):
        self.times = []
        self.missing = list(texts)
        self.thread = threading.Thread(target=self.read, args=(stream,), daemon=True)
        self.thread.start()

    def read(self, stream):
        for line in stream:
            if self.missing[0] in line:
                self.times.append(time.perf_counter())
                del self.missing[0]
            if not self.missing:
                return

    def wait(self):
        self.thread.join(LIMIT_SECONDS)
        if self.missing:
            why = f"none came in {LIMIT_SECONDS} s" if self.thread.is_alive() else "the process ended without it"
            sys.exit(f"error: no line '{self.missing[0].decode()}': {why}")
        return self.times


# The probe


def health_request():
    """The gRPC health check as one fixed request over cleartext HTTP/2."""

    def frame(kind, flags, stream, payload):
        return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + struct.pack(">I", stream) + payload

    fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/grpc.health.v1.Health/Check")]
    fields += [(b":authority", b"localhost"), (b"content-type", b"application/grpc"), (b"te", b"trailers")]
    headers = b"".join(b"\0" + bytes([len(n)]) + n + bytes([len(v)]) + v for n, v in fields)
    message = bytes([0x0A, len(SERVICE)]) + SERVICE
    data = b"\0" + struct.pack(">I", len(message)) + message
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"") + frame(1, 4, 1, headers) + frame(0, 1, 1, data)


REQUEST = health_request()
SERVING = bytes.fromhex("0000000002") + bytes.fromhex("0801")
NOT_SERVING = bytes.fromhex("0000000002") + bytes.fromhex("0802")


def is_serving(port):
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(REQUEST)
            received = b""
            while chunk := connection.recv(4096):
                received += chunk
                if SERVING in received:
                    return True
                if NOT_SERVING in received:
                    return False
    except OSError:
        pass
    return False


def wait_until_serving(port, process):
    """Asks every millisecond; gives the time of the first good answer."""
    deadline = time.perf_counter() + LIMIT_SECONDS
    while not is_serving(port):
        if process.poll() is not None:
            sys.exit(f"error: {process.args[0]} ended with {process.returncode}:\n{process.stderr_path.read_text()}")
        if time.perf_counter() > deadline:
            sys.exit(f"error: nothing serves on port {port} after {LIMIT_SECONDS} s")
        time.sleep(PROBE_INTERVAL_SECONDS)
    return time.perf_counter()


def wait_for(condition):
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"error: gave up waiting after {LIMIT_SECONDS} s")
        time.sleep(0.01)


# The file server: `sendfile` alone, so that it is not what is measured


class FileHandler(socketserver.StreamRequestHandler):
    def handle(self):
        while line := self.rfile.readline():
            path = line.split()[1].decode()
            while self.rfile.readline().strip():
                pass
            try:
                file = open(FileHandler.root / path.lstrip("/"), "rb")
            except OSError:
                self.wfile.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                continue
            with file:
                size = os.fstat(file.fileno()).st_size
                self.wfile.write(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
                self.connection.sendfile(file)


def serve_files(root):
    FileHandler.root = Path(root)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), FileHandler) as server:
        server.daemon_threads = True
        # A client that goes away early is no news.
        server.handle_error = lambda *_: None
        print(server.server_address[1], flush=True)
        server.serve_forever()


# Small questions to the system


def free_port():
    """As text, for a command line. Not given twice in one run."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if port not in free_port.given:
            free_port.given.add(port)
            return str(port)


free_port.given = set()


def output_of(command, environment=None):
    try:
        return subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True).stdout
    except FileNotFoundError:
        return b""


def status_field(pid, name):
    """In bytes."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)[1]) * 1024


def pss(pid):
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)[1]) * 1024


def context_switches(pid):
    """The voluntary ones of all its threads: how often it went to sleep anew."""
    files = Path(f"/proc/{pid}/task").glob("*/status")
    counts = (re.search(r"^voluntary_ctxt_switches:\s+(\d+)", file.read_text(), re.MULTILINE)[1] for file in files)
    return sum(map(int, counts))


def child_of(pid):
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    if len(children) != 1:
        sys.exit(f"error: process {pid} was expected to have one child, and has {children}")
    return int(children[0])


def seconds(value):
    return f"{value:.3f} s" if value < 10 else f"{value:.1f} s"


def spread(ours, theirs):
    """The ratio of each round, so that a slow moment of the machine hits both sides."""
    ratios = sorted(mine / other for mine, other in zip(ours, theirs))
    return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"


def milliseconds(value):
    return f"{value * 1000:.1f} ms"


def megabytes(value):
    return f"{value / 1e6:.2f} MB"


if __name__ == "__main__":
    main()
