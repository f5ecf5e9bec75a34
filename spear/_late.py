"""Names of a package that are loaded when somebody asks for them (PEP 562)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def late_names(
    package: str, homes: Mapping[str, Mapping[str, str]], *, doors: Sequence[str] = ()
) -> Callable[[str], Any]:
    """The `__getattr__` of `package`: `homes` says for each submodule which names the package has from it, and under
    which names they stand there; `doors` are submodules that are attributes themselves."""
    home_of = {name: (module, there) for module, names in homes.items() for name, there in names.items()}

    def find(name: str) -> Any:
        if name in doors:
            return import_module(f".{name}", package)
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, there = home_of[name]
        value = getattr(import_module(f".{module}", package), there)
        setattr(sys.modules[package], name, value)  # the next look-up does not come here
        return value

    return find
