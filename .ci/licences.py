"""Every crate that ends in the binary must have a licence under which an
Apache-2.0 program may be distributed with it, and come from the registry."""

import subprocess
import sys

ALLOWED = {"MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "ISC", "BSD-2-Clause", "BSD-3-Clause", "Zlib",
           "Unicode-3.0", "CDLA-Permissive-2.0", "0BSD", "Unlicense", "CC0-1.0", "MIT-0"}


def allowed(expression: str) -> bool:
    """SPDX, as far as crates use it: OR binds weaker than AND; `/` is an old OR."""
    expression = expression.replace("/", " OR ").replace("(", "").replace(")", "")
    return any(
        all(term.strip() in ALLOWED for term in choice.split(" AND ")) for choice in expression.split(" OR ")
    )


def self_test() -> None:
    assert allowed("MIT OR Apache-2.0") and allowed("MIT/Apache-2.0") and allowed("Apache-2.0 AND ISC")
    assert allowed("GPL-3.0 OR MIT")
    assert not allowed("GPL-3.0") and not allowed("") and not allowed("MIT AND GPL-3.0")


def main() -> int:
    tree = subprocess.run(["cargo", "tree", "--locked", "-e", "normal", "--prefix", "none", "--no-dedupe",
                           "--format", "{p}\t{l}"], check=True, capture_output=True, text=True).stdout
    crates = dict(line.split("\t") for line in tree.splitlines() if line)
    bad = [f"{crate}: {licence or 'no licence'}" for crate, licence in crates.items() if not allowed(licence)]
    # A crate from elsewhere is shown with its place in parentheses; our own is the only one.
    bad += [f"{crate}: not from the registry" for crate in crates if "(" in crate and not crate.startswith("stigmer ")]
    print(f"licences and sources of {len(crates)} crates: " + (f"NOT allowed: {bad}" if bad else "all allowed"))
    return 1 if bad or len(crates) < 2 else 0


if __name__ == "__main__":
    self_test()
    sys.exit(main())
