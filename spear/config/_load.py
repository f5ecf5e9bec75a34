"""The way in: find a configuration, read it, decide which layout it is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from spear.ir import ConfigError, Hosting, Problem

from . import _spear, _spearlet
from ._model import Config, InstanceConfig
from ._read import Document, read_file, read_mapping
from ._report import did_you_mean, show_key

VARIABLE: Final = "SPEAR_CONFIG"
FILE_NAME: Final = "spear.toml"
EMBEDDED: Final = ("stub", "hashed_ngrams", "prompt_card", "espeak", "pocketsphinx")
"""The kinds that need no network, one for each operation."""


def load_config(source: Path | str | Mapping[str, Any] | None, *, environ: Mapping[str, str] = os.environ) -> Config:
    """The configuration in a TOML file, or in a mapping of the same shape; None = `default_config()`.

    Reads the file and then, once, the variables and files of those credentials that a backend uses; a missing one
    leaves `Credential.value` None. Blocks for as long as the files take: call it before the work starts, or from a
    thread. Raises `ConfigError`, whose `problems` are everything that is wrong, never only the first.
    """
    if source is None:
        return default_config()
    document = read_mapping(source) if isinstance(source, Mapping) else read_file(Path(source))
    if _layout(document) == "spearlet":
        return _spearlet.read(document, environ)
    return _spear.read(document, environ)


def find_config(explicit: Path | str | None, environ: Mapping[str, str], cwd: Path) -> Path | None:
    """Which file to load: the one named, else that of `$SPEAR_CONFIG`, else `spear.toml` in `cwd`; None = there is
    none, so that `default_config()` is meant. A file that was named is returned whether or not it exists."""
    named = explicit if explicit is not None else environ.get(VARIABLE) or None
    if named is not None:
        return cwd / named
    here = cwd / FILE_NAME
    return here if here.is_file() else None


def default_config() -> Config:
    """The embedded backends, bound to no model: every operation works without a network, as far as what they need is
    installed here."""
    backends = (InstanceConfig(name=kind, kind=kind, hosting=Hosting.LOCAL) for kind in EMBEDDED)
    return Config(layout="embedded", backends=tuple(backends))


def _layout(document: Document) -> str:
    """`spear` or `spearlet`. Raises where it is neither, or both."""
    report, keys = document.report, set(document.data)
    found = keys & {"spear", "spearlet"}
    if found == {"spear", "spearlet"}:
        line = report.line(("spearlet",))
        message = "both [spear] and [spearlet] are here; expected one layout in a file"
        raise ConfigError([Problem(report.file, line, "", message)])
    if found == {"spearlet"}:
        return "spearlet"
    for key in sorted(keys - {"spear"}):
        hint = did_you_mean(key, {"spear", "spearlet"}, otherwise="expected everything under")
        if key in Config.model_fields:
            hint = f"; did you mean spear.{show_key(key)}?"
        report.add((key,), f"is not a known table{hint}")
    if not found:
        report.add((), "has neither a table [spear] nor [spearlet.llm]")
        report.raise_if_any()
    return "spear"
