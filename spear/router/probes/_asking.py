"""One probe: sent like an attempt, and told to the breaker."""

from __future__ import annotations

from typing import NamedTuple

import trio

from actors import ActorCrashed, ActorStopped, MailboxFull, Ref
from spear.backends import BackendMessage, Call, Invoke
from spear.config import Probe
from spear.ir import CanonicalError, ErrorCode, Failure, Operation, SpearError, make_error
from spear.router._failures import Fault, fault_of
from spear.router._instance import Instance
from spear.router._probe import question

from ._rhythm import Verdict


class Outcome(NamedTuple):
    verdict: Verdict
    error: CanonicalError | None = None


def has_room(instance: Instance) -> bool:
    """Whether a probe leaves a place to those who come after it."""
    ref = instance.ref
    return ref is not None and ref.status == "running" and instance.load + 1 < instance.max_inflight


async def ask(instance: Instance, operation: Operation, probe: Probe, jitter: float) -> Outcome:
    """Waits for the answer, at most `probe.timeout`. Cancelled or too late, the backend's turn is cancelled, which
    closes its connection. What it comes to is told to the breaker; cancelled, it says nothing."""
    ref = instance.ref
    assert ref is not None  # has_room
    trial = instance.health.begin(operation, trio.current_time(), jitter)
    outcome = Outcome("neutral")
    try:
        outcome = await _send(instance, ref, operation, probe)
    finally:
        if trial is not None:
            instance.health.probed(trial, outcome.verdict, trio.current_time(), jitter)
    return outcome


async def _send(instance: Instance, ref: Ref[BackendMessage], operation: Operation, probe: Probe) -> Outcome:
    now, timeouts = trio.current_time(), instance.config.timeouts
    if instance.keys_reason(now) is not None:  # without a key its answer would say nothing
        return Outcome("neutral")
    deadline = now + probe.timeout
    call = Call(
        deadline=deadline,
        connect=timeouts.connect,
        first_event=probe.timeout,
        idle=timeouts.idle,
        key=instance.spare_key(now),
    )
    message = Invoke(question(operation, instance.own_model), call)
    turn = object()
    instance.turns.add(turn)
    try:
        with trio.CancelScope(deadline=deadline):
            await ref.ask_nowait(message, deadline=deadline)
            return Outcome("succeeded")
        instance.leave(turn)
        text = f"backend {instance.name} did not answer a probe within {probe.timeout:g} s"
        fault = Fault(make_error(ErrorCode.TIMEOUT, text, clock="total", operation=operation), Failure.SERVER)
    except MailboxFull:  # it filled up since we looked
        return Outcome("neutral")
    except (SpearError, ActorStopped, ActorCrashed) as error:
        fault = fault_of(error, instance.name)
    except trio.Cancelled:
        instance.leave(turn)
        raise
    finally:
        instance.turns.discard(turn)
    return Outcome("failed" if fault.rule.counts else "neutral", fault.error)
