"""The laws of cheapest."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spear.config import Price
from spear.ir import (
    ImageRequest,
    Operation,
    RequestEnvelope,
    SpeechToTextRequest,
    SpeechToTextResult,
    TextToSpeechRequest,
    UrlMedia,
    Usage,
)
from spear.router._facts import Sizes, facts_of
from spear.router._usage import others_cost, settle_usage
from tests.spear.router.still import FACTS, Still, choose, run, took

prices = st.builds(Price, input=st.floats(0, 9), output=st.floats(0, 9))


@given(prices=st.lists(st.none() | prices, min_size=1, max_size=8), tokens=st.integers(0, 9999),
       most=st.integers(0, 999), seed=st.integers(0, 2**64 - 1))  # fmt: skip
@settings(deadline=None)
def test_the_cheapest_for_this_request(prices: list[Price | None], tokens: int, most: int, seed: int) -> None:
    candidates = [Still(str(i), price=price) for i, price in enumerate(prices)]
    facts = FACTS._replace(input_tokens=tokens, sizes=Sizes(output_tokens=most))
    chosen = candidates[choose("cheapest", candidates, seed=seed, facts=facts).position].price
    costs = [tokens * price.input + (most or 256) * price.output for price in prices if price is not None]
    if costs:
        assert chosen is not None, "one without a price never looks cheap"
        cost = tokens * chosen.input + (most or 256) * chosen.output
        assert cost <= min(costs) * (1 + 1e-9)


def test_who_is_cheapest_depends_on_the_sizes() -> None:
    candidates = [Still("reads", price=Price(input=1, output=9)), Still("writes", price=Price(input=3, output=1))]

    def chosen(input_tokens: int, output_tokens: int) -> str:
        facts = FACTS._replace(input_tokens=input_tokens, sizes=Sizes(output_tokens=output_tokens))
        return candidates[choose("cheapest", candidates, facts=facts).position].name

    assert chosen(100_000, 10) == "reads"
    assert chosen(100, 1000) == "writes"


def test_what_answers_nothing_in_tokens_has_no_price_for_it() -> None:
    candidates = [Still("a", price=Price(input=1, output=0)), Still("b", price=Price(input=0.5, output=99))]
    facts = FACTS._replace(operation=Operation.EMBEDDINGS, input_tokens=10)
    assert candidates[choose("cheapest", candidates, facts=facts).position].name == "b"


def test_among_equals_latency_decides() -> None:
    price = Price(input=1, output=1)
    candidates = [
        Still("slow", known=took(2.0), price=price),
        Still("fast", known=took(0.1), price=price),
        Still("dear", known=took(0.001), price=Price(input=2, output=1)),
    ]
    assert set(run("cheapest", candidates, 50)) == {"fast"}
    assert "2 cost the same" in choose("cheapest", candidates).note


def test_nobody_is_pinned_among_equals_without_a_price() -> None:
    candidates = [Still(name) for name in "abc"]
    assert set(run("cheapest", candidates, 50)) == set("abc")
    assert "nobody has a price" in choose("cheapest", candidates).note


def test_images_and_speech_have_prices_of_their_own() -> None:
    price = Price(input=1.0, image=0.04, characters=15.0, audio_minute=0.006)
    speech = facts_of(asking_for(TextToSpeechRequest(input="x" * 2_000)))
    picture = facts_of(asking_for(ImageRequest(prompt="x", n=3)))
    assert others_cost(speech, price) == pytest.approx(0.03)
    assert others_cost(picture, price) == pytest.approx(0.12)
    spoken = settle_usage(Usage(), speech, 0, price)
    assert (spoken.characters, spoken.cost) == (2_000, pytest.approx(0.03))
    heard = facts_of(asking_for(SpeechToTextRequest(audio=UrlMedia(url="https://example.com/a.wav"))))
    transcript = SpeechToTextResult(text="", duration_s=90.0)
    assert settle_usage(Usage(), heard, transcript, price).cost == pytest.approx(0.009)


def asking_for(payload: Any) -> RequestEnvelope:
    return RequestEnvelope(operation=Operation(payload.kind), payload=payload)
