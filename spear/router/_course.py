"""The course of one request: which attempt comes next, what each came to, and how it ends. No I/O.

At most `max_attempts` sends, each instance once, but for one free retry where nothing could be sent. An instance whose
mailbox is full is passed over; that is no send. When nobody with the model is left, the route's fallback classes
follow. The course ends exactly once, as ok, failed or cancelled.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

import trio

from actors import Ref
from spear.backends import Answer, BackendMessage, Call
from spear.ir import (
    Attempt,
    BackendInfo,
    CanonicalError,
    Clock,
    ErrorCode,
    Failure,
    RealtimeRequest,
    RequestEnvelope,
    ResponseEnvelope,
    Result,
    Usage,
    make_error,
)
from spear.telemetry import get_logger

from ._decide import RETRY_HINT_MS, Plan
from ._desk import Desk
from ._facts import facts_of
from ._failures import Fault
from ._instance import Instance
from ._routes import find_route
from ._usage import settle_usage

_log = get_logger("spear.router")
Outcome = Literal["ok", "failed", "refused", "superseded", "cancelled"]
FIRST_EVENT_S: Final = 60.0
"""The first-event clock where the configuration leaves it to the router."""


class Leg:
    """One attempt: at whom, with what, until when. Times on Trio's clock."""

    __slots__ = ("call", "deadline", "first_event_at", "instance", "plan", "reason", "ref", "request", "started")

    def __init__(
        self,
        plan: Plan,
        instance: Instance,
        ref: Ref[BackendMessage],
        reason: str,
        request: RequestEnvelope,
        started: float,
    ) -> None:
        self.plan = plan
        self.instance = instance
        self.ref = ref
        self.reason = reason
        self.request = request
        self.started = started
        self.first_event_at: float | None = None

    def limit(self, deadline: float, upstream: float) -> None:
        """`deadline` is the request's; `upstream` is that of whoever asked, if it is earlier."""
        timeouts = self.instance.config.timeouts
        self.deadline = min(deadline, self.started + timeouts.total)
        self.call = Call(
            deadline=min(self.deadline, upstream),
            connect=timeouts.connect,
            first_event=timeouts.first_event or FIRST_EVENT_S,
            idle=timeouts.idle,
            key=self.instance.key(),
        )


class Course:
    """`arrived` and `upstream` (the asker's own deadline) are on Trio's clock."""

    __slots__ = (
        "_again", "_classes", "_facts", "_last", "_left", "_nobody", "_plan", "_retried", "_tried", "_upstream",
        "arrived", "attempts", "deadline", "desk", "generation", "request",
    )  # fmt: skip

    def __init__(self, desk: Desk, request: RequestEnvelope, arrived: float, upstream: float) -> None:
        self.desk = desk
        self.generation = generation = desk.generation
        self.request = request
        self.arrived = arrived
        limits = generation.config.router
        timeout = limits.default_timeout_s if request.timeout_ms is None else request.timeout_ms / 1000
        self.deadline = arrived + timeout
        self.attempts: list[Attempt] = []
        self._facts = facts_of(request)
        self._classes: Iterator[str] | None = None  # of the route's fallback, once it is needed
        self._left = limits.max_attempts
        self._tried: set[str] = set()
        self._again: Leg | None = None
        self._retried = False
        self._plan: Plan | None = None  # the latest
        self._nobody: CanonicalError | None = None  # of the first decision that found nobody
        self._last: CanonicalError | None = None
        self._upstream = upstream
        desk.counts.requests += 1

    # --- forward ----------------------------------------------------------------------------------------

    def next(self) -> Leg | None:
        """The next attempt, or None: then `error` says why."""
        now = trio.current_time()
        if now >= self.deadline:
            clock: Clock = "total" if self.attempts else "queue"
            self._last = make_error(
                ErrorCode.TIMEOUT, f"out of time ({clock})", clock=clock, operation=self.request.operation
            )
            return None
        again, self._again = self._again, None
        if again is not None and again.ref.status == "running":
            self.desk.counts.connect_retries += 1
            return self._leg(again.plan, again.instance, again.ref, "connect_retry", now)
        if self._left == 0:
            return None
        plan = self._decide(now)
        if plan.chosen is None or plan.chosen.ref is None:
            return None
        self._left -= 1
        self._tried.add(plan.chosen.name)
        reason = "fallback" if self.attempts else "chosen"
        self.desk.counts.fallbacks += reason == "fallback"
        return self._leg(plan, plan.chosen, plan.chosen.ref, reason, now)

    def _decide(self, now: float) -> Plan:
        """Each decision passes the whole filter again, less those that were tried."""
        while True:
            plan = self._plan = self.desk.decide(self._facts, now, self._tried)
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

    def _leg(self, plan: Plan, instance: Instance, ref: Ref[BackendMessage], reason: str, now: float) -> Leg:
        request = send_model(self.request, instance.own_model or self._facts.model)
        leg = Leg(plan, instance, ref, reason, request, now)
        leg.limit(self.deadline, self._upstream)
        self.desk.counts.attempts += 1
        instance.sent += 1
        return leg

    # --- what an attempt came to --------------------------------------------------------------------------

    def timed_out(self, leg: Leg, clock: Clock) -> Fault:
        message = f"backend {leg.instance.name} took too long ({clock})"
        return Fault(make_error(ErrorCode.TIMEOUT, message, clock=clock), Failure.SERVER)

    def failed(self, leg: Leg, fault: Fault) -> bool:
        """Record it; True where another attempt may follow."""
        self._record(leg, "failed", trio.current_time(), fault.error.code)
        leg.instance.failed += 1
        self.desk.settle(leg.plan, fault)
        self._last = fault.error
        rule = fault.rule
        # A connect that timed out has had its time; a refused or reset one is worth the one free retry.
        free = rule.free_retry and not fault.actor_gone and fault.error.code is not ErrorCode.TIMEOUT
        if free and not self._retried:
            self._retried = True
            self._again = leg
        return rule.another_instance

    def refused(self, leg: Leg) -> None:
        """Its mailbox was full: nothing was sent, the next candidate follows."""
        self._record(leg, "refused", trio.current_time(), ErrorCode.OVERLOADED)
        leg.instance.refused += 1
        self.desk.counts.refused += 1
        if leg.reason != "connect_retry":
            self._left += 1

    def left(self, leg: Leg) -> None:
        """The caller went away during this attempt."""
        self._record(leg, "cancelled", trio.current_time())
        self.desk.counts.cancelled += 1

    def answered(self, leg: Leg, answer: Answer) -> ResponseEnvelope:
        now = trio.current_time()
        self._record(leg, "ok", now)
        self.desk.counts.ok += 1
        usage = settle_usage(answer.usage, leg.plan.facts, answer.payload, leg.instance.config.price)
        return ResponseEnvelope(
            request_id=self.request.request_id,
            operation=self.request.operation,
            backend=self._info(leg, answer, now),
            result=Result(payload=answer.payload),
            usage=usage,
            raw=answer.raw if self.generation.config.debug_raw else None,
        )

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
        return error.model_copy(update=update)

    def ended(self, error: CanonicalError) -> None:
        """A failure is counted, and the host's log has what callers do not get to see: who was refused, and why."""
        self.desk.counts.failed(error.code)
        _log.info(
            "request_failed",
            request_id=self.request.request_id,
            code=error.code.value,
            message=error.message,
            rejected=error.rejected_reasons,
            attempts=[f"{each.backend}: {each.error_code or each.outcome}" for each in error.attempts],
        )

    def failure(self) -> ResponseEnvelope:
        error = self.error()
        self.ended(error)
        return failed_response(self.request, error)

    def partial_usage(self, leg: Leg, usage: Usage | None, chars: int) -> Usage:
        """What a broken stream used: what the backend said, else what passed through."""
        return settle_usage(usage or Usage(), leg.plan.facts, chars, leg.instance.config.price)

    def _record(self, leg: Leg, outcome: Outcome, now: float, code: ErrorCode | None = None) -> None:
        self.attempts.append(
            Attempt(
                backend=leg.instance.name,
                key_id=None if leg.call.key is None else leg.call.key.id,
                reason=leg.reason,
                outcome=outcome,
                started_ms=max(0.0, (leg.started - self.arrived) * 1000),
                elapsed_ms=(now - leg.started) * 1000,
                error_code=code,
            )
        )

    def _info(self, leg: Leg, answer: Answer, now: float) -> BackendInfo:
        first = leg.first_event_at
        return BackendInfo(
            name=leg.instance.name,
            kind=leg.instance.kind_name,
            model=answer.model or leg.request.model,
            latency_ms=max(0.0, (now - self.arrived) * 1000),
            first_event_ms=None if first is None else max(0.0, (first - self.arrived) * 1000),
            attempts=tuple(self.attempts),
            degraded=answer.degraded,
            generation=self.generation.number,
        )


def failed_response(request: RequestEnvelope, error: CanonicalError) -> ResponseEnvelope:
    return ResponseEnvelope(request_id=request.request_id, operation=request.operation, result=Result(error=error))


def send_model(request: RequestEnvelope, model: str) -> RequestEnvelope:
    """`request` asking for `model`, the backend's own name for it."""
    payload = request.payload
    if payload.model == model:
        return request
    changed: object
    if isinstance(payload, RealtimeRequest):
        changed = payload.model_copy(update={"session": payload.session.model_copy(update={"model": model})})
    else:
        changed = payload.model_copy(update={"model": model})
    return request.model_copy(update={"payload": changed})
