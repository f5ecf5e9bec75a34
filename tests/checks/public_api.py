"""The names that Spear promises, compared by `python -m tests.checks.public_api` with public_api.txt beside it.

A difference is an API change: run with `--write` and let the diff be reviewed.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path
from types import ModuleType

DOORS = ("actors", "actors.testing", "spear", "spear.backends", "spear.blocking", "spear.ir", "spear.testing")
LIST = Path(__file__).with_name("public_api.txt")


def describe(door: str) -> list[str]:
    module = importlib.import_module(door)
    names = getattr(module, "__all__", None) or [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not isinstance(value, ModuleType) and name != "annotations"
    ]
    return [line for name in sorted(names) for line in _lines(f"{door}.{name}", getattr(module, name))]


def _lines(name: str, value: object) -> list[str]:
    if not inspect.isclass(value):
        return [name]
    own = sorted(
        member
        for member, what in vars(value).items()
        if not member.startswith("_") and (callable(what) or isinstance(what, property | classmethod | staticmethod))
    )
    return [name, *(f"{name}.{member}" for member in own if not member.startswith("model_"))]


def main() -> int:
    found = "".join(f"{line}\n" for door in DOORS for line in describe(door))
    if "--write" in sys.argv:
        LIST.write_text(found)
        return 0
    known = LIST.read_text().splitlines()
    now = found.splitlines()
    for line in sorted(set(known) ^ set(now)):
        print(("missing: " if line in known else "new: ") + line)  # noqa: T201
    if known != now:
        print("The public API differs from tests/checks/public_api.txt; if that is meant, run with --write.")  # noqa: T201
        return 1
    print(f"public API: {len(now)} names as listed")  # noqa: T201
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
