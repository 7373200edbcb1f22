"""Which crates are in the binary for a target: as a CycloneDX document, or
with the texts of their licences.

Usage: crates.py sbom|notices TARGET > FILE

The list is cargo's own, `cargo tree` with the features of this target. (The
tool cargo-cyclonedx reads Cargo.lock instead and names a crate that no build
compiles.)
"""

import datetime
import json
import os
import pathlib
import re
import subprocess
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
OWN = "stigmer"


def output(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def crates(target: str) -> list[tuple[str, str, str]]:
    """Name, version and licence of all that is linked, sorted; ours is not among them."""
    tree = output("cargo", "tree", "--locked", "-e", "normal", "--target", target, "--prefix", "none", "--no-dedupe",
                  "--format", "{p}\t{l}")
    found = set()
    for line in tree.splitlines():
        package, licence = line.split("\t")
        name, version = package.split()[:2]
        found.add((name, version.removeprefix("v"), licence.replace("/", " OR ")))
    return sorted(crate for crate in found if crate[0] != OWN)


def sbom(target: str) -> str:
    """CycloneDX 1.5. The serial number that it may have would be another one each time."""
    locked = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    checksums = {(package["name"], package["version"]): package.get("checksum") for package in locked}
    manifest = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]
    seconds = int(os.environ["SOURCE_DATE_EPOCH"])
    time = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)

    def component(kind: str, name: str, version: str, licence: str) -> dict:
        reference = f"pkg:cargo/{name}@{version}"
        return {"type": kind, "bom-ref": reference, "name": name, "version": version,
                "licenses": [{"expression": licence}], "purl": reference}

    libraries = []
    for name, version, licence in crates(target):
        digest = {"alg": "SHA-256", "content": checksums[name, version]}
        libraries.append(component("library", name, version, licence) | {"hashes": [digest]})
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": component("application", OWN, manifest["version"], manifest["license"]),
            "properties": [{"name": "cdx:rustc:sbom:target:triple", "value": target}],
        },
        "components": libraries,
    }
    return json.dumps(document, indent=2) + "\n"


def notices(target: str) -> str:
    """What may be used under our own licence is, and needs its text once; all
    else brings its own."""
    metadata = json.loads(output("cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target))
    places = {(package["name"], package["version"]): pathlib.Path(package["manifest_path"]).parent
              for package in metadata["packages"]}
    ours, theirs = [], []
    for name, version, licence in crates(target):
        texts = [path for path in sorted(places[name, version].iterdir()) if is_licence(path)]
        if "Apache-2.0" in licence.replace("(", "").replace(")", "").split(" OR "):
            ours.append(f"  {name} {version}")
            texts = [path for path in texts if path.name.upper().startswith("NOTICE")]
        elif not texts:
            sys.exit(f"error: cannot name the licence of {name} {version}: it brings no text")
        theirs += [(f"{name} {version}, {path.name} ({licence})", path.read_text()) for path in texts]
    toolchain = (ROOT / ".packaging/notices-toolchain").read_text()
    heads = ["The binary contains, under the Apache License 2.0 (the text is at the end):\n\n" + "\n".join(ours) + "\n",
             toolchain]
    sections = heads + [f"{title}\n\n{text}" for title, text in theirs + [("Apache License 2.0", (ROOT / "LICENSE").read_text())]]
    rule = "\n" + "-" * 78 + "\n\n"
    return rule.join(section.strip("\n") + "\n" for section in sections)


def is_licence(path: pathlib.Path) -> bool:
    return path.is_file() and re.match(r"(licen[cs]e|copying|notice)", path.name, re.IGNORECASE) is not None


if __name__ == "__main__":
    kinds = {"sbom": sbom, "notices": notices}
    if len(sys.argv) != 3 or sys.argv[1] not in kinds:
        sys.exit("usage: crates.py sbom|notices TARGET")
    sys.stdout.write(kinds[sys.argv[1]](sys.argv[2]))
