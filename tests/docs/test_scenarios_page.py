"""The page on scenarios has every key of the models, its default, and no other."""

from __future__ import annotations

from typing import Final

import pytest

from spear.simulate._distribution import NEEDS
from spear.simulate._read import _TOP
from spear.simulate._scenario import Behaviour, Burst, Errors, Event, Ramp, RateLimit, Traffic
from tests.docs._pages import DOCS, rows, section

TEXT: Final = (DOCS / "reference" / "scenarios.md").read_text(encoding="utf-8")


def keys(name: str) -> dict[str, list[str]]:
    return {row[0].strip("`"): row for row in rows(section(TEXT, name)) if row[0].startswith("`")}


def test_the_top() -> None:
    assert set(keys("## `[simulate]`")) == set(_TOP) - {"traffic", "backends", "compare"}


@pytest.mark.parametrize(
    ("heading", "models"),
    [("## `[simulate.traffic]`", [Traffic]), ("## `[[simulate.backends]]`", [Behaviour, Event])],
)
def test_the_keys_and_their_defaults(heading: str, models: list[type]) -> None:
    found = keys(heading)
    fields = {name: field for model in models for name, field in model.model_fields.items()}
    assert found.keys() == fields.keys()
    for name, field in fields.items():
        said = found[name][1].strip('`"')
        if field.is_required():
            assert said == "", name
        elif isinstance(field.default, int | float | str) and field.default:
            assert said == f"{field.default:g}" if isinstance(field.default, float) else str(field.default), name


@pytest.mark.parametrize(
    ("key", "model", "heading"),
    [
        ("ramps", Ramp, "## `[simulate.traffic]`"),
        ("bursts", Burst, "## `[simulate.traffic]`"),
        ("errors", Errors, "## `[[simulate.backends]]`"),
        ("rate_limit", RateLimit, "## `[[simulate.backends]]`"),
    ],
)
def test_tables_within(key: str, model: type, heading: str) -> None:
    row = next(row for row in rows(section(TEXT, heading)) if row[0] == f"`{key}`" and "{" in row[2])
    inner = row[2].partition("{")[2].partition("}")[0]
    assert [each.strip() for each in inner.split(",")] == list(model.model_fields)


def test_distributions() -> None:
    found = {
        kind: tuple(each.strip(" `") for each in row[1].split(",")) for kind, row in keys("## Distributions").items()
    }
    assert found == NEEDS
