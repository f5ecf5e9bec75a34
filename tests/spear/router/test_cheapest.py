"""The laws of cheapest."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from spear.config import Price
from spear.ir import Operation
from spear.router._facts import Sizes
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
