"""Optional dependencies fail where they are used, by the name of the extra that brings them."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from spear._about import DISTRIBUTION


class MissingExtra(ImportError):
    """An optional dependency is not installed; the message is the command that installs it."""


def install_hint(extra: str | None) -> str:
    """The command that installs `extra` of this distribution (None = what it needs without any)."""
    return f"pip install '{DISTRIBUTION}[{extra}]'" if extra else f"pip install {DISTRIBUTION}"


def need(module: str, extra: str | None) -> ModuleType:
    """Import `module`, or raise `MissingExtra` if it, or something that it needs, is not installed. An error inside
    an installed module passes through."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or module
        raise MissingExtra(f"{missing} is not installed: {install_hint(extra)}", name=missing) from error


def need_there(module: str, extra: str | None) -> None:
    """Raise `MissingExtra` if the top-level `module` is not installed. Imports nothing."""
    if importlib.util.find_spec(module) is None:
        raise MissingExtra(f"{module} is not installed: {install_hint(extra)}", name=module)
