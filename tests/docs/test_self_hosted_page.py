"""The page about servers of one's own: its configurations load, and its tables say what the code says."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from spear.backends import find_kind
from spear.backends.openai._options import _CHOICES, Options
from spear.config import load_config
from tests.docs._pages import blocks

PAGE = Path(__file__).parents[2] / "docs/how-to/self-hosted-servers.md"


def test_the_configurations_load_and_their_kinds_take_them(tmp_path):
    tomls = [block.content for block in blocks(PAGE.read_text(encoding="utf-8")) if block.language == "toml"]
    assert len(tomls) == 2
    for number, toml in enumerate(tomls):
        path = tmp_path / f"{number}.toml"
        path.write_text(toml, encoding="utf-8")
        config = load_config(path, environ={"AZURE_OPENAI_API_KEY": "k"})
        assert config.backends
        for instance in config.backends:
            kind = find_kind(instance.kind)
            kind.check(instance)
            assert set(instance.ops or ()) <= set(kind.capabilities.ops)
            assert set(instance.features or ()) <= set(kind.capabilities.features)


def test_the_options_are_those_of_the_kind():
    text = PAGE.read_text(encoding="utf-8")
    section = text[text.index("## Options") : text.index("## Azure")]
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| `([^`]+)` \|", section, re.MULTILINE)
    assert {name: default for name, _, default in rows} == {each.name: each.default for each in fields(Options)}
    for name, values, _ in rows:
        assert tuple(re.findall(r"`([^`]+)`", values)) == _CHOICES.get(name, ())
