"""What outlives the router's actor: the generation, the policies' memory, the seeds, the counters.

A restarted router goes on where the crashed one stopped. All methods are synchronous and belong to one Trio thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from random import Random

import trio

from spear.ir import RequestEnvelope

from ._counts import Counts
from ._decide import Plan, decide
from ._explain import Explanation, explain
from ._facts import Facts, facts_of
from ._failures import Fault
from ._registry import Generation
from .policies import POLICIES, Change, Memory

_NOBODY: frozenset[str] = frozenset()


class Desk:
    """`rng` gives the seed of each decision; seed it to make a run repeatable."""

    __slots__ = ("_memory", "_rng", "counts", "generation")

    def __init__(self, generation: Generation, *, rng: Random | None = None) -> None:
        self.generation = generation
        self.counts = Counts()
        self._memory = Memory()
        self._rng = rng or Random()

    def decide(self, facts: Facts, now: float, exclude: AbstractSet[str] = _NOBODY) -> Plan:
        """Decide for real: the policy remembers it."""
        generation = self.generation
        seed = self._rng.getrandbits(64)
        plan, change = decide(generation, generation.instances, facts, self._memory, seed, now, exclude=exclude)
        if change is not None:
            self._memory.apply(change)
        return plan

    def settle(self, plan: Plan, fault: Fault) -> None:
        """Let the policy of `plan` know that its choice failed."""
        settle = POLICIES[plan.policy].settle
        if settle is None or plan.change is None or plan.choice is None or not fault.rule.counts:
            return
        key = plan.change.key
        state = self._memory.get(key)
        if state is not None:
            self._memory.apply(Change(key, settle(state, plan.choice.position)))

    def explain(self, request: RequestEnvelope) -> Explanation:
        """What would be decided next for `request`, with the very seed that is next. Nothing is sent, nothing
        changes."""
        state = self._rng.getstate()
        seed = self._rng.getrandbits(64)
        self._rng.setstate(state)
        generation = self.generation
        plan, _ = decide(generation, generation.instances, facts_of(request), self._memory, seed, trio.current_time())
        return explain(generation, plan, request.request_id)

    def observe(self) -> Mapping[str, object]:
        return {
            "generation": self.generation.number,
            **self.counts.observe(self.generation.instances),
        }
