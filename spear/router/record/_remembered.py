"""What a policy remembered of a set of candidates, as JSON and back."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from spear.ir import Json
from spear.router.policies import Level, State, Wheel


class Remembered(BaseModel):
    """Nothing, a wheel, or the levels of `priority`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    wheel: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...] | None] | None = None
    """Weights, current and effective values."""
    levels: tuple[tuple[str, tuple[int, ...], Remembered], ...] | None = None
    """Policy, positions, and what that policy remembered."""


def state_as_json(state: State) -> dict[str, Json]:
    match state:
        case None:
            return {}
        case Wheel():
            effective: Json = None if state.effective is None else list(state.effective)
            return {"wheel": [list(state.weights), list(state.current), effective]}
        case tuple() if all(isinstance(each, Level) for each in state):
            return {"levels": [[each.within, list(each.positions), state_as_json(each.state)] for each in state]}
        case _:
            raise TypeError(f"a state of type {type(state).__name__} has no form in a record")


def state_of(remembered: Remembered) -> State:
    if remembered.wheel is not None:
        return Wheel(*remembered.wheel)
    if remembered.levels is not None:
        return tuple([Level(within, positions, state_of(inner)) for within, positions, inner in remembered.levels])
    return None
