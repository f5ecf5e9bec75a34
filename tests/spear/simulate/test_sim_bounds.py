"""What a scenario may ask for: whatever would not come to an end is refused before anything is made of it."""

from __future__ import annotations

import pytest

from spear.ir import ConfigError
from spear.simulate._read import parse_scenario
from spear.simulate._traffic import expected, times
from tests.spear.simulate.small import read, text


@pytest.mark.parametrize(
    ("changes", "key", "says"),
    [
        ({"rate": "1e300"}, "simulate.traffic.rate", "at most"),
        ({"rate": "1e-9"}, "simulate.traffic.rate", "at least"),
        ({"rate": "1e-6"}, "simulate.requests", "more than a year"),
        ({"requests": "1_000_000_000"}, "simulate.requests", "at most 100000000"),
        ({"a": "copies = 1_000_000"}, "simulate.backends[0].copies", "at most 1000"),
    ],
)
def test_too_much(changes: dict[str, str], key: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(text(**changes))
    (found,) = caught.value.problems
    assert (found.key, says in found.message) == (key, True), found


def scenario(lines: str, backends: int = 1, copies: int = 1, variants: str = "") -> str:
    modelled = "".join(
        f"[[simulate.backends]]\nname = 'b{each}'\ncopies = {copies}\nlatency = 1\n" for each in range(backends)
    )
    configured = "".join(
        f"[[spear.backends]]\nname = 'b{each}'\nkind = 'stub'\nhosting = 'local'\n" for each in range(backends)
    )
    return f"[simulate]\n{lines}\ntraffic = {{ rate = 1e6 }}\n{modelled}{variants}{configured}"


@pytest.mark.parametrize(
    ("written", "key", "says"),
    [
        (scenario("duration = '24h'"), "simulate.duration", "requests; expected at most 100000000"),
        (scenario("requests = 1", 11, 1000), "simulate.backends", "11000 with their copies"),
        (scenario("requests = 1", 1, 1, "[[simulate.compare]]\nname = 'v'\n" * 300), "simulate.compare", "at most 256"),
        (
            scenario("requests = 1", 10, 1000, "[[simulate.compare]]\nname = 'v'\n" * 30),
            "simulate.compare",
            "30 variants and reloads of 10000 backends",
        ),
        (scenario('requests = 1\ntitle = "\\u001b[31m"'), "simulate.title", "unprintable"),
    ],
    ids=["duration", "backends", "variants", "both", "title"],
)
def test_too_much_in_all(tmp_path, written: str, key: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_scenario(written.encode(), file="s.toml", folder=tmp_path)
    (found,) = caught.value.problems
    assert (found.key, says in found.message) == (key, True), found
    assert found.line


def test_as_many_are_expected_as_come() -> None:
    """With ramps and bursts; constant arrivals leave no chance."""
    ramps = "ramps = [{ at = 2, rate = 9, over = 4 }, { at = 8, rate = 1, over = 1 }]\narrivals = 'constant'"
    traffic = read(text(rate="3", traffic=f"{ramps}\nbursts = [{{ at = 5, requests = 7 }}]")).traffic
    from random import Random

    for until in (1.0, 3.0, 5.5, 7.0, 8.5, 20.0):
        coming = 0
        for at in times(traffic, Random(1)):
            if at > until:
                break
            coming += 1
        assert abs(coming - expected(traffic, until)) <= 1
