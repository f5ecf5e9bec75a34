"""The first configuration: the starter file, without the backends that cannot work on this machine."""

from __future__ import annotations

from importlib.resources import files

from spear.config import default_config
from spear.router import build_generation


def starter_text() -> str:
    """What of it cannot work here is switched off, with the reason above it."""
    text = files("spear.config").joinpath("starter.toml").read_text(encoding="utf-8")
    for skipped in build_generation(default_config()).skipped:
        block = f'[[spear.backends]]\nname = "{skipped.name}"\nkind = "{skipped.kind}"\nhosting = "local"\n'
        off = "".join(f"#{line}\n" for line in block.splitlines())
        text = text.replace(block, f"# Off, since {skipped.detail}\n{off}")
    return text
