"""The course of one request: which attempt comes next, and with which error it ends. No I/O.

At most `max_attempts` sends: first each instance once, but for one free retry where nothing could be sent and for
another of its keys where it refused one; then the same ones again after a backoff or what they asked for. An instance
whose mailbox is full is passed over; that is no send. When nobody with the model is left, the route's fallback classes
follow. When nobody is well, the course waits, panics or fails, as configured.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Final

import trio

from actors import Ref
from spear.backends import BackendMessage
from spear.ir import (
    CanonicalError,
    Clock,
    ErrorCode,
    Operation,
    RequestEnvelope,
    ResponseEnvelope,
    make_error,
)

from ._again import Again
from ._attempts import Attempts
from ._continuation import CONTINUED
from ._decide import RETRY_HINT_MS, Plan
from ._desk import Desk, jitter_of
from ._external import Consult
from ._facts import Facts, facts_of
from ._failures import Fault
from ._hedge import quota_mates
from ._instance import Instance
from ._leg import Leg, Pause
from ._respond import failed_response, send_model
from ._routes import find_route
from ._verdict import Verdict
from .degrade import narrowed
from .keys import KEYS_COOLING, KeyState, Pool
from .keys import Trail as KeyTrail
from .record import Step, Trail

_FAIR_S: Final = 1.0
"""An attempt that was given less than this by its caller's deadline proves nothing about the instance; neither does one
that was answering when the caller's time ran out."""


class Course(Attempts):
    """`arrived` and `upstream` (the asker's own deadline) are on Trio's clock."""

    __slots__ = (
        "_again", "_asked", "_classes", "_facts", "_free", "_give_up", "_hint_ms", "_key_trail", "_larger", "_last",
        "_left", "_lessened", "_nobody", "_plan", "_rest", "_retried", "_sampled", "_tried", "_upstream", "_verdicts",
        "deadline",
    )  # fmt: skip

    def __init__(self, desk: Desk, request: RequestEnvelope, arrived: float, upstream: float) -> None:
        if (allowed := desk.generation.config.allow_degradation) is not None:
            request = narrowed(request, allowed)
        super().__init__(desk, request, arrived)
        generation = self.generation
        limits = generation.config.router
        timeout = limits.default_timeout_s if request.timeout_ms is None else request.timeout_ms / 1000
        self.deadline = arrived + timeout
        self._facts = desk.facts(request)
        desk.begun(self._facts)
        self._asked = [self._facts]  # of the class that is asked for, then of the fallback classes
        self._classes: Iterator[str] | None = None  # of the route's fallback, once it is needed
        self._left = limits.max_attempts
        if generation.routed_attempts:
            self._left = find_route(generation.routes, self._facts).max_attempts or self._left
        self._tried: dict[str, Instance] = {}
        self._key_trail: KeyTrail | None = None  # once an attempt with a key has failed
        self._again = Again(generation.config.retries)
        self._free: Leg | None = None  # to be repeated at once
        self._retried = False
        self._plan: Plan | None = None  # the latest
        self._nobody: CanonicalError | None = None  # of the first decision that found nobody
        self._last: CanonicalError | None = None
        self._give_up: float | None = None  # when it has waited long enough for somebody's recovery
        self._hint_ms: int | None = None
        self._larger = False  # it was too long for the class that was asked for
        self._lessened = False  # it was looked whether less could be asked for
        self._rest = False  # what is asked for is the rest of a stream that broke off
        self._sampled: bool | None = None  # once something was decided
        self._upstream = upstream
        self._verdicts: dict[str, Verdict] = {}  # by external filter

    # --- forward ----------------------------------------------------------------------------------------

    def next(self) -> Leg | Pause | Consult | None:
        """The next attempt, or a pause or a question before it, or None: then `error` says why."""
        if self.generation is not self.desk.generation:
            self._move()
        now = trio.current_time()
        if now >= self.deadline:
            clock: Clock = "total" if self.attempts else "queue"
            self._last = make_error(
                ErrorCode.TIMEOUT, f"out of time ({clock})", clock=clock, operation=self.request.operation
            )
            return None
        if self.generation.filters and (question := self._unasked()) is not None:
            return question
        free, self._free = self._free, None
        if free is not None and free.ref.status == "running" and self._well(free, now):
            self.desk.counts.connect_retries += 1
            return self._leg(free.plan, free.instance, free.ref, "connect_retry", now)
        if self._left == 0:
            return None
        plan = self._decide(now)
        if isinstance(plan, Consult):
            return plan
        if plan.chosen is None and self.request.degradation.mode == "allow" and self._lessen(now):
            return self.next()
        if plan.chosen is not None:
            reason = CONTINUED if self._rest else "fallback" if self.attempts else "chosen"
            if plan.chosen.name in self._tried and not self._rest:
                reason = "another_key"
            self.desk.counts.fallbacks += reason == "fallback"
            self.desk.counts.another_key += reason == "another_key"
            self.desk.counts.continued += self._rest
            return self._send(plan, reason, now)
        return None if plan.refused else self._repeat(now) or self._exhausted(now)

    @property
    def _op(self) -> Operation:
        return self.request.operation

    def _well(self, leg: Leg, now: float) -> bool:
        """Whether its instance may be sent the same again. What it had reserved may be somebody else's by now."""
        instance = leg.instance
        return (
            instance.health.reason(self._op, now) is None
            and instance.keys_reason(now) is None
            and instance.limited(leg.plan.facts, now) is None
        )

    def _closed(self, now: float) -> AbstractSet[str]:
        """Those that were tried. One that refused a key, and has another one ready, is as good as any other."""
        return self._tried.keys() if self._key_trail is None else self._key_trail.closed(self._tried, now)

    def _ask(
        self, facts: Facts, now: float, exclude: AbstractSet[str], *, panic: bool = False, beside: bool = False
    ) -> Plan:
        """One decision; what is to be recorded of it is kept until the request has ended."""
        plan = self.desk.decide(facts, now, exclude, panic=panic, sampled=self._sampled, beside=beside)
        if self._sampled is None:
            self._sampled = plan.seed < self.desk.decisions.below
        step = plan.step
        if step is None and plan.error is not None:  # told only where the request fails
            step = Step(plan, None, None, self.desk.decisions.now(), news=False)
        if step is not None:
            if self._trail is None:
                self._trail = Trail(sampled=self._sampled)
            self._trail.decided(step)
        return plan

    def _decide(self, now: float) -> Plan | Consult:
        """Each decision passes the whole filter again, less those that were tried."""
        closed = self._closed(now)
        while True:
            plan = self._plan = self._ask(self._facts, now, closed)
            if plan.chosen is not None:
                return plan
            self._nobody = self._nobody or plan.error
            if plan.refused:
                return plan
            if self._classes is None:
                self._classes = iter(find_route(self.generation.routes, self._facts).fallback)
            model = next(self._classes, None)
            if model is None:
                return plan
            # The class has a route of its own, which did not allow the request's policy.
            self._facts = self._facts._replace(model=model, policy=None, policy_options=())
            self._asked.append(self._facts)
            if self.generation.filters and (question := self._unasked()) is not None:
                return question

    def _lessen(self, now: float) -> bool:
        """Nobody can take it as it stands: True where somebody could take what is asked for from here on. Only before
        anything was sent, and once."""
        refused = self._plan is not None and self._plan.refused
        less = None if self._lessened or self.attempts or refused else self.desk.lessen(self.request, now)
        self._lessened = True
        if less is None:
            return False
        self.request, self._facts = less
        self._asked, self._classes, self._nobody = [self._facts], None, None
        return True

    def _unasked(self) -> Consult | None:
        """The filter that still has to be asked, by the routes of the classes that came up; each only once. What the
        others said stands in their facts from here on."""
        for position, facts in enumerate(self._asked):
            known = self._with_verdict(facts)
            if isinstance(known, Consult):
                return known
            self._asked[position] = known
        self._facts = self._asked[-1]
        return None

    def _with_verdict(self, facts: Facts) -> Facts | Consult:
        name = find_route(self.generation.routes, facts).filter
        verdict = None if name is None else self._verdicts.get(name)
        if name is not None and verdict is None:
            return Consult(self.generation.filters[name], facts)
        return facts if facts.verdict is verdict else facts._replace(verdict=verdict)

    def heard(self, verdict: Verdict) -> None:
        """What a filter said of this request. It holds for all that follows, until a reload."""
        self._verdicts[verdict.filter] = verdict

    def _repeat(self, now: float) -> Leg | Pause | Consult | None:
        """One that was tried already, through the whole filter again; the one that is due first."""
        first = math.inf
        for repeat in self._again.waiting():
            if repeat.due >= first:
                break
            others = self.generation.by_name.keys() - {repeat.name}
            facts = self._with_verdict(repeat.facts) if self.generation.filters else repeat.facts
            if isinstance(facts, Consult):
                return facts
            plan = self._ask(facts, now, others)
            if plan.chosen is None:
                first = min(first, self._cooled(plan, repeat.name, repeat.due, now))
                continue
            if repeat.due > now:
                return self._pause(Pause(repeat.due))
            if not self.desk.may_repeat(plan.chosen):
                return None
            self.desk.counts.retries += 1
            return self._send(plan, "retry", now)
        return None if first == math.inf else self._pause(Pause(first))

    def _cooled(self, plan: Plan, name: str, due: float, now: float) -> float:
        """When the instance `name`, due then, may be asked again as far as its keys go; infinity where that is too
        late, or no matter of cooling keys."""
        if plan.rejected.get(name) != KEYS_COOLING:
            return math.inf
        at = max(due, self.generation.by_name[name].keys_ready_at(now))
        return at if at < self.deadline and at - now <= self.generation.config.retries.retry_after_max_s else math.inf

    def _exhausted(self, now: float) -> Leg | Pause | None:
        """Nobody is admissible. Where that is because nobody is well, what the host has configured."""
        config, spent = self.generation.config, self._again.spent
        unwell = [plan for facts in self._asked if (plan := self.desk.peek(facts, now, spent)).recovery is not None]
        if not unwell:
            return None
        first = min(unwell, key=lambda plan: plan.recovery or 0.0)
        assert first.error is not None
        assert first.recovery is not None
        self._nobody, self._hint_ms = first.error, first.error.retry_after_ms
        on_exhausted = find_route(self.generation.routes, self._asked[0]).on_exhausted or config.on_exhausted
        if on_exhausted == "panic":
            plan = self._ask(first.facts, now, self._closed(now) | spent, panic=True)
            self.desk.counts.panics += plan.chosen is not None
            return None if plan.chosen is None else self._send(plan, "panic", now)
        if on_exhausted == "fail":
            return None
        if self._give_up is None:
            self._give_up = now + config.health.max_wait_s
            self.desk.counts.waited += 1
        if first.recovery >= self.deadline or first.recovery > self._give_up:
            return None
        return self._pause(Pause(first.recovery, self.desk.bell))

    def take_up(self, rest: RequestEnvelope, broken: Leg) -> None:
        """From here on `rest` is what is asked for, and never from the instance that broke off."""
        sizes = facts_of(rest)
        self.request, self._rest, self._free = rest, True, None
        self._facts = broken.plan.facts._replace(
            sizes=sizes.sizes, input_tokens=sizes.input_tokens, tokens=sizes.tokens
        )
        self._asked, self._classes = [self._facts], None
        self._tried[broken.instance.name] = broken.instance
        self._again.refused(broken.instance.name)

    def beside(self, running: Iterable[Leg], reason: str) -> Leg | None:
        """One more attempt beside those that are `running`, at another instance of another quota group; None where
        there is none."""
        if self.generation is not self.desk.generation:
            self._move()
        now, legs = trio.current_time(), tuple(running)
        if self._left == 0 or now >= self.deadline:
            return None
        facts = legs[0].plan.facts
        if self.generation.filters or facts.verdict is not None:
            known = self._with_verdict(facts)
            if isinstance(known, Consult):  # since a reload; what is late does not wait for a filter, too
                return None
            facts = known
        mates = quota_mates(self.generation.config, (leg.instance.name for leg in legs))
        plan = self._ask(facts, now, self._tried.keys() | mates, beside=True)
        self.desk.counts.fallbacks += reason == "fallback" and plan.chosen is not None
        return self._send(plan, reason, now)

    def _pause(self, pause: Pause) -> Pause | None:
        """Afterwards everything is looked at anew, from the class that is asked for. None where so many pause already
        that the router would have no room left for those that need not."""
        if self.desk.pausing >= max(1, self.generation.config.router.max_requests // 2):
            return None
        self._facts, self._classes = self._asked[0], None
        del self._asked[1:]
        return pause

    def _send(self, plan: Plan, reason: str, now: float) -> Leg | None:
        instance = plan.chosen
        if instance is None or instance.ref is None:
            return None
        self._left -= 1
        self._tried[instance.name] = instance
        leg = self._leg(plan, instance, instance.ref, reason, now)
        self._again.sent(instance.name)
        return leg

    def _move(self) -> None:
        """The configuration was reloaded since: what follows is the new generation's to decide. An instance that was
        replaced is another one, which was not tried. Attempts left and deadline stay."""
        self.generation = self.desk.generation
        by_name = self.generation.by_name
        gone = {name for name, each in self._tried.items() if by_name.get(name) is not each}
        self._tried = {name: each for name, each in self._tried.items() if name not in gone}
        self._again.move(self.generation.config.retries, gone)
        if self.generation.filters:
            self._free = None  # who may repeat it is for the filter to say
        if self._verdicts:
            self._verdicts.clear()
            self._asked = [each._replace(verdict=None) for each in self._asked]
            self._facts = self._asked[-1]

    def _leg(self, plan: Plan, instance: Instance, ref: Ref[BackendMessage], reason: str, now: float) -> Leg:
        request = send_model(self.request, instance.own_model or plan.facts.model)
        leg = Leg(plan, instance, ref, reason, request, now, self.desk.begin(plan, now))
        self._out.add(leg)
        if instance.pool is not None:
            leg.key = self._key(leg, instance, instance.pool, now)
        leg.limit(self.deadline, self._upstream)
        if instance.bounds is not None:
            leg.reservation = instance.bounds.reserve(plan.facts, leg.call.key, now)
        if self._again.begun:
            self.desk.budget.take(leg)
        self.desk.counts.attempts += 1
        instance.sent += 1
        return leg

    # --- what an attempt came to --------------------------------------------------------------------------

    def failed(self, leg: Leg, fault: Fault) -> bool:
        """Record it; True where another attempt may follow."""
        now, rule, instance = trio.current_time(), fault.rule, leg.instance
        self._record(leg, "failed", now, fault.error.code, fault)
        if self._primary is not None:
            self._primary.failed(leg, fault.error.code.value, now)
        instance.failed += 1
        self.desk.settle(leg.plan, fault)
        out_of_time = fault.error.code is ErrorCode.TIMEOUT and now >= self.deadline
        hasty = out_of_time and (now - leg.started < _FAIR_S or leg.first_event_at is not None)
        self.desk.judge(leg.plan, leg.trial, "failed" if rule.counts and not hasty else "neutral", now)
        self._out.discard(leg)
        if (rule.counts or rule.same_instance != "no") and not hasty:
            instance.throttle.failed()
        self._again.failed(instance.name, leg.plan.facts, fault, now, self.deadline, jitter_of(leg.plan))
        has_another_key = leg.key is not None and self._key_failed(leg, leg.key, fault, now)
        self._last = fault.error
        if rule.another_instance and not has_another_key:  # otherwise it is the request's, or the key's alone
            self._latency(leg).failed((leg.first_event_at or now) - leg.started, now)
        # A connect that timed out has had its time; a refused or reset one is worth the one free retry.
        free = rule.free_retry and not fault.actor_gone and fault.error.code is not ErrorCode.TIMEOUT
        if free and not self._retried:
            self._retried = True
            self._free = leg
        return rule.another_instance or (rule.another_class and self._to_larger(leg))

    def _to_larger(self, leg: Leg) -> bool:
        """It was too long for the model: on to the class that the route declares for that, once."""
        facts = leg.plan.facts
        larger = find_route(self.generation.routes, facts).context_fallback
        if larger is None or self._larger:
            return False
        self._larger = True
        self._facts = facts._replace(model=larger, policy=None, policy_options=())
        self._asked, self._classes = [self._facts], None
        return True

    def refused(self, leg: Leg) -> None:
        """Its mailbox was full: nothing was sent, the next candidate follows."""
        now = trio.current_time()
        self._record(leg, "refused", now, ErrorCode.OVERLOADED)
        self.desk.judge(leg.plan, leg.trial, "neutral", now)
        self._out.discard(leg)
        self._again.refused(leg.instance.name)
        leg.instance.refused += 1
        if leg.purse is not None:
            if leg.reason == "hedge":
                leg.purse.refund()
                self.desk.counts.hedges -= 1
            else:
                leg.purse.take_back()
        self.desk.counts.refused += 1
        if leg.reason != "connect_retry":
            self._left += 1

    def error(self) -> CanonicalError:
        """The error this course ends with: that of the last attempt that was sent, else that of the decision."""
        last = self._last
        if last is None and self.attempts:  # nothing but full mailboxes
            last = make_error(
                ErrorCode.OVERLOADED,
                "every backend that could take the request is full",
                retry_after_ms=RETRY_HINT_MS,
            )
        error = last or self._nobody
        assert error is not None
        update: dict[str, object] = {"operation": self.request.operation, "attempts": tuple(self.attempts)}
        if last is not None:
            update["candidates_checked"] = tuple(self.generation.by_name)
            update["rejected_reasons"] = {} if self._plan is None else self._plan.rejected
            if error.retry_after_ms is None and self._hint_ms is not None:
                update["retry_after_ms"] = self._hint_ms
        return error.model_copy(update=update)

    def failure(self) -> ResponseEnvelope:
        error = self.error()
        self.ended(error)
        return failed_response(self.request, error)

    def _key(self, leg: Leg, instance: Instance, pool: Pool, now: float) -> KeyState:
        facts, bounds = leg.plan.facts, instance.bounds
        has_room = None
        if bounds is not None and bounds.keyed:
            has_room = partial(bounds.key_admits, facts=facts, now=now)
        session = facts.affinity.session if len(pool.keys) > 1 else None
        return pool.take(leg, session, now, () if self._key_trail is None else self._key_trail.used, has_room)

    def _key_failed(self, leg: Leg, key: KeyState, fault: Fault, now: float) -> bool:
        """True where this was about the key, and the instance has another one for this request."""
        rule, name = fault.rule, leg.instance.name
        self.desk.keys.failed(key, leg, rule.key, fault.error, leg.started, now)
        if rule.free_retry:
            return False  # nothing was sent with it
        self._key_trail = trail = self._key_trail or KeyTrail()
        trail.failed(name, key, refused=rule.key != "keep")
        open_again = trail.open_again(name, leg.instance, now)
        if open_again:
            self._again.forgive(name)
        return open_again
