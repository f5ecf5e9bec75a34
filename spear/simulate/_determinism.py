"""Makes one run of Trio repeat itself: its private switch for that, and its generator, seeded.

Trio shuffles the tasks that are ready, on purpose. With `_ALLOW_DETERMINISTIC_SCHEDULING` it first sorts them by age
and then shuffles with a generator that can be seeded: the same program with the same seed then takes the same course.
The switch is private and belongs to the whole process, so that nobody but the simulator touches it, in this file only,
and only while a simulation runs.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from types import FunctionType, ModuleType
from typing import Final

import trio

_SWITCH: Final = "_ALLOW_DETERMINISTIC_SCHEDULING"
_GENERATOR: Final = "_r"
OLDEST: Final = (0, 30)
_one_at_a_time = threading.Lock()


class NotDeterministic(RuntimeError):
    """This version of Trio cannot be made to repeat itself, or another simulation runs in this process."""


@contextmanager
def deterministic(seed: int) -> Iterator[None]:
    """While the block lasts, runs of Trio that begin in it take the same course for the same seed.

    For all of the process: do not enter it while another run of Trio goes on in another thread. Everything is put back
    afterwards. Raises `NotDeterministic`.
    """
    scheduler = _scheduler()
    if not _one_at_a_time.acquire(blocking=False):
        raise NotDeterministic("one simulation at a time in a process: another one runs in another thread")
    try:
        generator: Random = getattr(scheduler, _GENERATOR)
        before, state = getattr(scheduler, _SWITCH), generator.getstate()
        setattr(scheduler, _SWITCH, True)
        generator.seed(seed)
        try:
            yield
        finally:
            generator.setstate(state)
            setattr(scheduler, _SWITCH, before)
    finally:
        _one_at_a_time.release()


def _scheduler() -> ModuleType:
    """Trio's module with the switch; checked by what it does, not by its version alone."""
    from trio._core import _run

    reason = why_not(_run, trio.__version__)
    if reason:
        raise NotDeterministic(f"simulations need to make Trio's order repeatable: {reason}")
    return _run


def why_not(scheduler: ModuleType, version: str) -> str:
    """What keeps `scheduler` from being made deterministic; empty = nothing."""
    try:
        numbers = tuple(int(part) for part in version.split(".")[:2])
    except ValueError:
        return f"{version!r} is no version that can be understood"
    if numbers < OLDEST or numbers >= (1, 0):
        return f"Trio {version} is not known to allow it; known is {'.'.join(map(str, OLDEST))} to below 1.0"
    if not isinstance(getattr(scheduler, _GENERATOR, None), Random) or not hasattr(scheduler, _SWITCH):
        return f"Trio {version} has no {_SWITCH} or no generator {_GENERATOR}"
    loop = getattr(scheduler, "unrolled_run", None)
    names = loop.__code__.co_names if isinstance(loop, FunctionType) else ()
    if not {_SWITCH, _GENERATOR, "sort", "shuffle"} <= set(names):
        return f"the loop of Trio {version} does not read {_SWITCH} as it is known to"
    return ""
