"""dist/stigmer-VERSION-py3-none-PLATFORM.whl from what is staged: the binary as
a script of the environment, so that pip, uv and pipx put it on its PATH.

Usage: wheel.py TARGET
"""

import base64
import hashlib
import os
import pathlib
import sys
import time
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
# A static binary runs with any C library, so that every Linux tag is true; the
# oldest of each is what every installer takes.
PLATFORMS = {
    "x86_64-unknown-linux-musl": "manylinux_2_17_x86_64.manylinux2014_x86_64.musllinux_1_1_x86_64",
    "aarch64-unknown-linux-musl": "manylinux_2_17_aarch64.manylinux2014_aarch64.musllinux_1_1_aarch64",
    "x86_64-apple-darwin": "macosx_10_12_x86_64",
    "aarch64-apple-darwin": "macosx_11_0_arm64",
}


def files(stage: pathlib.Path, version: str, platform: str) -> dict[str, bytes]:
    repository = os.environ.get("REPOSITORY")
    metadata = [
        "Metadata-Version: 2.4",
        "Name: stigmer",
        f"Version: {version}",
        "Summary: A running Temporal on a machine that has nothing: one command, one small static binary",
        "License-Expression: Apache-2.0",
        "License-File: LICENSE",
        "License-File: THIRD-PARTY-NOTICES",
        *([f"Project-URL: Source, {repository}"] if repository else []),
        "Requires-Python: >=3.8",
        "Description-Content-Type: text/markdown",
        "",
        (stage / "README.md").read_text(),
    ]
    tags = [f"Tag: py3-none-{tag}" for tag in platform.split(".")]
    wheel = ["Wheel-Version: 1.0", "Generator: stigmer", "Root-Is-Purelib: false", *tags, ""]
    info = f"stigmer-{version}.dist-info"
    return {
        f"stigmer-{version}.data/scripts/stigmer": (stage / "stigmer").read_bytes(),
        f"stigmer-{version}.data/data/share/man/man1/stigmer.1": (stage / "stigmer.1").read_bytes(),
        f"{info}/METADATA": "\n".join(metadata).encode(),
        f"{info}/WHEEL": "\n".join(wheel).encode(),
        f"{info}/licenses/LICENSE": (stage / "LICENSE").read_bytes(),
        f"{info}/licenses/THIRD-PARTY-NOTICES": (stage / "THIRD-PARTY-NOTICES").read_bytes(),
    }


def record(contents: dict[str, bytes], name: str) -> bytes:
    rows = []
    for path, content in contents.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        rows.append(f"{path},sha256={digest},{len(content)}\n")
    return "".join([*rows, f"{name},,\n"]).encode()


def main(target: str) -> None:
    version, platform = os.environ["VERSION"], PLATFORMS[target]
    contents = files(ROOT / "target/stage" / target, version, platform)
    name = f"stigmer-{version}.dist-info/RECORD"
    contents[name] = record(contents, name)
    date = time.gmtime(int(os.environ["SOURCE_DATE_EPOCH"]))[:6]
    with zipfile.ZipFile(ROOT / f"dist/stigmer-{version}-py3-none-{platform}.whl", "w") as archive:
        for path, content in contents.items():
            entry = zipfile.ZipInfo(path, date)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (0o100755 if "/scripts/" in path else 0o100644) << 16
            archive.writestr(entry, content, compresslevel=9)


if __name__ == "__main__":
    main(sys.argv[1])
