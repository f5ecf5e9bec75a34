"""Deciding again what was recorded: as it was, bit for bit; or as another policy or configuration would have.

The same code decides that decided then. Another policy or configuration sees each recorded moment as it was: the load
and the latencies that its own earlier choices would have made are not in the record.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from pydantic import ValidationError

from spear.ir import Json, SpearError, dump_json
from spear.router._decide import Plan, decide
from spear.router._facts import Facts
from spear.router._registry import Generation
from spear.router.policies import Memory

from ._decision import DecisionRecord, Inputs, plan_as_json
from ._generation import GenerationRecord, restore, still
from ._reader import Place, Unreadable, place_of
from ._state import IDLE, StillInstance

_GENERATIONS: Final = 256
_RUNS: Final = 256
"""The latest used are kept: a log goes on with its present one, and a file of nothing else must not fill the memory."""
_LONGEST_REASON: Final = 300


@dataclass(frozen=True, slots=True)
class Verdict:
    """One recorded decision, and what it would be. `then` and `now` are plans as JSON; `differs` names the fields that
    are not the same to the last bit. The instances stand as they stood then, until the next one is replayed."""

    place: Place
    record: DecisionRecord
    facts: Facts
    then: Mapping[str, Json]
    now: Mapping[str, Json]
    differs: tuple[str, ...]
    before: Generation
    after: Generation


class Skipped(NamedTuple):
    """A decision that was recorded without what it read."""

    place: Place
    record: DecisionRecord


class Replay:
    """Take records in the order of the files. `policy` and `config` say how else to decide; without both, as it was."""

    def __init__(self, policy: str | None = None, config: Generation | None = None) -> None:
        self._policy = policy
        self._config = None if config is None else _with_policy(still(config), policy)
        self._memories: OrderedDict[str, Memory] = OrderedDict()
        self._generations: OrderedDict[tuple[str, int], tuple[Generation, Generation]] = OrderedDict()

    @property
    def as_it_was(self) -> bool:
        return self._policy is None and self._config is None

    def take(self, place: Place, record: GenerationRecord | DecisionRecord) -> Verdict | Skipped | Unreadable | None:
        """None for a generation. Never raises for what a record may hold."""
        if isinstance(record, GenerationRecord):
            return self._generation(place, record)
        if record.inputs is None:
            return Skipped(place, record)
        found = self._generations.get((record.run, record.generation))
        if found is None:
            return Unreadable(
                place, f"generation {record.generation} of run {record.run[:32]} is not in these files before it"
            )
        self._generations.move_to_end((record.run, record.generation))
        try:
            facts = record.restore_facts()
        except ValidationError as error:
            return Unreadable(place, f"not the facts of a request: {place_of(error)}")
        before, after = found
        try:
            now = plan_as_json(self._decide(record.run, after, facts, record.inputs))
            keys = dict.fromkeys((*record.plan, *now))
            differs = tuple(key for key in keys if _bits(record.plan, key) != _bits(now, key))
        except Exception as error:  # noqa: BLE001 -- numbers that no router has written, in any combination
            return Unreadable(place, f"not the inputs of a decision: {type(error).__name__}")
        if not self.as_it_was:
            _stand(before, record.inputs)
        return Verdict(place, record, facts, record.plan, now, differs, before, after)

    def _generation(self, place: Place, record: GenerationRecord) -> Unreadable | None:
        try:
            before = restore(record)
        except (SpearError, ValidationError) as error:
            reason = "a field is wrong" if isinstance(error, ValidationError) else str(error).partition("\n")[0]
            return Unreadable(place, f"a generation that this Spear cannot restore: {reason[:_LONGEST_REASON]}")
        if self._config is not None:
            after = self._config
        elif self._policy is not None:
            after = _with_policy(still(before), self._policy)
        else:
            after = before
        self._generations[record.run, record.generation] = before, after
        _shorten(self._generations, _GENERATIONS)
        return None

    def _decide(self, run: str, generation: Generation, facts: Facts, inputs: Inputs) -> Plan:
        _stand(generation, inputs)
        if self.as_it_was:
            memory = Memory() if inputs.memory is None else inputs.memory.restore()
        else:
            memory = self._memories.setdefault(run, Memory())
            self._memories.move_to_end(run)
            _shorten(self._memories, _RUNS)
        if self._policy is not None:  # instead of what the request asked for, too
            facts = facts._replace(policy=None, policy_options=())
        plan, change = decide(
            generation, generation.instances, facts, memory, inputs.seed, inputs.now,
            exclude=frozenset(inputs.exclude), panic=inputs.panic,
        )  # fmt: skip
        if change is not None and not self.as_it_was:
            memory.apply(change)
        return plan


def _shorten(kept: OrderedDict[Any, Any], most: int) -> None:
    while len(kept) > most:
        kept.popitem(last=False)


def _stand(generation: Generation, inputs: Inputs) -> None:
    for each in generation.instances:
        assert isinstance(each, StillInstance)
        each.stand(inputs.instances.get(each.name, IDLE))


def _with_policy(generation: Generation, policy: str | None) -> Generation:
    if policy is None:
        return generation
    return replace(generation, routes=tuple(route._replace(policy=policy) for route in generation.routes))


def _bits(plan: Mapping[str, Json], key: str) -> bytes | None:
    return dump_json(plan[key], sort=True) if key in plan else None
