"""A function of the host's own program.

An `async def` runs in the request's task and must not block. Any other function runs in a worker thread, so that one
that hangs costs its caller no more than the filter's timeout; its thread, and its place among `max_inflight`, stay
taken until it returns.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

import trio

from spear.config import FilterConfig
from spear.ir import Json
from spear.router import FilterFailed
from spear.telemetry import get_logger

from ._port import Port

FilterFunction = Callable[[Mapping[str, Any]], Mapping[str, Any] | Awaitable[Mapping[str, Any] | None] | None]
_log = get_logger("spear.filters")


def open_python(config: FilterConfig, function: FilterFunction) -> Port:
    threads = trio.CapacityLimiter(config.max_inflight)

    async def ask(question: Mapping[str, Json]) -> Json:
        try:
            plain: Json = _plain(await _call(function, question, threads))
        except (trio.Cancelled, KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 -- it is anybody's function; the log has the traceback
            # Beyond Exception, too: a library's panic, asyncio's CancelledError, a group with a cancellation in it.
            _log.error("filter_raised", filter=config.name, exc_info=error)
            await trio.lowlevel.checkpoint_if_cancelled()
            raise FilterFailed(f"raised {type(error).__name__}") from None
        return plain

    return Port(config, ask)


async def _call(function: FilterFunction, question: Mapping[str, Json], threads: trio.CapacityLimiter) -> Any:
    waiting: Any = function
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
        return await waiting(question)
    return await trio.to_thread.run_sync(function, question, abandon_on_cancel=True, limiter=threads)


def _plain(said: Any) -> Any:
    """As JSON would have it: dicts and lists. Whether it makes sense is for the check of the answer to say."""
    if isinstance(said, Mapping):
        return {key: _plain(value) for key, value in said.items()}
    return list(said) if isinstance(said, AbstractSet | tuple) else said
