#!/usr/bin/env python3
"""Makes a virtual environment with Temporal's Python SDK in it.

    python3 tests/real/sdk.py DIR

Its interpreter is DIR/bin/python. What is there and complete is kept, so a
second call does nothing; two at once make it once.
"""

import fcntl
import shutil
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements.txt")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    directory = Path(sys.argv[1])
    directory.parent.mkdir(parents=True, exist_ok=True)
    with open(directory.with_name(directory.name + ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = REQUIREMENTS.read_text()
        # Written last: a killed run leaves a directory without it.
        complete = directory / "complete"
        if complete.exists() and complete.read_text() == wanted:
            return
        print(f"sdk: installing {wanted.strip()} in {directory}", file=sys.stderr, flush=True)
        shutil.rmtree(directory, ignore_errors=True)
        # With the pip of outside: Debian has the one for inside in a package of its own.
        run([sys.executable, "-m", "venv", "--without-pip", str(directory)], "make a virtual environment")
        python = [str(directory / "bin/python"), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
        packages = run(python, "ask where packages go").strip()
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
        run([*pip, "--target", packages, "--requirement", str(REQUIREMENTS)], f"install {wanted.strip()}")
        complete.write_text(wanted)


def run(command, what):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"error: cannot {what}:\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
