"""The scenarios that come with Spear run, and show what they are there to show."""

from __future__ import annotations

import pytest

from spear.simulate import find_scenario, read_scenario, run_variant, shipped
from spear.simulate._read import ConfigError

from .small import conserved

NAMES = ("brown_out", "key_exhaustion", "price_shift", "regional_outage", "tail_latency", "thundering_herd")


def test_which() -> None:
    assert tuple(shipped()) == NAMES
    with pytest.raises(ConfigError, match='did you mean "brown_out"'):
        find_scenario("brownout")


@pytest.mark.parametrize("name", NAMES)
def test_every_variant_runs(name: str) -> None:
    scenario = read_scenario(find_scenario(name))
    assert scenario.about
    assert len(scenario.variants) >= 3
    for variant in scenario.variants:
        result = run_variant(scenario, variant.name, requests=250)
        conserved(result)
        assert result["arrivals"] == 250
        assert result["ok"] > 150


def test_a_brown_out_hurts_those_who_do_not_look() -> None:
    scenario = read_scenario(find_scenario("brown_out"))
    blind, looking = (
        run_variant(scenario, name, requests=5_000) for name in ("weighted_round_robin", "peak_ewma")
    )
    assert looking["latency"]["p99"] < blind["latency"]["p99"] / 2
    assert looking["backends"]["ill"]["share"] < blind["backends"]["ill"]["share"]


def test_breakers_bound_what_an_outage_costs() -> None:
    scenario = read_scenario(find_scenario("regional_outage"))
    with_breakers, without = (
        run_variant(scenario, name, requests=4_000) for name in ("priority, strict", "priority, no breakers")
    )
    assert with_breakers["ok"] == 4_000
    assert without["extra_load"] > 10 * with_breakers["extra_load"]
