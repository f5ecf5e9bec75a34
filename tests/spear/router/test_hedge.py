"""The pure side of hedging: the purse and its law, the delay, who may be hedged, whose quota is shared."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spear.config import Config, Credential, Hedge, RouteMatch
from spear.ir import ChatMessage, ChatRequest, EmbeddingsRequest, ImageRequest, Operation, RequestEnvelope
from spear.router._hedge import FLOOR_S, SAVED, Purse, Purses, delay_of, may_be_hedged, quota_mates
from spear.router._latency import Latency
from tests.spear.router.world import CHAT, chat, instance

SHARES = st.floats(1e-6, 1.0)


@given(SHARES, st.lists(st.sampled_from(["request", "hedge", "unsent request", "unsent hedge"]), max_size=400))
def test_hedges_never_exceed_their_part_of_the_requests(share: float, steps: list[str]) -> None:
    """At any time since the start, and in any stretch of time but for what was saved."""
    purse = Purse(share)
    hedges, requests = [0], [0]
    for step in steps:
        more_hedges = more_requests = 0
        match step:
            case "request":
                purse.put_in()
                more_requests = 1
            case "hedge":
                more_hedges = purse.pay()
            case "unsent request":
                purse.put_in()
                purse.take_back()
            case "unsent hedge":
                if purse.pay():
                    purse.refund()
        hedges.append(hedges[-1] + more_hedges)
        requests.append(requests[-1] + more_requests)
        assert hedges[-1] <= Fraction(share) * requests[-1]
        assert 0 <= purse.tokens <= SAVED
    for start in range(0, len(hedges), 7):
        for end in range(start, len(hedges), 11):
            assert hedges[end] - hedges[start] <= Fraction(share) * (requests[end] - requests[start]) + SAVED


def test_nothing_is_lost_to_rounding() -> None:
    purse = Purse(0.05)
    for _ in range(5):
        for _ in range(19):
            purse.put_in()
            assert not purse.pay()
        purse.put_in()
        assert purse.pay()


def test_a_purse_that_nobody_uses_keeps_ten() -> None:
    purse = Purse(0.5)
    for _ in range(1000):
        purse.put_in()
    assert [purse.pay() for _ in range(12)] == [True] * 10 + [False] * 2


def test_a_reload_keeps_what_is_in_a_purse_and_forgets_those_of_routes_that_are_gone() -> None:
    purses, one, two = Purses(), RouteMatch(operation=CHAT), RouteMatch()
    for match in (one, two):
        purse = purses.of(match, Hedge(max_extra_load=0.5))
        purse.put_in()
    purses.switch([(one, Hedge(max_extra_load=0.25))])
    assert purses.of(one, Hedge()).tokens == pytest.approx(0.5)
    purses.of(one, Hedge()).put_in()
    assert purses.of(one, Hedge()).tokens == pytest.approx(0.75)
    assert purses.of(two, Hedge()).tokens == pytest.approx(0)


def samples(*seconds: float) -> Latency:
    latency = Latency()
    for each in seconds:
        latency.answered(each, 0.0)
    return latency


def test_the_delay_is_the_percentile_of_what_may_be_late() -> None:
    known = samples(*[number / 100 for number in range(1, 101)])
    assert delay_of(Hedge(), known) == pytest.approx(0.95)
    assert delay_of(Hedge(max_extra_load=0.1), known) == pytest.approx(0.9)
    assert delay_of(Hedge(delay="p50"), known) == pytest.approx(0.5)
    assert delay_of(Hedge(delay="p99.5"), known) == pytest.approx(1.0)
    assert delay_of(Hedge(delay=0.001), known) == pytest.approx(0.001)


def test_too_little_is_known_below_twenty_answers() -> None:
    assert delay_of(Hedge(), None) is None
    assert delay_of(Hedge(), samples(*[1.0] * 19)) is None
    assert delay_of(Hedge(), samples(*[1.0] * 20)) == pytest.approx(1.0)
    assert delay_of(Hedge(delay=0.3), None) == pytest.approx(0.3)


def test_what_was_measured_has_a_floor_and_what_is_written_has_none() -> None:
    fast = samples(*[0.001] * 30)
    assert delay_of(Hedge(), fast) == FLOOR_S
    assert delay_of(Hedge(delay="p99"), fast) == FLOOR_S
    assert delay_of(Hedge(delay=0.002), fast) == pytest.approx(0.002)


@given(st.lists(st.floats(0.1, 10.0), min_size=20, max_size=200), st.integers(0, 50))
def test_percentiles_do_not_sink_because_the_slow_ones_are_never_answered(seen: list[float], hedged: int) -> None:
    latency = samples(*seen)
    before = latency.percentile(0.95)
    assert before is not None
    for _ in range(hedged):
        late = latency.percentile(0.95)
        assert late is not None
        latency.outlasted(late + 0.01, 0.95)
    after = latency.percentile(0.95)
    assert after is not None
    assert after >= before or len(seen) + hedged > 256


def test_one_that_was_ended_early_says_nothing_of_the_percentile() -> None:
    latency = samples(*[1.0] * 30)
    latency.outlasted(0.5, 0.95)
    assert latency.samples == 30
    latency.outlasted(1.5, 0.95)
    assert latency.samples == 31


def test_who_is_never_hedged() -> None:
    def request(operation: Operation, payload: object) -> RequestEnvelope:
        return RequestEnvelope(operation=operation, payload=payload)

    messages = (ChatMessage(role="user", content="hi"),)
    assert may_be_hedged(chat())
    assert may_be_hedged(request(CHAT, ChatRequest(messages=messages, extra={"store": False})))
    assert may_be_hedged(request(Operation.EMBEDDINGS, EmbeddingsRequest(input=("a",))))
    assert not may_be_hedged(request(CHAT, ChatRequest(messages=messages, extra={"store": True})))
    assert not may_be_hedged(request(Operation.IMAGE_GENERATION, ImageRequest(prompt="a")))


def test_quota_mates_are_those_of_the_same_group() -> None:
    credentials = tuple(
        Credential(name=name, source="env:K", quota_group=group)
        for name, group in (("k1", "org"), ("k2", "org"), ("k3", "other"), ("k4", None))
    )
    backends = (
        instance("a", credentials=("k1",)),
        instance("b", credentials=("k2",)),
        instance("c", credentials=("k3",)),
        instance("d", credentials=("k4",)),
        instance("e", credentials=("k4",)),
        instance("f"),
    )
    config = Config(credentials=credentials, backends=backends)
    assert quota_mates(config, ["a"]) == {"a", "b"}
    assert quota_mates(config, ["c"]) == {"c"}
    assert quota_mates(config, ["d"]) == {"d"}
    assert quota_mates(config, ["a", "f"]) == {"a", "b", "f"}
    assert quota_mates(Config(backends=backends), ["a"]) == {"a"}


@pytest.mark.parametrize("delay", ["p100", "95", "p", "p5.1234", "-1s", "q9"])
def test_the_model_takes_no_other_delay(delay: str) -> None:
    with pytest.raises(ValueError, match="delay"):
        Hedge(delay=delay)
