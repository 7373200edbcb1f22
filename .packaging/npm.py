"""The npm packages in dist from what is staged: `stigmer`, which depends on one
package for each platform, of which npm installs the one that fits, and the one
for TARGET, which holds the binary. Nothing runs or downloads at install.

Usage: npm.py TARGET
"""

import gzip
import io
import json
import os
import pathlib
import sys
import tarfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
# As Node.js says it: process.platform, process.arch.
PLATFORMS = {
    "x86_64-unknown-linux-musl": ("linux", "x64"),
    "aarch64-unknown-linux-musl": ("linux", "arm64"),
    "x86_64-apple-darwin": ("darwin", "x64"),
    "aarch64-apple-darwin": ("darwin", "arm64"),
}


def manifest(name: str, description: str, **more: object) -> bytes:
    repository = os.environ.get("REPOSITORY")
    fields = {"name": name, "version": os.environ["VERSION"], "description": description, "license": "Apache-2.0"}
    if repository:
        fields["repository"] = {"type": "git", "url": f"git+{repository}.git"}
    return (json.dumps(fields | more, indent=2) + "\n").encode()


def pack(name: str, files: dict[str, tuple[bytes, int]]) -> None:
    """As `npm pack` does it, but the same bytes each time."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path, (content, mode) in files.items():
            entry = tarfile.TarInfo(f"package/{path}")
            entry.size, entry.mode, entry.mtime = len(content), mode, int(os.environ["SOURCE_DATE_EPOCH"])
            tar.addfile(entry, io.BytesIO(content))
    path = ROOT / f"dist/{name}-{os.environ['VERSION']}.tgz"
    path.write_bytes(gzip.compress(archive.getvalue(), 9, mtime=0))


def main(target: str) -> None:
    stage = ROOT / "target/stage" / target
    staged = {name: ((stage / name).read_bytes(), 0o644) for name in ("README.md", "LICENSE", "THIRD-PARTY-NOTICES")}
    names = {key: f"stigmer-{os}-{cpu}" for key, (os, cpu) in PLATFORMS.items()}
    launcher = manifest(
        "stigmer", "A running Temporal on a machine that has nothing", keywords=["temporal", "development", "cli"],
        bin={"stigmer": "stigmer.js"}, engines={"node": ">=16"},
        optionalDependencies={name: os.environ["VERSION"] for name in names.values()})
    pack("stigmer", {"package.json": (launcher, 0o644), "stigmer.js": ((ROOT / ".packaging/npm.js").read_bytes(), 0o755),
                     "README.md": staged["README.md"], "LICENSE": staged["LICENSE"]})
    system, cpu = PLATFORMS[target]
    platform = manifest(names[target], f"The binary of stigmer for {system} on {cpu}", os=[system], cpu=[cpu],
                        preferUnplugged=True)
    pack(names[target], {"package.json": (platform, 0o644), "bin/stigmer": ((stage / "stigmer").read_bytes(), 0o755),
                         "LICENSE": staged["LICENSE"], "THIRD-PARTY-NOTICES": staged["THIRD-PARTY-NOTICES"]})


if __name__ == "__main__":
    main(sys.argv[1])
