"""The actor with the connection to Redis: keeps the leases of this process in step, and never lets a request wait."""

from __future__ import annotations

import math
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, Never

import trio

from actors import Actor, Context, Spec
from spear.config import RedisConfig
from spear.secrets import Redactor
from spear.telemetry import get_logger

from ._link import MOST_AWAKE, Link
from ._meter import Asked, SharedMeter
from ._script import SCRIPT, BadAnswer, Round, key_of, mark_key, nodes_key, question, read_answer

if TYPE_CHECKING:
    from coredis import Redis
    from coredis.commands.script import Script

_log = get_logger("spear.limits")
_ROUNDS: Final = 4
"""In the time of a lease."""
_BATCH: Final = 64
_GAP_S: Final = 0.01
_START_S: Final = 1.0
_STOP_S: Final = 1.0
_IDLE_S: Final = 600.0


class SharedLimits(Actor[Never]):
    """Has started when the first round with Redis is over, or after a second without. Goes on whatever Redis does."""

    def __init__(self, config: RedisConfig, link: Link, changed: Callable[[bool], None]) -> None:
        self._config = config
        self._link = link
        self._changed = changed
        self._node = config.node or secrets.token_hex(8)
        self._interval = config.lease_s / _ROUNDS
        self._woken = trio.Event()
        self._first = trio.Event()
        self._rounds = self._losses = 0
        self._problem = ""
        self._looked = False
        self._redact = Redactor(config.secrets)

    @asynccontextmanager
    async def lifespan(self, ctx: Context[Never]) -> AsyncIterator[None]:
        self._link.on_wake = self._wake
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep, name=f"leases of {ctx.path}")
                with trio.move_on_after(_START_S):
                    await self._first.wait()
                try:
                    yield
                finally:
                    nursery.cancel_scope.cancel()
        finally:
            self._link.on_wake = None
            with trio.move_on_after(_STOP_S, shield=True):
                await self._leave()

    def observe(self) -> Mapping[str, object]:
        return {
            "connected": self._problem == "" and self._rounds > 0,
            "leasing": self._link.leasing,
            "nodes": self._link.nodes,
            "limits": len(self._link.awake),
            "rounds": self._rounds,
            "losses": self._losses,
            "reconciled": self._link.reconciled,
            "problem": self._problem,
        }

    def _wake(self) -> None:
        self._woken.set()

    # --- the connection -----------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        while True:
            problem = await self._session(self._go_on)
            self._lose(problem)
            await trio.sleep(self._interval)

    async def _session(self, work: Callable[[Script[str]], object]) -> str:
        """One connection, as long as it works; why it did not."""
        import anyio
        from coredis import Redis
        from coredis.exceptions import RedisError

        assert self._config.url is not None
        problems: list[BaseException] = []
        try:
            client: Redis[str] = Redis.from_url(
                self._config.url.reveal(), decode_responses=True, max_connections=2, connect_timeout=self._interval
            )
            async with client:
                if not self._looked:
                    await self._look(client)
                await work(client.register_script(SCRIPT))  # type: ignore[misc]
        except* (
            *(RedisError, OSError, trio.TooSlowError, BadAnswer, ValueError),
            *(anyio.ClosedResourceError, anyio.BrokenResourceError, anyio.EndOfStream),  # of coredis's connection
        ) as group:
            problems += _leaves(group)
        said = {f"{type(each).__name__}: {each}".rstrip(": ") for each in problems}
        return self._redact(", ".join(sorted(said))[:300])

    async def _look(self, client: Redis[str]) -> None:
        """Whether it may forget what stands there. Once; who may not ask is not told, and one that hangs up on the
        question is asked no more."""
        from coredis.exceptions import RedisError

        self._looked = True
        try:
            with trio.fail_after(self._interval):
                policy = (await client.info("memory")).get("maxmemory_policy", "noeviction")
        except (RedisError, ValueError):
            policy = "noeviction"
        if policy != "noeviction":
            _log.warning(
                "shared_limits_may_be_evicted",
                policy=policy,
                effect="a full Redis forgets limits, which are used again; expected maxmemory-policy noeviction",
            )

    async def _go_on(self, script: Script[str]) -> None:
        while True:
            self._woken = trio.Event()
            await self._round(script)
            self._first.set()
            await trio.sleep(_GAP_S)
            with trio.move_on_after(self._interval):
                await self._woken.wait()

    async def _leave(self) -> None:
        """Everything goes back. A second is all it gets; what did not arrive is free again when its time is over."""
        if not self._link.leasing:
            return
        self._link.leasing = False

        async def farewell(script: Script[str]) -> None:
            meters = list(self._link.awake)
            for start in range(0, max(1, len(meters)), _BATCH):
                batch = meters[start : start + _BATCH]
                now = trio.current_time()
                await self._ask(script, batch, [each.farewell(now) for each in batch], leaving=True)

        problem = await self._session(farewell)
        if problem:
            _log.info("shared_limits_not_returned", problem=problem)

    # --- a round ------------------------------------------------------------------------------------------------

    async def _round(self, script: Script[str]) -> None:
        """Each awake meter asks and is answered."""
        meters = list(self._link.awake)
        sleepy = self._sleepy(meters)
        for start in range(0, max(1, len(meters)), _BATCH):
            batch = meters[start : start + _BATCH]
            sent = trio.current_time()
            asked = [each.farewell(sent) if each in sleepy else each.ask(sent) for each in batch]
            with trio.fail_after(self._interval):
                found = await self._ask(script, batch, asked)
            now = trio.current_time()
            if self._link.reborn(found.mark, now) or len(found.answers) < len(batch):
                self._woken.set()
                break
            self._gain(found, now)
            for meter, one, answer in zip(batch, asked, found.answers, strict=True):
                meter.answered(one, answer, sent, now)
                if meter in sleepy and meter.last_use < sent:
                    meter.unleashed(now)
                    self._link.awake.pop(meter, None)
        self._rounds += 1

    def _sleepy(self, meters: Sequence[SharedMeter]) -> set[SharedMeter]:
        """Those that nobody has used for long, and of too many those that were used longest ago."""
        now = trio.current_time()
        for each in meters:
            if each.last_use == -math.inf:
                each.last_use = now
        idle = {each for each in meters if each.last_use <= now - _IDLE_S}
        beyond = len(meters) - MOST_AWAKE
        if beyond > 0:
            idle.update(sorted(meters, key=lambda each: each.last_use)[:beyond])
        return idle

    async def _ask(
        self, script: Script[str], meters: Sequence[SharedMeter], asked: Sequence[Asked], *, leaving: bool = False
    ) -> Round:
        prefix, link = self._config.prefix, self._link
        keys = [nodes_key(prefix), mark_key(prefix), *(key_of(prefix, each.quota) for each in meters)]
        pairs = [(meter.quota, one) for meter, one in zip(meters, asked, strict=True)]
        # Never the same mark twice: this process may be the first one again after Redis has lost everything.
        mark = secrets.token_hex(8)
        told = question(pairs, node=self._node, mark=mark, born=link.born, lease_s=link.lease_s, leaving=leaving)
        return read_answer(await script(keys, [told]), len(meters))

    def _gain(self, found: Round, now: float) -> None:
        if self._link.heard(found.nodes, now, hold=found.hold):
            self._changed(True)
            (_log.warning if self._losses else _log.info)("shared_limits_leased", nodes=self._link.nodes)
        self._problem = ""

    def _lose(self, problem: str) -> None:
        if problem != self._problem:
            _log.warning("shared_limits_lost", problem=problem, effect="this process goes on with its share")
        if self._link.leasing:
            self._losses += 1
            self._changed(False)
        self._problem = problem
        self._link.lost(trio.current_time())
        self._first.set()


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for each in group.exceptions:
        found += _leaves(each) if isinstance(each, BaseExceptionGroup) else [each]
    return found


def shared_limits_spec(config: RedisConfig, link: Link, changed: Callable[[bool], None]) -> Spec[Never]:
    """`changed` is told when leases begin (True) and when they end because Redis is away (False)."""
    return Spec(name="shared_limits", factory=partial(SharedLimits, config, link, changed), grace=3.0)
