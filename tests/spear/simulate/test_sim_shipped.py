"""The scenarios that come with Spear run, and show what they are there to show."""

from __future__ import annotations

import pytest

from spear.ir import ConfigError
from spear.simulate import find_scenario, read_scenario, run_variant, shipped
from tests.spear.simulate.small import conserved, run

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
        result = run_variant(scenario, variant.name, requests=120)
        conserved(result)
        assert result["arrivals"] == 120
        assert result["ok"] > 60


def test_a_brown_out_hurts_those_who_do_not_look() -> None:
    ill = "events = [{ at = '5s', latency_factor = 10 }]"
    blind, looking = (
        run(600, 20, a=ill, spear=f"[[spear.routes]]\npolicy = '{policy}'")
        for policy in ("weighted_round_robin", "peak_ewma")
    )
    assert looking["latency"]["p90"] < blind["latency"]["p90"] / 2
    assert looking["backends"]["a"]["share"] < blind["backends"]["a"]["share"] / 2


def test_breakers_bound_what_an_outage_costs() -> None:
    out = "events = [{ at = '5s', outage = 'refuse' }]"
    with_breakers, without = (
        run(600, 20, a=out, spear=f"health = {{ enabled = {on} }}\n[[spear.routes]]\npolicy = 'weighted_round_robin'")
        for on in ("true", "false")
    )
    assert with_breakers["ok"] == without["ok"] == 600
    assert without["extra_load"] > 5 * with_breakers["extra_load"] > 0


def test_what_a_key_pool_is_worth_where_keys_run_out() -> None:
    scenario = read_scenario(find_scenario("key_exhaustion"))
    one, blind, groups, _, reserve = (run_variant(scenario, each.name) for each in scenario.variants)
    for result in (one, blind, groups, reserve):
        conserved(result)
    assert one["errors"]["credentials_exhausted"] > one["arrivals"] / 2
    assert groups["ok"] > 5 * one["ok"]
    refused = [each["backends"]["provider"]["failed"]["rate_limit"] for each in (blind, groups)]
    assert refused[1] < 0.75 * refused[0]  # keys that share a quota cool together
    assert groups["backends"]["provider"]["failed"]["auth"] == 1  # a revoked key is sent once
    assert groups["errors"].keys() == {"rate_limited"}
    assert reserve["ok"] == reserve["arrivals"]
    assert reserve["backends"]["reserve"]["share"] < 0.05
