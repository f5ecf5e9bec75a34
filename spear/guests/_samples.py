"""Where the sample guests and the header are."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent


def include_dir() -> Path:
    """Where spear.h is, for a compiler of one's own."""
    return _HERE


def names() -> list[str]:
    """The sample guests."""
    return sorted(module.stem for module in _HERE.glob("*.wasm"))


def path(name: str) -> Path:
    """The module of a sample guest: `path("chat_tool")`; with a suffix, another file of it: `path("hello.wat")`.

    Raises FileNotFoundError, which lists the samples.
    """
    file = _HERE / (name if Path(name).suffix in {".wasm", ".wat", ".c", ".h"} else f"{name}.wasm")
    if file.parent != _HERE or not file.is_file():
        raise FileNotFoundError(f"no sample guest {name!r}; there are: {', '.join(names())}")
    return file
