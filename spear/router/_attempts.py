"""What the attempts of one request hold, and what each came to: recorded, settled and told to whom it concerns.

However an attempt ends, what it held is given back once: its reservation, its place in the retry budget, its probe of a
breaker or a key. However the request ends, it is counted once, as ok, failed or cancelled. No I/O.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from spear.backends import Answer
from spear.ir import Attempt, CanonicalError, ErrorCode, RequestEnvelope, ResponseEnvelope, Usage, trusted
from spear.telemetry import get_logger

from ._desk import Desk
from ._failures import Fault
from ._hedge import fraction_of
from ._latency import Latency
from ._leg import Leg, Outcome
from ._respond import backend_info, ok_response
from ._routes import find_route
from ._settle import settle_leg
from ._usage import settle_usage
from .degrade import restored
from .record import Ending, Trail

if TYPE_CHECKING:
    from .mirrors import Mirroring, Primary

_log = get_logger("spear.router")
_attempt = trusted(Attempt)


class Attempts:
    """`arrived` is on Trio's clock."""

    __slots__ = ("_out", "_over", "_primary", "_trail", "arrived", "attempts", "desk", "generation", "request")

    def __init__(self, desk: Desk, request: RequestEnvelope, arrived: float) -> None:
        desk.counts.requests += 1  # first: whatever becomes of it is counted, too
        self.desk = desk
        self.generation = desk.generation
        self.request = request
        self.arrived = arrived
        self.attempts: list[Attempt] = []
        self._out: set[Leg] = set()  # attempts that hold something
        self._over = False
        self._trail: Trail | None = None
        self._primary: Primary | None = None  # for who compares a mirrored request, once it is known whether it is one

    def committed(self, leg: Leg) -> None:
        """A stream has its first content: this is its time, however long it goes on."""
        now = leg.first_event_at = trio.current_time()
        self._answered_in_time(leg, now)
        self.desk.judge(leg.plan, leg.trial, "proved", now)
        self._key_answered(leg, now)
        if self.desk.mirroring is not None:
            self._follow(self.desk.mirroring, leg)

    def won(self, leg: Leg) -> None:
        """It was the first of several with something to show; the others are being ended."""
        self._answered_in_time(leg, trio.current_time())
        self.desk.counts.hedges_won += leg.reason == "hedge"

    def answered(self, leg: Leg, answer: Answer) -> ResponseEnvelope:
        now = trio.current_time()
        if leg.plan.facts.degraded:
            answer = restored(answer, leg.plan.facts.degraded)
        usage = settle_usage(answer.usage, leg.plan.facts, answer.payload, leg.instance.config.price)
        leg.usage = usage
        self._record(leg, "ok", now)
        self._answered_in_time(leg, now)
        self.desk.judge(leg.plan, leg.trial, "succeeded", now)
        self._key_answered(leg, now)
        leg.instance.throttle.succeeded()
        if self.desk.mirroring is not None:
            self._follow(self.desk.mirroring, leg).answered(leg, answer, now)
        self._out.discard(leg)
        self.desk.counts.ok += 1
        self._close("ok", now)
        backend = backend_info(leg, answer, self.arrived, now, self.attempts, self.generation.number)
        return ok_response(self.request, backend, answer, usage, raw=self.generation.config.debug_raw)

    def superseded(self, leg: Leg) -> None:
        """It was ended because another attempt had won, or had shown that none can."""
        elapsed = self._given_up(leg, "superseded")
        self.desk.counts.superseded += 1
        hedge = find_route(self.generation.routes, leg.plan.facts).hedge
        if hedge is not None and not leg.timed:
            self._latency(leg).outlasted(elapsed, fraction_of(hedge))

    def left(self, leg: Leg) -> None:
        """The caller went away during this attempt."""
        self._given_up(leg, "cancelled")
        self.desk.counts.cancelled += 1
        self._close("cancelled", trio.current_time())

    def left_race(self, *, won: bool) -> None:
        """The caller went away during several attempts at once. One that had `won` and is over has been counted."""
        counts = bool(self._out) or not won
        for leg in sorted(self._out, key=lambda each: each.started):
            self._given_up(leg, "cancelled")
        if counts:
            self.left_between()

    def left_between(self) -> None:
        """The caller went away during a pause."""
        self.desk.counts.cancelled += 1
        self._close("cancelled", trio.current_time())

    def _given_up(self, leg: Leg, outcome: Outcome) -> float:
        now = trio.current_time()
        elapsed = now - leg.started
        self._record(leg, outcome, now)
        if self._primary is not None:
            self._primary.left(leg, now)
        self.desk.judge(leg.plan, leg.trial, "neutral", now)
        self._out.discard(leg)
        if not leg.timed:
            self._latency(leg).given_up(elapsed, now)
        return elapsed

    def abandoned(self) -> None:
        """A bug of ours ended the request: what its attempts hold is given back, however far their ends had come. It
        is counted, unless it had ended already."""
        now = trio.current_time()
        for leg in self._out:
            self.desk.budget.give_back(leg)
            self.desk.judge(leg.plan, leg.trial, "neutral", now)
            if leg.key is not None:
                leg.key.release(leg)
            if leg.reservation is not None and leg.reservation.open:
                leg.reservation.keep(now)
            if self._primary is not None:
                self._primary.failed(leg, ErrorCode.INTERNAL.value, now)
        self._out.clear()
        if not self._over:
            self.desk.counts.failed(ErrorCode.INTERNAL)
            self._close("failed", now, ErrorCode.INTERNAL)

    def ended(self, error: CanonicalError) -> None:
        """A failure is counted, and the host's log has what callers do not get to see: who was refused, and why."""
        self.desk.counts.failed(error.code)
        self._close("failed", trio.current_time(), error.code)
        _log.info(
            "request_failed",
            request_id=self.request.request_id,
            code=error.code.value,
            message=error.message,
            rejected=error.rejected_reasons,
            attempts=[f"{each.backend}: {each.error_code or each.outcome}" for each in error.attempts],
        )

    def partial_usage(self, leg: Leg) -> Usage:
        """What a stream has used so far: what the backend said, else what passed through."""
        return settle_usage(leg.usage or Usage(), leg.plan.facts, leg.chars, leg.instance.config.price)

    def _answered_in_time(self, leg: Leg, now: float) -> None:
        if not leg.timed:
            leg.timed = True
            self._latency(leg).answered(now - leg.started, now)

    def _latency(self, leg: Leg) -> Latency:
        return leg.instance.latency(leg.plan.facts.timing)

    def _key_answered(self, leg: Leg, now: float) -> None:
        if leg.instance.keys_troubled and leg.key is not None:
            self.desk.keys.answered(leg.key, leg, leg.started, now, leg.instance)

    def _follow(self, mirroring: Mirroring, leg: Leg) -> Primary:
        """A request is offered once, whatever becomes of that."""
        if self._primary is None:
            self._primary = mirroring.offer(self.request, leg, self.generation)
        return self._primary

    def _record(
        self, leg: Leg, outcome: Outcome, now: float, code: ErrorCode | None = None, fault: Fault | None = None
    ) -> None:
        self.desk.budget.give_back(leg)
        if leg.key is not None and outcome != "ok":
            leg.key.release(leg)
        if leg.reservation is not None:
            settle_leg(leg, leg.reservation, outcome, fault, now)
        attempt = _attempt(
            backend=leg.instance.name,
            key_id=None if leg.call.key is None else leg.call.key.id,
            reason=leg.reason,
            outcome=outcome,
            started_ms=max(0.0, (leg.started - self.arrived) * 1000),
            elapsed_ms=(now - leg.started) * 1000,
            error_code=code,
        )
        self.attempts.append(attempt)
        if self._trail is not None or outcome != "ok":
            if self._trail is None:
                self._trail = Trail(sampled=False)
            self._trail.came_to(leg.plan, attempt, self.desk.decisions.now())

    def _close(self, outcome: Ending, now: float, code: ErrorCode | None = None) -> None:
        """The request has ended: its decisions are recorded, where they are to be."""
        self._over = True
        if self._trail is not None:
            request_id, sent = self.request.request_id, len(self.attempts)
            self.desk.decisions.close(self._trail, request_id, outcome, code, now - self.arrived, sent)
            self._trail = None
