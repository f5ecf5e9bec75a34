"""All that limits what one instance is sent: its own rates, those of its keys, the budgets that it is paid from.

Asking changes nothing, so that decisions stay repeatable; taking is done when an attempt is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import inf
from typing import Final

from spear.backends import Key
from spear.config import Price
from spear.ir import Operation
from spear.router._facts import Facts
from spear.router._usage import TOKENS_BOTH_WAYS, others_cost

from ._allowance import Allowance, Single
from ._amounts import DEFAULT_OUTPUT_TOKENS, POSITION, Amounts, Outputs, expected_of
from ._gcra import Gcra
from ._reservation import Admitted, Reservation
from ._window import Window

REQUESTS: Final = POSITION["requests"]


class Bounds:
    """`own` are those of every attempt; `keyed`, by the key's id, those of attempts with that key."""

    __slots__ = ("_admitted", "_alone", "_outputs", "_plain", "_scoped", "keyed", "own", "price")

    def __init__(
        self,
        own: Iterable[Allowance],
        keyed: Mapping[str, tuple[Allowance, ...]],
        price: Price | None,
    ) -> None:
        self.own = tuple(own)
        plain = [each for each in self.own if isinstance(each, Single) and each.unconditional]
        # Taken apart: these are asked of every candidate in every decision.
        self._plain = tuple((each.reason, each.the_meter, POSITION[each.quota.quantity]) for each in plain)
        self._scoped = tuple(each for each in self.own if each not in plain)
        self.keyed = dict(keyed)
        self.price = price
        self._outputs: dict[Operation, Outputs] = {}
        # Nobody else takes from its meters, and with time they only admit more: what was admitted stays so until
        # something is taken or settled here.
        self._alone = (
            not self._scoped
            and not keyed
            and all(isinstance(each.the_meter, Gcra | Window) and not each.budget for each in plain)
        )
        self._admitted = Admitted()

    def succeed(self, former: Bounds | None) -> None:
        """Take over what is known of the same instance."""
        if former is not None:
            self._outputs = former._outputs
            self._admitted = former._admitted
            self._admitted.last = None  # by other limits

    def amounts(self, facts: Facts) -> Amounts:
        """What an attempt is expected to take, at most what its caller allows."""
        return Amounts(*self._expected(facts))

    def _expected(self, facts: Facts) -> tuple[float, ...]:
        output: float = facts.sizes.output_tokens
        if not output and facts.operation in TOKENS_BOTH_WAYS:
            learned = self._outputs.get(facts.operation)
            output = DEFAULT_OUTPUT_TOKENS if learned is None else learned.expected
        expected = expected_of(facts.input_tokens, output, self.price)
        if self.price is not None and self.price.beside_tokens:
            return *expected[:-1], expected[-1] + others_cost(facts, self.price)
        return expected

    def admits_as_before(self, facts: Facts) -> bool:
        """True where no more is asked for than was admitted last, so that nothing has to be looked at. Most of a
        decision among many candidates is this question."""
        last = self._admitted.last
        return (
            last is not None
            and facts.input_tokens <= last.input_tokens
            and facts.sizes.output_tokens == last.sizes.output_tokens
            and facts.operation is last.operation
        )

    def reason(self, facts: Facts, now: float, keys_from: Mapping[str, float] | None = None) -> str | None:
        """Why an attempt may not be made now; None = it may. `keys_from`: when each key may be used, where that is not
        now for all of them."""
        amounts = None
        for reason, meter, position in self._plain:
            if position == REQUESTS:
                amount = 1.0
            else:
                amounts = amounts or self._expected(facts)
                amount = amounts[position]
            if not meter.admits(amount, now):
                return reason
        if not self._scoped and not self.keyed:
            if self._alone:
                self._admitted.last = facts
            return None
        amounts = amounts or self._expected(facts)
        found = _first(self._scoped, facts, amounts, now)
        if found is not None or not self.keyed:
            return found
        for key_id, each in self.keyed.items():
            if keys_from is not None and keys_from[key_id] > now:
                continue
            found = _first(each, facts, amounts, now)
            if found is None:
                return None
        return found

    def ready_at(self, facts: Facts, now: float, keys_from: Mapping[str, float] | None = None) -> float:
        """When an attempt may be made if nobody else takes anything until then; infinity = never."""
        amounts = self.amounts(facts)
        own = _ready_at(self.own, facts, amounts, now)
        keyed = (
            max(_ready_at(each, facts, amounts, now), now if keys_from is None else keys_from[key_id])
            for key_id, each in self.keyed.items()
        )
        return max(own, min(keyed, default=own))

    def key_admits(self, key_id: str, facts: Facts, now: float) -> bool:
        """Whether the limits of one key leave room; for whoever chooses among several."""
        return _first(self.keyed.get(key_id, ()), facts, self.amounts(facts), now) is None

    def reserve(self, facts: Facts, key: Key | None, now: float) -> Reservation:
        """For an attempt that is about to be sent with `key`."""
        self._admitted.last = None
        made = Reservation(self.amounts(facts), now, self._admitted)
        for allowances in (self.own, () if key is None else self.keyed.get(key.id, ())):
            for each in allowances:
                if each.covers(facts):
                    made.add(each.meter(facts, now), each.quota.quantity)
        return made

    def outputs(self, operation: Operation) -> Outputs:
        found = self._outputs.get(operation)
        if found is None:
            found = self._outputs[operation] = Outputs()
        return found

    def remaining(self, now: float) -> dict[str, float]:
        """Of its own limits, by reason; the budgets of others are not among them."""
        own = {each.reason: each.left(now) for each in self.own if isinstance(each, Single) and not each.budget}
        for key_id, allowances in self.keyed.items():
            for each in allowances:
                if isinstance(each, Single) and not each.budget:
                    own[f"{each.reason}:{key_id}"] = each.left(now)
        return own


def _first(allowances: Iterable[Allowance], facts: Facts, amounts: Sequence[float], now: float) -> str | None:
    for each in allowances:
        if each.covers(facts) and not each.admits(facts, amounts[POSITION[each.quota.quantity]], now):
            return each.reason
    return None


def _ready_at(allowances: Iterable[Allowance], facts: Facts, amounts: Amounts, now: float) -> float:
    ready = now
    for each in allowances:
        if each.covers(facts):
            ready = max(ready, each.ready_at(facts, amounts[POSITION[each.quota.quantity]], now))
            if ready == inf:
                break
    return ready
