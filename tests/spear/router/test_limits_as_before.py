"""What was admitted before is admitted without looking: never what looking would have refused."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from spear.config import Budget
from spear.ir import Limits
from spear.router import Desk, Facts, facts_of
from spear.router.limits import Reservation
from spear.router.limits._amounts import Amounts
from tests.spear.router.world import chat, instance, still_generation

FACTS = facts_of(chat("12345678"))

SIZES = ((400, 300), (0, 50), (100, 50), (100, 0), (400, 300))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.sampled_from(SIZES), st.just(0)),
        st.tuples(st.just("settle"), st.just((0, 0)), st.sampled_from((0, 500, 3000))),
        st.tuples(st.just("wait"), st.just((0, 0)), st.integers(0, 60)),
        st.tuples(st.just("reload"), st.just((0, 0)), st.sampled_from((600, 2000))),
    ),
    max_size=20,
)


@given(steps)
def test_nothing_is_admitted_that_looking_would_refuse(steps: list[tuple[str, tuple[int, int], int]]) -> None:
    now, open_ones = 0.0, list[Reservation]()
    desk = Desk(still_generation(instance("a", limits=Limits(rpm=8, tpm=2000))))
    (one,) = desk.generation.instances
    for what, size, number in steps:
        bounds = one.bounds
        assert bounds is not None
        if what == "take":
            open_ones.append(bounds.reserve(of_size(size), None, now))
        elif what == "settle" and open_ones:
            open_ones.pop(0).settle(Amounts(1, number, 0, number, 0), now)
        elif what == "wait":
            now += number
        elif what == "reload":
            one.config = instance("a", limits=Limits(rpm=8, tpm=number))
            desk.limits.open(desk.generation.config, (one,))
        bounds = one.bounds
        assert bounds is not None
        for each in SIZES:
            facts = of_size(each)
            known = bounds.admits_as_before(facts)
            assert bounds.reason(facts, now) is None or not known
    for left in open_ones:
        left.keep(now)


def of_size(size: tuple[int, int]) -> Facts:
    return FACTS._replace(input_tokens=size[0], sizes=FACTS.sizes._replace(output_tokens=size[1]))


def test_what_is_shared_with_others_is_always_looked_at() -> None:
    rates = Desk(still_generation(instance("a", limits=Limits(rpm=8))))
    shared = Desk(
        still_generation(
            instance("a", limits=Limits(rpm=8)),
            budgets=(Budget(name="all", window=60.0, requests=100),),
        )
    )
    for desk, quick in ((rates, True), (shared, False)):
        (one,) = desk.generation.instances
        assert one.bounds is not None
        assert one.bounds.reason(FACTS, 0.0) is None
        assert one.bounds.admits_as_before(FACTS) is quick
