"""One decision as a record, and back into the arguments of `decide`.

`look` is called between the decision and the moment its change is applied, while the live instances are still what the
decision read. A record that has no such look (`replayable` false) holds the plan alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, TypeAdapter

from spear.ir import Json
from spear.router._affinity import Affinity
from spear.router._decide import Plan
from spear.router._facts import Facts
from spear.router._registry import Generation
from spear.router.policies import Change, Memory, State

from ._generation import VERSION
from ._remembered import Remembered, state_as_json, state_of
from ._state import InstanceState, take

_FACTS: Final = TypeAdapter(Facts, config=ConfigDict(arbitrary_types_allowed=True))
_HASHES: Final = TypeAdapter(dict[str, int | None])
_LONGEST_BITS: Final = 64


def _numbers(value: object) -> object:
    """No whole number of them is one that a float could not be made of."""
    if isinstance(value, int) and value.bit_length() > _LONGEST_BITS:
        raise ValueError("a number with too many digits")
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _numbers(each)
    return value


_FACTS_NUMBERS: Final = TypeAdapter(Annotated[Any, PlainValidator(_numbers)])


class MemoryRecord(BaseModel):
    """What the policy remembered of exactly these candidates."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    policy: str
    indexes: tuple[int, ...]
    state: Remembered

    def restore(self) -> Memory:
        memory = Memory()
        state = state_of(self.state)
        if state is not None:
            memory.apply(Change((self.policy, self.indexes), state))
        return memory


class Inputs(BaseModel):
    """All that `decide` read beside the generation."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    seed: int
    now: float
    exclude: tuple[str, ...] = ()
    panic: bool = False
    instances: dict[str, InstanceState] = {}
    """Those that are not there were in their idle state."""
    memory: MemoryRecord | None = None


class DecisionRecord(BaseModel):
    """`inputs` is None where the decision cannot be replayed; `plan` is what it came to, as `plan_as_json` says it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    v: Literal[1]
    kind: Literal["decision"]
    run: str
    time: float
    request_id: str
    number: int = Field(ge=1)
    """Of the request's decisions, from 1."""
    sampled: bool
    generation: int = Field(lt=2**63)
    facts: dict[str, Any]
    inputs: Inputs | None
    plan: dict[str, Any]
    attempts: tuple[dict[str, Any], ...]
    """What was sent by this decision, and what each came to."""
    outcome: Literal["ok", "failed", "cancelled"]
    """Of the request, as are the rest."""
    error: str | None
    latency_ms: float
    sent: int
    """Attempts in all."""

    def restore_facts(self) -> Facts:
        """Raises ValidationError where they are none."""
        _FACTS_NUMBERS.validate_python(self.facts)
        found = _HASHES.validate_python(self.facts.get("affinity", {}))
        affinity = Affinity(*(found.get(name) for name in Affinity._fields))
        return _FACTS.validate_python({**self.facts, "affinity": affinity})


def look(
    generation: Generation, plan: Plan, state: State, now: float, exclude: Iterable[str], panic: bool
) -> dict[str, Json]:
    """The inputs of a decision that has just been made; `state` is what its policy remembered before it."""
    instances: dict[str, Json] = {}
    for each in generation.instances:
        if taken := take(each, plan.facts, now):
            instances[each.name] = taken
    inputs: dict[str, Json] = {"seed": plan.seed, "now": now}
    if excluded := list(exclude):
        inputs["exclude"] = list[Json](excluded)
    if panic:
        inputs["panic"] = True
    if instances:
        inputs["instances"] = instances
    if state is not None and plan.change is not None:
        policy, indexes = plan.change.key
        inputs["memory"] = {"policy": policy, "indexes": list(indexes), "state": state_as_json(state)}
    return inputs


def plan_as_json(plan: Plan) -> dict[str, Json]:
    """All of a plan that somebody could compare. `scores` stand in the order of `order`."""
    scores: dict[str, float | None] = {}
    if plan.choice is not None:
        scores = {each.name: score for each, score in zip(plan.candidates, plan.choice.scores, strict=True)}
    order, error = plan.order, plan.error
    return {
        "policy": plan.policy,
        "chosen": None if plan.chosen is None else plan.chosen.name,
        "order": list[Json](order),
        "scores": [scores[name] for name in order],
        "rejected": dict[str, Json](plan.rejected),
        "note": plan.note,
        "error": None if error is None else error.code.value,
        "retry_after_ms": None if error is None else error.retry_after_ms,
        "recovery": plan.recovery,
    }


def facts_as_json(facts: Facts) -> dict[str, Json]:
    hashes = dict(zip(Affinity._fields, facts.affinity.hashes, strict=True))
    verdict = None if facts.verdict is None else {**facts.verdict._asdict(), "dropped": sorted(facts.verdict.dropped)}
    return {**facts._asdict(), "sizes": facts.sizes._asdict(), "affinity": hashes, "verdict": verdict}


def decision_as_json(
    plan: Plan, inputs: dict[str, Json] | None, *, run: str, time: float, sampled: bool, **rest: Json
) -> dict[str, Json]:
    """`rest`: what became of it."""
    return {
        "v": VERSION, "kind": "decision", "run": run, "time": time, "sampled": sampled, "generation": plan.generation,
        "facts": facts_as_json(plan.facts), "inputs": inputs, "plan": plan_as_json(plan), **rest,
    }  # fmt: skip
