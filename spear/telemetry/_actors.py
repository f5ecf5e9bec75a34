"""An instrument that counts what actors do, by the path of the actor."""

from __future__ import annotations

from collections.abc import Callable

import trio

from actors import Exit, Instrument

from ._counters import Counter, Counters, Gauge


class _Path:
    """The children of one actor, looked up once."""

    __slots__ = ("cancelled", "failed", "finished", "running")

    def __init__(self, counters: Counters, path: str) -> None:
        about = "Turns of an actor that ended, by how."
        self.running: Gauge = counters.gauge("actor_turns_running", "Turns of an actor under way.", actor=path)
        self.finished: Counter = counters.counter("actor_turns_total", about, actor=path, outcome="ok")
        self.failed: Counter = counters.counter("actor_turns_total", about, actor=path, outcome="error")
        self.cancelled: Counter = counters.counter("actor_turns_total", about, actor=path, outcome="cancelled")


class ActorCounters(Instrument):
    """Counts turns, restarts, exits and hangs. Give it to `open_supervisor(instruments=...)`."""

    def __init__(self, counters: Counters, label: Callable[[str], str] = str) -> None:
        """`label` names an actor by its path. Where actors come and go under names of their own, give them one label
        together: a series is kept for as long as the counters are."""
        self._counters = counters
        self._label = label
        self._paths: dict[str, _Path] = {}

    def turn_started(self, path: str, msg: object) -> None:
        of = self._paths.get(path) or self._of(path)
        of.running.value += 1

    def turn_finished(self, path: str, msg: object, error: BaseException | None) -> None:
        of = self._paths.get(path) or self._of(path)
        of.running.value -= 1
        if error is None:
            of.finished.value += 1
        elif isinstance(error, trio.Cancelled):
            of.cancelled.value += 1
        else:
            of.failed.value += 1

    def restarting(self, path: str, error: Exception, delay: float) -> None:
        about = "Restarts of an actor after a crash."
        self._counters.counter("actor_restarts_total", about, actor=self._label(path), error=type(error).__name__).add()

    def exited(self, exit: Exit) -> None:  # noqa: A002
        about = "Actors that ended for good, by the reason."
        self._counters.counter("actor_exits_total", about, reason=exit.reason).add()
        self._paths.pop(exit.path, None)

    def hung(self, path: str, waited: float) -> None:
        self._counters.counter("actor_hung_total", "Actors that outlived their grace.", actor=self._label(path)).add()

    def _of(self, path: str) -> _Path:
        of = self._paths[path] = _Path(self._counters, self._label(path))
        return of
