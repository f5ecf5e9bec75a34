"""The table of dialects says of the kinds what they say of themselves."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from spear.backends import find_kind
from spear.config import load_config
from spear.router import build_generation

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "dialects.md").read_text(encoding="utf-8")
ROWS = {cells[0]: cells[1:] for line in PAGE.splitlines() if (cells := [c.strip() for c in line.split("|")[1:-1]])}
KINDS = [cell.strip("`") for cell in ROWS[""]]
NOT_OF_CHAT = {"batch", "dimensions", "mask", "timestamps", "language", "diarization", "voices", "formats"}


def test_the_table_is_whole() -> None:
    assert len(ROWS) > 30
    assert {len(cells) for cells in ROWS.values()} == {len(KINDS)}


@pytest.mark.parametrize("kind", KINDS)
def test_operations_and_features(kind: str) -> None:
    can = find_kind(kind).capabilities
    at = KINDS.index(kind)
    assert ROWS["operations"][at] == ", ".join(can.ops)
    features = [name.removeprefix("supports_") for name in can.features]
    said = ROWS["features for chat"][at].removesuffix(", and what the configuration says")
    assert said == ", ".join(name for name in features if name not in NOT_OF_CHAT)


@pytest.mark.parametrize("block", re.findall(r"```toml[^\n]*\n(.*?)```", PAGE, re.DOTALL))
def test_the_examples_load(block: str) -> None:
    config = load_config(tomllib.loads(block), environ={"ANTHROPIC_API_KEY": "k"})
    assert config.warnings == ()
    assert all(each.reason is None for each in build_generation(config).instances)
