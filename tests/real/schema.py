#!/usr/bin/env python3
"""Prints the schema of the database that a Temporal CLI makes.

    python3 tests/real/schema.py EXECUTABLE
"""

import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

LIMIT_SECONDS = 60


class Failure(Exception):
    """What failed and why, in words for the user."""


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        print(schema(Path(sys.argv[1])))
    except (Failure, OSError) as error:
        sys.exit(f"error: {error}")


def schema(executable):
    """All tables, indexes and triggers, each as a line of text."""
    with tempfile.TemporaryDirectory() as directory:
        database = Path(directory) / "temporal.db"
        port = free_port()
        options = ["--headless", "--ip", "127.0.0.1", "--port", str(port), "--db-filename", database]
        with open(Path(directory) / "log", "w+") as log:
            server = subprocess.Popen([executable, "server", "start-dev", *options], stdout=log, stderr=log)
            try:
                wait_until_listening(server, port, log)
            finally:
                server.kill()
                server.wait()
        with closing(sqlite3.connect(database)) as connection:
            rows = connection.execute(
                "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE substr(name, 1, 7) <> 'sqlite_' ORDER BY 1, 2"
            )
            return "\n".join(repr(row) for row in rows)


def free_port():
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_until_listening(server, port, log):
    deadline = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            log.seek(0)
            raise Failure(f"{server.args[0]} ended with {server.returncode}: {log.read().strip()}")
        with closing(socket.socket()) as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    raise Failure(f"{server.args[0]} does not listen after {LIMIT_SECONDS} s")


if __name__ == "__main__":
    main()
