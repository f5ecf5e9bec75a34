"""Hooks that watch a tree from outside. They may look, never change an outcome."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from ._snapshot import Exit

__all__ = ["Hooks", "Instrument"]

_log = logging.getLogger("actors")


class Instrument:
    """Subclass it and override what you need. Every method is synchronous and must be cheap.

    A method that raises changes nothing: the failure is logged once and the instrument is dropped.
    A supervisor opened inside an actor inherits the instruments of that actor's supervisor.
    """

    def turn_started(self, path: str, msg: object) -> None: ...
    def turn_finished(self, path: str, msg: object, error: BaseException | None) -> None: ...
    def started(self, path: str, incarnation: int) -> None: ...
    def restarting(self, path: str, error: Exception, delay: float) -> None: ...
    def exited(self, exit: Exit) -> None: ...  # noqa: A002 -- the name of what it is
    def hung(self, path: str, waited: float) -> None: ...


_HOOKS = ("turn_started", "turn_finished", "started", "restarting", "exited", "hung")


class Hooks:
    """The methods that are really there, per hook, so that an unused hook costs one truth test."""

    __slots__ = (*_HOOKS, "instruments")

    turn_started: Sequence[Callable[[str, object], None]]
    turn_finished: Sequence[Callable[[str, object, BaseException | None], None]]
    started: Sequence[Callable[[str, int], None]]
    restarting: Sequence[Callable[[str, Exception, float], None]]
    exited: Sequence[Callable[[Exit], None]]
    hung: Sequence[Callable[[str, float], None]]

    def __init__(self, instruments: Sequence[Instrument]) -> None:
        self._set(tuple(instruments))

    def _set(self, instruments: tuple[Instrument, ...]) -> None:
        self.instruments = instruments
        for name in _HOOKS:
            methods = (getattr(i, name, None) for i in instruments if _overrides(i, name))
            setattr(self, name, tuple(m for m in methods if m is not None))

    def fire(self, hook: str, *args: object) -> None:
        for method in getattr(self, hook):
            try:
                method(*args)
            except Exception as exc:  # noqa: BLE001 -- an observer must not change what it observes
                owner = getattr(method, "__self__", None)
                # the type only: the text of a foreign exception may quote a message
                _log.error("instrument %s dropped: %s raised %s", type(owner).__name__, hook, type(exc).__name__)
                self._set(tuple(i for i in self.instruments if i is not owner))


def _overrides(instrument: Instrument, name: str) -> bool:
    return getattr(type(instrument), name, None) is not getattr(Instrument, name)
