"""The mirrors' actor: a turn is one mirrored request, from its send to its record.

Nothing that happens here reaches the primary: not its caller, its latency, its health, its counters. What a mirror
does says nothing of its own backend's health or latency either; it only holds a place there while it runs. Never
retried, never hedged. A turn ends by its own deadline, or with the actor.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Final

import trio

from actors import Actor, ActorCrashed, ActorStopped, Context, MailboxFull, Spec
from spear.backends import Answer, Call, Finished, Invoke, Key, OpenStream
from spear.config import MirrorLimits
from spear.ir import ErrorCode, RequestEnvelope, SpearError, Usage, bears_content, error_to_exception
from spear.router._desk import Desk
from spear.router._failures import fault_of, truncated
from spear.router._instance import Instance
from spear.router._leftovers import forget
from spear.router._leg import FIRST_EVENT_S
from spear.router._respond import send_model
from spear.router._settle import used_of
from spear.secrets import Redactor
from spear.telemetry import get_logger

from ._compare import compare, prompt_of, record_of, text_of, texts_of, usage_of
from ._gate import dropped_for, estimated_cost
from ._journal import Journal
from ._mirroring import Mirroring, MirrorRequest
from ._record import MirrorRecord, write_record
from ._side import OK, UNFINISHED, Side
from ._similarity import Similarity

_log = get_logger("spear.mirrors")
_AHEAD: Final = 8
_END_S: Final = 1.0
"""How long a backend may take to close a stream that is complete."""
_LONGEST_SECRET: Final = 65_536


class Mirrors(Actor[MirrorRequest]):
    def __init__(self, desk: Desk, mirroring: Mirroring, clock: Callable[[], float] = time.time) -> None:
        self._desk = desk
        self._mirroring = mirroring
        self._clock = clock
        self._writing = trio.Lock()

    async def handle(self, msg: MirrorRequest, ctx: Context[MirrorRequest]) -> None:
        try:
            await self._mirror(msg)
        except Exception as bug:  # noqa: BLE001 -- one request must not end the others; the log has the traceback
            redact = Redactor(self._desk.generation.config.secrets)
            text = redact("".join(traceback.format_exception(bug)))
            _log.error("mirror_bug", request_id=msg.request.request_id, traceback=text)

    async def _mirror(self, msg: MirrorRequest) -> None:
        generation, mirroring = self._desk.generation, self._mirroring
        config, now = generation.config.mirrors, trio.current_time()
        instance = generation.by_name.get(msg.mirror.to)
        reason = dropped_for(generation, instance, msg.facts, now)
        if reason is not None or instance is None:
            mirroring.counts.drop(reason or "not_allowed")
            return
        estimate = estimated_cost(instance, msg.facts)
        purse = mirroring.purse
        if not purse.take(config.requests_per_minute, config.max_cost_per_hour, estimate, now):
            mirroring.counts.drop("budget")
            return
        cost: float | None = None
        usage: Usage | None = None
        bounds, key = instance.bounds, instance.spare_key(now)
        reserved = None if bounds is None else bounds.reserve(msg.facts._replace(mirrored=True), key, now)
        deadline = now + config.timeout_s
        try:
            mirror = await self._send(msg, instance, key, now, deadline)
            usage = usage_of(mirror, msg.facts)
            cost = None if usage is None else usage.cost
        finally:
            purse.settle(estimate, cost, trio.current_time())
            if reserved is not None:
                reserved.settle(used_of(usage, reserved.amounts, instance.price), trio.current_time())
        if mirror.answer is not None:
            await forget(self._desk.media, msg.request.payload, mirror.answer)
        if msg.mirror.compare:
            await self._record(msg, mirror, deadline, config)

    async def _send(self, msg: MirrorRequest, instance: Instance, key: Key | None, now: float, deadline: float) -> Side:
        counts, turn = self._mirroring.counts, object()
        request = send_model(msg.request, instance.own_model or msg.facts.model)
        side = Side(instance.name, request.model, ErrorCode.INTERNAL.value, price=instance.price)
        counts.send()
        instance.turns.add(turn)
        try:
            call = self._call(instance, key, min(deadline, now + instance.config.timeouts.total))
            side = await self._ask(msg, instance, request, side, call)
        except trio.Cancelled:
            counts.cancel()
            raise
        except Exception:
            counts.end(side.outcome)
            raise
        finally:
            instance.leave(turn)
        counts.end(side.outcome)
        return side

    async def _ask(
        self, msg: MirrorRequest, instance: Instance, request: RequestEnvelope, side: Side, call: Call
    ) -> Side:
        began = trio.current_time()
        try:
            with trio.CancelScope(deadline=call.deadline):
                answer, first = await _ask(instance, request, call, streamed=msg.facts.timing[1])
                return side._replace(
                    outcome=OK,
                    answer=answer,
                    model=answer.model or side.model,
                    elapsed=trio.current_time() - began,
                    first_event=None if first is None else first - began,
                )
        except MailboxFull:  # the gate has seen room, so that this is rare
            return side._replace(outcome=ErrorCode.OVERLOADED.value)
        except (SpearError, ActorStopped, ActorCrashed) as error:
            return side._replace(outcome=fault_of(error, instance.name).error.code.value)
        return side._replace(outcome=ErrorCode.TIMEOUT.value)

    def _call(self, instance: Instance, key: Key | None, deadline: float) -> Call:
        timeouts = instance.config.timeouts
        return Call(
            deadline=deadline,
            connect=timeouts.connect,
            first_event=timeouts.first_event or FIRST_EVENT_S,
            idle=timeouts.idle,
            key=key,
        )

    async def _record(self, msg: MirrorRequest, mirror: Side, deadline: float, config: MirrorLimits) -> None:
        primary = msg.primary.now()
        if primary.outcome == UNFINISHED and mirror.outcome == OK:  # with nothing to compare, nothing is waited for
            with trio.CancelScope(deadline=deadline):
                await msg.primary.wait()
            primary = msg.primary.now()
        record = record_of(
            msg.request,
            msg.facts,
            primary,
            mirror,
            compare(msg.request, primary, mirror, await _similarity(primary, mirror)),
            time=datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds"),
            generation=self._desk.generation.number,
        )
        if config.content:
            record = record.model_copy(update=self._content(msg.request, primary, mirror, config.content_chars))
        if record.compared:
            self._mirroring.counts.compare()
        self._mirroring.keep(record, config.keep)
        if config.path is not None:
            await self._write(record, Journal(config.path, config.max_bytes, config.files))

    def _content(self, request: RequestEnvelope, primary: Side, mirror: Side, most: int) -> Mapping[str, str]:
        redact = Redactor(self._desk.generation.config.secrets)
        found = {"prompt": prompt_of(request)}
        for name, side in (("primary_text", primary), ("mirror_text", mirror)):
            text = None if side.answer is None else text_of(side.answer.payload)
            if text is not None:
                found[name] = text
        # Cut twice: one that is cut in half would not be known as a secret.
        return {name: redact(text[: most + _LONGEST_SECRET])[:most] for name, text in found.items()}

    async def _write(self, record: MirrorRecord, journal: Journal) -> None:
        """One at a time, in a thread, also at shutdown: who has seen it in memory finds it in the file. A record that
        cannot be written is counted and said."""
        line = write_record(record)
        with trio.CancelScope(shield=True):  # for as long as the disk takes
            async with self._writing:
                try:
                    await trio.to_thread.run_sync(journal.write, line)
                except OSError as error:
                    self._mirroring.counts.lose()
                    _log.error("mirror_record_lost", path=str(journal.path), error=error.strerror)

    def observe(self) -> Mapping[str, object]:
        return self._mirroring.observe(trio.current_time())


async def _ask(
    instance: Instance, request: RequestEnvelope, call: Call, *, streamed: bool
) -> tuple[Answer, float | None]:
    """The whole answer, and when its first content came if it was streamed."""
    assert instance.ref is not None  # the gate has seen it running
    if not streamed:
        return await instance.ref.ask_nowait(Invoke(request, call)), None
    first: float | None = None
    async with instance.ref.stream_nowait(OpenStream(request, call), buffer=_AHEAD) as items:
        async for item in items:
            if isinstance(item, Finished):
                with trio.move_on_after(_END_S):  # so that the adapter can give its connection back
                    try:
                        await anext(items, None)
                    except (SpearError, ActorStopped, ActorCrashed):
                        return item.answer, first
                return item.answer, first
            if first is None and bears_content(item):
                first = trio.current_time()
    raise error_to_exception(truncated(instance.name).error)


async def _similarity(primary: Side, mirror: Side) -> float | None:
    texts = texts_of(primary, mirror)
    if texts is None:
        return None
    measure = Similarity(*texts)
    for _ in measure.steps():
        await trio.lowlevel.checkpoint()
    return measure.value


def mirrors_spec(desk: Desk, mirroring: Mirroring, limits: MirrorLimits) -> Spec[MirrorRequest]:
    """`max_inflight` mirrors at a time, `max_waiting` more in the mailbox. Stopping it cancels them."""
    return Spec(
        name="mirrors",
        factory=partial(Mirrors, desk, mirroring),
        mailbox=limits.max_waiting,
        concurrency=limits.max_inflight,
    )
