"""The scenarios that come with the package."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Final

from spear.config import did_you_mean
from spear.ir import ConfigError, Problem

SUFFIX: Final = ".toml"
_FOLDER: Final = Path(str(files("spear.simulate"))) / "scenarios"


def shipped() -> dict[str, Path]:
    """By name."""
    return {path.stem: path for path in sorted(_FOLDER.glob(f"*{SUFFIX}"))}


def find_scenario(name: str) -> Path:
    """A path, or the name of one that is shipped. Raises `ConfigError`."""
    if Path(name).suffix == SUFFIX or "/" in name:
        return Path(name)
    known = shipped()
    if name not in known:
        raise ConfigError([Problem(name, 0, "", f"is no scenario and no .toml file{did_you_mean(name, known)}")])
    return known[name]
