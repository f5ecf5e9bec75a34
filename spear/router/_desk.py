"""What outlives the router's actor: the generation, the policies' memory, the seeds, the counters.

A restarted router goes on where the crashed one stopped. All methods are synchronous and belong to one Trio thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from random import Random
from typing import TYPE_CHECKING, Any, Final

import trio

from spear.config import ALL_STEPS
from spear.ir import ErrorCode, RequestEnvelope
from spear.media import NO_MEDIA, MediaAccess

from ._bell import Bell
from ._case import Case
from ._counts import Counts
from ._decide import Plan, decide
from ._draws import Draws
from ._explain import Explanation, explain
from ._facts import Facts, facts_of
from ._failures import Fault
from ._filter import considered
from ._hedge import Purses
from ._instance import Instance
from ._moment import AT_ADMISSION
from ._registry import Generation
from ._retry import Budget, jitter
from ._routes import taus_of
from ._succession import Succession
from .degrade import lessened
from .health import Trial, Verdict, form_groups
from .keys import Ring
from .limits import Book, MeterFactory, local_meter
from .policies import POLICIES, Change, Memory
from .record import Decisions

if TYPE_CHECKING:
    from .mirrors import Mirroring

_JITTER_SALT: Final = 0x6A697474
_NOBODY: frozenset[str] = frozenset()
_LACKING: Final = frozenset({ErrorCode.MISSING_CAPABILITIES, ErrorCode.NO_CANDIDATE_BACKEND})


class Desk:
    """`rng` gives the seed of each decision; seed it to make a run repeatable. `meters` makes what limits are counted
    by."""

    __slots__ = (
        "_memory", "_rng", "bell", "budget", "counts", "decisions", "generation", "keys", "limits", "media",
        "mirroring", "pausing", "purses", "stirred",
    )  # fmt: skip

    def __init__(
        self, generation: Generation, *, rng: Random | None = None, meters: MeterFactory = local_meter
    ) -> None:
        self.generation = generation
        form_groups(generation.instances, generation.config.health)
        self.keys = Ring()
        self.keys.hold(generation.config, generation.instances)
        self.limits = Book(meters)
        self.limits.open(generation.config, generation.instances)
        self.counts = Counts()
        self._memory = Memory()
        self._rng = rng or Random()
        self.bell = Bell()
        self.stirred = Bell()
        """Rings for active probes: a breaker is not closed, or another configuration holds."""
        self.budget = Budget()
        self.purses = Purses()
        self.decisions = Decisions(generation.config.decisions)
        self.mirroring: Mirroring | None = None
        """There once a route mirrors."""
        self.media: MediaAccess = NO_MEDIA
        """What adapters are lent."""
        self.pausing = 0
        """Requests that wait between attempts."""

    def switch(self, succession: Succession) -> None:
        """From here on the new generation holds; whoever it needs has been started. Decisions of requests that are
        under way are made by it, too, and those that wait for somebody's recovery look again."""
        for instance, own in succession.adjusted:
            instance.adjust(own)
        for instance in succession.leaving:
            instance.health.group = None
        generation = self.generation = succession.generation
        config, taus = generation.config, taus_of(generation.config)
        for instance in generation.instances:
            instance.tune(config.health, config.retries, taus)
        form_groups(generation.instances, config.health)
        self.keys.hold(config, generation.instances)
        self.limits.open(config, generation.instances)
        self.purses.switch((route.match, route.hedge) for route in generation.routes if route.hedge is not None)
        self.decisions.tune(config.decisions)
        self.bell.ring()
        self.stirred.ring()

    def begun(self, facts: Facts) -> None:
        """A request of `facts` is under way."""
        if facts.degraded or self.limits.warns:
            self.limits.begun(facts, trio.current_time())

    def facts(self, request: RequestEnvelope) -> Facts:
        """Of the class that the budgets leave to it."""
        facts = facts_of(request)
        return self.limits.degraded(facts, trio.current_time()) if self.limits.degrades else facts

    def decide(
        self,
        facts: Facts,
        now: float,
        exclude: AbstractSet[str] = _NOBODY,
        *,
        panic: bool = False,
        sampled: bool | None = None,
        beside: bool = False,
    ) -> Plan:
        """Decide for real: the policy remembers it, and where it is to be recorded, the plan has its `step`. `sampled`
        is None for the first decision of a request, whose seed says it. `beside` another attempt that is running: that
        nobody is found then is no news."""
        generation = self.generation
        seed = self._rng.getrandbits(64)
        plan, change = decide(
            generation, generation.instances, facts, self._memory, seed, now, exclude=exclude, panic=panic
        )
        if sampled is None:
            sampled = seed < self.decisions.below
        if self.limits.limiting and plan.rejected:
            self.limits.refused(plan.rejected, AT_ADMISSION)
        if sampled or (plan.error is not None and not beside):
            state = None if change is None else self._memory.get(change.key)
            step = self.decisions.look(generation, plan, state, now, exclude, panic=panic, sampled=sampled)
            plan = plan._replace(step=step)
        if change is not None:
            self._memory.apply(change)
        return plan

    def peek(self, facts: Facts, now: float, exclude: AbstractSet[str]) -> Plan:
        """What there would be to decide: nothing remembers it."""
        generation = self.generation
        return decide(generation, generation.instances, facts, self._memory, 0, now, exclude=exclude)[0]

    def considered(self, facts: Facts, now: float) -> Sequence[Instance]:
        """Whom an external filter may speak of."""
        generation = self.generation
        task = None if facts.task_id is None else generation.tasks.get(facts.task_id)
        case = Case(facts, task, _NOBODY, now)
        return considered(generation.instances, case, generation.remembered).candidates

    def begin(self, plan: Plan, now: float) -> Trial | None:
        """The choice of `plan` is sent a request."""
        if plan.chosen is None:
            return None
        health = plan.chosen.health
        return health.begin(
            plan.facts.operation, now, 1.0 if health.quiet else jitter_of(plan)
        )  # only a probe needs it

    def judge(self, plan: Plan, trial: Trial | None, verdict: Verdict, now: float) -> None:
        """What that came to."""
        if trial is None or plan.chosen is None:
            return
        plan.chosen.health.settle(trial, verdict, now, jitter_of(plan) if verdict == "failed" else 1.0)
        if trial.probe:
            self.bell.ring()
        if not trial.breaker.closed:
            self.stirred.ring()

    def may_repeat(self, instance: Instance) -> bool:
        """Whether a request may be sent to `instance` once more, by its throttle and the budget of all."""
        active = self.counts.active
        allowed = instance.throttle.allows and self.budget.allows(active, self.generation.config.retries)
        self.counts.retries_denied += not allowed
        return allowed

    def may_hedge(self) -> bool:
        """Whether an attempt may go out beside one that is still running, by the budget of all."""
        return self.budget.allows(self.counts.active, self.generation.config.retries)

    def settle(self, plan: Plan, fault: Fault) -> None:
        """Let the policy of `plan` know that its choice failed."""
        settle = POLICIES[plan.policy].settle
        if settle is None or plan.change is None or plan.choice is None or not fault.rule.counts:
            return
        key = plan.change.key
        state = self._memory.get(key)
        if state is not None:
            self._memory.apply(Change(key, settle(state, plan.choice.position)))

    def lessen(self, request: RequestEnvelope, now: float) -> tuple[RequestEnvelope, Facts] | None:
        """The request that asks for less, by the fewest steps that it and the host allow, and its facts; None where
        that would help nobody to take it."""
        found: list[Facts] = []

        def admits(less: RequestEnvelope) -> bool:
            facts = self.facts(less)
            plan = self.peek(facts, now, _NOBODY)
            found.append(facts)
            return plan.error is None or plan.error.code not in _LACKING

        allowed = self.generation.config.allow_degradation
        less = lessened(request, ALL_STEPS if allowed is None else allowed, admits)
        if less is None:
            return None
        facts = found[-1]
        return less[0], facts._replace(degraded=(*facts.degraded, *less[1]))

    def explain(self, request: RequestEnvelope) -> Explanation:
        """What would be decided next for `request`, with the very seed that is next. Nothing is sent, nothing
        changes."""
        state = self._rng.getstate()
        seed = self._rng.getrandbits(64)
        self._rng.setstate(state)
        generation = self.generation
        now = trio.current_time()
        plan, _ = decide(generation, generation.instances, self.facts(request), self._memory, seed, now)
        if plan.chosen is None and request.degradation.mode == "allow" and (less := self.lessen(request, now)):
            plan, _ = decide(generation, generation.instances, less[1], self._memory, seed, now)
            done = f"done less well: {', '.join(less[1].degraded)}"
            plan = plan._replace(note=f"{done}; {plan.note}" if plan.note else done)
        return explain(generation, plan, request.request_id, now)

    def observe(self) -> Mapping[str, object]:
        now = trio.current_time()
        observed: dict[str, object] = {
            "generation": self.generation.number,
            **self.counts.observe(self.generation.instances, now),
            "keys": self.keys.observe(now),
            "decisions": self.decisions.observe(),
        }
        if self.limits.budgets:
            observed["budgets"] = self.limits.observe(now)
        if self.limits.limiting:
            observed.update(self.limits.counts.observe())
        return observed

    def usage(self) -> dict[str, Any]:
        """What is left of rates and budgets."""
        now = trio.current_time()
        bounds = {each.name: each.bounds for each in self.generation.instances if each.bounds is not None}
        return {
            "backends": {name: left for name, each in bounds.items() if (left := each.remaining(now))},
            "budgets": self.limits.observe(now),
        }


def jitter_of(plan: Plan) -> float:
    """Drawn from the decision's own seed, so that it repeats with it."""
    return jitter(Draws(plan.seed ^ _JITTER_SALT).random())
