#!/usr/bin/env python3
"""Two hours of trouble for one daemon, with work going on all the time.

    python3 tests/bench/endure.py [--minutes N]        (or: make endure)

A worker runs workflow after workflow, Temporal logs at its debug level, and
`status` and `logs` are asked every second. Meanwhile, by turns: Temporal is
killed, restarted, its port is taken for a while after a kill, and the disk is
full for a while. At the end every workflow that was acknowledged must have
completed, once, and the daemon must be the one that was started. What it holds
and how often it wakes is printed for the start and for the end.

With root the home is a small disk of its own, in memory; without, the disk is
never full. STIGMER names the binary; the default is target/release/stigmer.
"""

import argparse
import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from bench import ROOT, TARGET, context_switches, free_port, script, status_field

# Two hours of workflows are 1.7 GB.
DISK_BYTES = 4 << 30
TROUBLE_INTERVAL_SECONDS = 30
TAKEN_SECONDS = [0.1, 1, 5, 12]
FULL_SECONDS = [1, 5, 20]
# Of nothing but work and questions, for the figures.
CALM_SECONDS = 60
# A daemon waits no longer than 30 s for its next try.
RECOVERY_LIMIT_SECONDS = 45


def main():
    parser = argparse.ArgumentParser(description="Two hours of trouble for one daemon.")
    parser.add_argument("--minutes", type=float, default=120)
    options = parser.parse_args()
    binary = Path(os.environ.get("STIGMER") or TARGET / "release/stigmer").absolute()
    script("mirror.py", TARGET / "mirror")
    script("sdk.py", TARGET / "python")
    with tempfile.TemporaryDirectory(dir=TARGET, prefix="endure-") as directory, disk(directory) as is_disk:
        trial = Trial(binary, Path(directory), is_disk)
        try:
            trial.run(options.minutes * 60)
        finally:
            trial.end()


@contextlib.contextmanager
def disk(directory):
    """A small one at the directory; False where that takes a privilege we lack."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=700", "stigmer-endure", directory]
    if os.geteuid() != 0 or subprocess.run(mount, stderr=subprocess.DEVNULL).returncode != 0:
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", directory], check=True)


class Trial:
    def __init__(self, binary, directory, is_disk):
        self.binary = binary
        self.home = directory / "home"
        self.filler = directory / "filler" if is_disk else None
        self.port = free_port()
        names = ("PATH", "HOME", "LANG")
        self.environment = {name: os.environ[name] for name in names if name in os.environ}
        self.environment |= {"STIGMER_HOME": str(self.home), "STIGMER_TEMPORAL_MIRROR": str(TARGET / "mirror")}
        self.environment |= {"STIGMER_TEMPORAL_PORT": self.port, "STIGMER_TEMPORAL_UI_PORT": "0"}
        self.load = None
        self.questions = 0
        self.counts = {}

    def run(self, seconds):
        self.stigmer("start", "--detach", "--temporal-arg=--log-level=debug")
        self.daemon = self.status()["daemon_pid"]
        self.begin_load()
        deadline = time.monotonic() + seconds
        first = self.figures("at the start")
        asking = threading.Event()
        asker = threading.Thread(target=self.ask, args=(asking,))
        asker.start()
        try:
            self.trouble(deadline)
        finally:
            asking.set()
            asker.join()
        last = self.figures("at the end")
        completed = self.end_load()
        status = self.status()
        if status["daemon_pid"] != self.daemon or not status["ready"]:
            sys.exit(f"error: the daemon did not endure: {status}")
        logs = sorted((self.home / "logs").iterdir())
        print(f"{completed} workflows, all completed; {status['restarts']} restarts after failures")
        print(", ".join(f"{count} x {what}" for what, count in self.counts.items()))
        print(f"{self.questions} questions answered; logs: {', '.join(f'{log.name} {log.stat().st_size}' for log in logs)}")
        wal = (self.home / "data/temporal.db-wal").stat().st_size
        print(f"database {(self.home / 'data/temporal.db').stat().st_size} bytes, its -wal {wal}")
        if last["descriptors"] != first["descriptors"] or last["threads"] != first["threads"]:
            sys.exit("error: the daemon holds more than at the start")
        if rotated := [log for log in logs if log.stat().st_size > 64 << 20]:
            sys.exit(f"error: not bounded: {rotated}")
        self.stigmer("stop")

    def trouble(self, deadline):
        """Ends with a server that serves."""
        kinds = itertools.cycle([self.kill, self.restart, self.take_port, self.kill, self.fill_disk])
        taken, full = itertools.cycle(TAKEN_SECONDS), itertools.cycle(FULL_SECONDS)
        while time.monotonic() + TROUBLE_INTERVAL_SECONDS < deadline:
            time.sleep(TROUBLE_INTERVAL_SECONDS)
            kind = next(kinds)
            match kind:
                case self.take_port:
                    what = self.take_port(next(taken))
                case self.fill_disk:
                    what = self.fill_disk(next(full))
                case _:
                    what = kind()
            if what:
                self.counts[what] = self.counts.get(what, 0) + 1
            self.wait_until_ready()

    def kill(self):
        os.kill(self.temporal(), signal.SIGKILL)
        return "kill"

    def restart(self):
        self.stigmer("restart")
        return "restart"

    def take_port(self, seconds):
        """Taken before the next Temporal has it, or another one has to go."""
        while True:
            os.kill(self.daemon, signal.SIGSTOP)
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.temporal(), signal.SIGKILL)
            with socket.socket() as other:
                other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                taken = attempt(lambda: (other.bind(("127.0.0.1", int(self.port))), other.listen()))
                os.kill(self.daemon, signal.SIGCONT)
                if taken:
                    time.sleep(seconds)
                    return f"port taken for {seconds} s"

    def fill_disk(self, seconds):
        if not self.filler:
            return None
        # Without a buffer, which would want to be written when it is closed.
        with open(self.filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"\0" * 65536)
        time.sleep(seconds)
        self.filler.unlink()
        return f"disk full for {seconds} s"

    def temporal(self):
        return self.status()["temporal_pid"]

    def wait_until_ready(self):
        deadline = time.monotonic() + RECOVERY_LIMIT_SECONDS
        while not self.status()["ready"]:
            if time.monotonic() > deadline:
                sys.exit(f"error: not ready again after {RECOVERY_LIMIT_SECONDS} s: {self.status()}\n{self.daemon_log()}")
            time.sleep(0.05)

    def ask(self, ended):
        """What people and scripts ask all the time."""
        while not ended.wait(1):
            for command in ["status", "--json"], ["logs", "-n", "20"]:
                done = self.command(*command)
                if done.returncode not in (0, 1) or (command[0] == "logs" and done.returncode != 0):
                    print(f"error: {command} ended with {done.returncode}: {done.stderr}", file=sys.stderr)
                    os._exit(1)
                self.questions += 1

    def begin_load(self):
        command = [TARGET / "python/bin/python", "-B", ROOT / "tests/real/workflows.py", "stream"]
        environment = self.environment | {"TEMPORAL_ADDRESS": f"127.0.0.1:{self.port}"}
        self.load = subprocess.Popen(
            [*map(str, command)], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        if self.load.stdout.readline() != "streaming\n":
            sys.exit("error: the worker does not begin")

    def end_load(self):
        output, _ = self.load.communicate("")
        if self.load.returncode != 0:
            sys.exit(f"error: not all workflows completed: {output}")
        # The SDK's own lines come before.
        return json.loads(output.splitlines()[-1])["completed"]

    def figures(self, when):
        before = context_switches(self.daemon)
        time.sleep(CALM_SECONDS)
        figures = {
            "resident_bytes": status_field(self.daemon, "VmRSS"),
            "descriptors": len(os.listdir(f"/proc/{self.daemon}/fd")),
            "threads": len(os.listdir(f"/proc/{self.daemon}/task")),
            "wake_ups_a_minute": context_switches(self.daemon) - before,
        }
        print(f"{when}: {figures}", flush=True)
        return figures

    def status(self):
        return json.loads(self.command("status", "--json").stdout)

    def stigmer(self, *words):
        done = self.command(*words)
        if done.returncode != 0:
            sys.exit(f"error: stigmer local {' '.join(words)} ended with {done.returncode}:\n{done.stderr}")

    def command(self, *words):
        command = [str(self.binary), "local", *words]
        return subprocess.run(
            command, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
        )

    def daemon_log(self):
        return "\n".join((self.home / "logs/daemon.log").read_text().splitlines()[-20:])

    def end(self):
        if self.load and self.load.poll() is None:
            self.load.kill()
            self.load.wait()
        if self.filler:
            self.filler.unlink(missing_ok=True)
        self.command("stop", "--force")


def attempt(action):
    try:
        action()
        return True
    except OSError:
        return False


if __name__ == "__main__":
    main()
