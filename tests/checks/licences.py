"""The licences of everything the core needs: `python -m tests.checks.licences` fails on one that is not on the list."""

from __future__ import annotations

import re
from importlib import metadata

ALLOWED = (
    "MIT",
    "BSD",
    "Apache",
    "ISC",
    "PSF",
    "Python Software Foundation",
    "MPL-2.0",
    "Mozilla Public License 2.0",
    "Unlicense",
    "Zlib",
)
DISTRIBUTION = "spear-runtime"


def requirements(name: str, seen: set[str]) -> set[str]:
    """The distributions that `name` needs without extras, transitively, as far as they are installed here."""
    for line in metadata.requires(name) or ():
        requirement, _, marker = line.partition(";")
        if "extra ==" in marker:
            continue
        found = re.match(r"[A-Za-z0-9_.\-]+", requirement)
        assert found is not None
        other = found.group().lower()
        if other in seen:
            continue
        try:
            metadata.distribution(other)
        except metadata.PackageNotFoundError:
            continue  # for another platform or Python
        seen.add(other)
        requirements(other, seen)
    return seen


def licence(name: str) -> str:
    about = metadata.metadata(name)
    classifiers = [c.rsplit("::", 1)[-1].strip() for c in about.get_all("Classifier") or () if c.startswith("License")]
    return about.get("License-Expression") or "; ".join(classifiers) or (about.get("License") or "").split("\n")[0]


def main() -> int:
    wrong = 0
    for name in sorted(requirements(DISTRIBUTION, set())):
        text = licence(name)
        fine = any(allowed.lower() in text.lower() for allowed in ALLOWED) and "GPL" not in text
        wrong += not fine
        print(f"{'ok ' if fine else 'NOT'} {name} {metadata.version(name)}: {text or 'no licence stated'}")  # noqa: T201
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
