"""A small scenario, and how tests change it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from spear.simulate import Scenario, parse_scenario, run_variant

PLAIN = """
[simulate]
seed = 7
requests = {requests}

[simulate.traffic]
rate = {rate}
model = "m"
{traffic}

[[simulate.backends]]
name = "a"
latency = {{ kind = "lognormal", median = "200ms", sigma = 0.4 }}
{a}

[[simulate.backends]]
name = "b"
latency = {{ kind = "lognormal", median = "200ms", sigma = 0.4 }}
{b}
{more}

[spear]
{spear}

[[spear.backends]]
name = "a"
kind = "openai_chat"
hosting = "local"
base_url = "http://a.example/v1"
model = "m"
price = {{ input = 1, output = 2 }}

[[spear.backends]]
name = "b"
kind = "openai_chat"
hosting = "local"
base_url = "http://b.example/v1"
model = "m"
price = {{ input = 1, output = 2 }}
"""


def text(requests: int = 300, rate: float = 20, **parts: str) -> str:
    blank = dict.fromkeys(("traffic", "a", "b", "more", "spear"), "")
    return PLAIN.format(requests=requests, rate=rate, **{**blank, **parts})


def scenario(requests: int = 300, rate: float = 20, **parts: str) -> Scenario:
    return read(text(requests, rate, **parts))


def read(written: str) -> Scenario:
    return parse_scenario(written.encode(), file="s.toml", folder=Path("/nowhere"))


def run(requests: int = 300, rate: float = 20, seed: int | None = None, **parts: str) -> dict[str, Any]:
    found = scenario(requests, rate, **parts)
    return run_variant(found, found.variants[0].name, seed=seed)


def conserved(result: dict[str, Any]) -> None:
    """Nothing gets lost: callers' side, backends' side, over time."""
    errors = sum(result["errors"].values())
    assert result["arrivals"] == result["ok"] + errors + result["left"]
    for backend in result["backends"].values():
        assert backend["calls"] == backend["answered"] + backend["left"] + sum(backend["failed"].values())
    assert result["calls"] == sum(backend["calls"] for backend in result["backends"].values())
    assert result["ok"] == sum(backend["answers"] for backend in result["backends"].values())
    rows = result["over_time"]
    assert [sum(row[at] for row in rows) for at in (1, 2, 3, 4)] == [
        result["arrivals"], result["ok"], errors, result["left"],
    ]  # fmt: skip
    if result["distribution"]:
        assert result["distribution"][-1][1] == result["ok"]
