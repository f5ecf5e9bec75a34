"""The twelve invariants hold for the library, and the tests of them have teeth: each kept mutant dies.

A mutant is a copy of the package under another name with one line changed. If a mutant survives, the invariants
are not tested well enough; if its line is gone, choose another that does the same harm.
"""

# ruff: noqa: E501
from __future__ import annotations

import gc
import importlib.util
import logging
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import actors
from tests.actors import _invariants as invariants


def test_messages():
    """Invariants 1, 2, 3, 4, 5 and 10."""
    invariants.check_messages(actors, 200, shrink=True)


def test_order():
    """Invariant 2."""
    invariants.check_order(actors, 60, shrink=True)


def test_stop_order():
    """Invariants 6 and 10."""
    invariants.check_stop_order(actors, 60, shrink=True)


def test_intensity():
    """Invariant 7."""
    invariants.check_intensity(actors, 100, shrink=True)


def test_chaos():
    """Invariants 1, 6 and 10 for groups."""
    invariants.check_chaos(actors, 100, shrink=True)


def test_backoff():
    """Invariant 8."""
    invariants.check_backoff(actors, 100, shrink=True)


def test_plan():
    """Invariant 9."""
    invariants.check_plan(actors, 100, shrink=True)


def test_checkpoints():
    """Invariants 10 and 11."""
    invariants.check_checkpoints(actors)


def test_instruments(caplog):
    """Invariant 12."""
    caplog.set_level(logging.CRITICAL, logger="actors")
    invariants.check_instruments(actors, 40, shrink=True)


@dataclass(frozen=True)
class Mutant:
    name: str
    file: str
    line: str
    instead: str
    killed_by: Callable[..., None]
    examples: int = 400


MUTANTS = [
    Mutant("no new scope after a cancelled turn", "_loop.py", "if self.spent:", "if False:", invariants.check_messages),
    Mutant(
        "an asker is not answered when its turn is cancelled", "_loop.py",
        "            ask.fail(answer)", "            isinstance(exc, Exception) and ask.fail(answer)",
        invariants.check_messages,
    ),
    Mutant(
        "the queue is forgotten at the end", "_cell.py",
        "        self.close(reason)\n        self._clear()\n", "        self.close(reason)\n", invariants.check_messages,
    ),
    Mutant("a turn starts though its asker has gone", "_reply.py", "        if self.task is None:\n            return False\n", "", invariants.check_messages),
    Mutant("giving up does not reach the turn", "_reply.py", "            self.turn.cancel()\n            if self.joined:", "            pass\n            if self.joined:", invariants.check_messages),
    Mutant("one place too many", "_mailbox.py", "elif len(self.queue) >= self.capacity:", "elif len(self.queue) > self.capacity:", invariants.check_messages),
    Mutant("one item too many", "_reply.py", "open_memory_channel[object](buffer)", "open_memory_channel[object](buffer + 1)", invariants.check_messages),
    Mutant("a parked sender that gave up is delivered", "_mailbox.py", "            self.mailbox.unpark(self)\n", "            pass\n", invariants.check_messages),
    Mutant("last in, first out", "_mailbox.py", "self.queue.append(item)", "self.queue.appendleft(item)", invariants.check_order),
    Mutant("a crash leaves the other turns alone", "_cell.py", "            self.crash = exc\n        self.cancel_turns()", "            self.crash = exc\n        self.mailbox.halt()", invariants.check_messages),
    Mutant("start order instead of its reverse", "_supervisor.py", "cells = list(reversed(self._children.values()))", "cells = list(self._children.values())", invariants.check_stop_order),
    Mutant("one restart too many", "_plan.py", ">= intensity:", "> intensity:", invariants.check_intensity),
    Mutant("restarts are never forgotten", "_supervisor.py", "            self._restarts.popleft()", "            break", invariants.check_intensity),
    Mutant("a child that backs off is not stopped", "_stopping.py", "            cell.owner._end(cell, reason, None)\n", "            pass\n", invariants.check_chaos),
    Mutant("temporary children come back", "_plan.py", ' if c.restart != "temporary"', "", invariants.check_plan),
    Mutant("no limit to the delay", "_backoff.py", "min(self.limit, self.first * ", "(self.first * ", invariants.check_backoff),
    Mutant("tell does not checkpoint", "_mailbox.py", "await trio.lowlevel.cancel_shielded_checkpoint()", "pass", invariants.check_checkpoints),
    Mutant("an instrument's failure gets through", "_instrument.py", "except Exception as exc:", "except ZeroDivisionError as exc:", invariants.check_instruments),
]  # fmt: skip


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Mutant], ModuleType]]:
    """Load a mutant as a package of its own."""
    name = "mutant_of_actors"

    def load_mutant(mutant: Mutant) -> ModuleType:
        folder = tmp_path / name
        shutil.copytree(Path(actors.__file__).parent, folder, ignore=shutil.ignore_patterns("__pycache__"))
        source = (folder / mutant.file).read_text()
        assert source.count(mutant.line) == 1, (
            f"{mutant.file} has the line of this mutant {source.count(mutant.line)} times"
        )
        (folder / mutant.file).write_text(source.replace(mutant.line, mutant.instead))
        found = importlib.util.spec_from_file_location(name, folder / "__init__.py")
        assert found is not None
        assert found.loader is not None
        module = importlib.util.module_from_spec(found)
        sys.modules[name] = module
        found.loader.exec_module(module)
        return module

    # a mutant may break trio itself; what it leaves behind is to be collected here, unheard, and not in a later test
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    yield load_mutant
    for loaded in [m for m in sys.modules if m.split(".")[0] == name]:
        del sys.modules[loaded]
    gc.collect()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name.replace(" ", "-"))
def test_the_mutant_dies(mutant: Mutant, load: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, logger="actors")
    pkg = load(mutant)
    with pytest.raises(BaseException) as caught:  # noqa: PT011 -- however it dies
        mutant.killed_by(pkg, mutant.examples)
    assert not caught.errisinstance((KeyboardInterrupt, SyntaxError, ImportError))
