"""A filter that is a WebAssembly guest. Each call has an instance of its own, so that a trap, a leak or a stale state
of one says nothing to the next; the module is compiled once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from spear.config import FilterConfig
from spear.ir import GuestError, Json, dump_json
from spear.router import FilterFailed
from spear.telemetry import get_logger

from ._answer import parse_answer
from ._port import MAX_ANSWER_BYTES, Port

if TYPE_CHECKING:
    from spear.hostcall import GuestEngine, LogRecord, Module

_log = get_logger("spear.filters")
MEMORY_BYTES: Final = 16 * 1024 * 1024
"""Of the linear memory of a filter's instance."""
LOG_BYTES: Final = 65_536


async def load_filter(engine: GuestEngine, config: FilterConfig) -> Module:
    """Waits for the file and for the compiler. Raises ValueError with what is wrong."""
    from spear.hostcall import check_filter

    assert config.path is not None  # the configuration's check saw to it
    try:
        module = await engine.load(Path(config.path))
        check_filter(module)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror or 'not a usable path'}") from None
    except GuestError as error:
        raise ValueError(error.error.message) from None
    return module


def open_wasm(config: FilterConfig, engine: GuestEngine, module: Module) -> Port:
    from spear.hostcall import FilterCallFailed

    def said(record: LogRecord) -> None:
        _log.info("filter_log", filter=config.name, level=record.level, message=record.message)

    async def ask(question: Mapping[str, Json]) -> Json:
        data = dump_json(question, sort=True)
        try:
            answer = await engine.ask_filter(
                module, data, max_answer=MAX_ANSWER_BYTES, timeout_s=config.timeout, on_log=said
            )
        except FilterCallFailed as error:
            raise FilterFailed(str(error)) from None
        return parse_answer(answer)

    return Port(config, ask)
