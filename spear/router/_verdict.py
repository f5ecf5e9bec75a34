"""What an external filter said of one request, checked and clamped. Pure.

A filter can only narrow: it drops candidates, changes their weights within bounds, forces one of them, or refuses the
request. Names that are no candidates are ignored and counted, so that nothing it says brings anybody in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, NamedTuple

from spear.ir import Json

_KEYS: Final = ("drop", "weights", "force", "reject")
_MESSAGE_CHARS: Final = 512


class BadAnswer(ValueError):
    """What a filter answered is none of the things it may say; the text says in what way."""


class Verdict(NamedTuple):
    """`failed` is why the filter could not be asked, empty where it was; `closed`: the request is refused for that.
    `weights` has the new ones, each above 0. `ignored` counts names that were no candidates, `clamped` the weights
    that were out of bounds."""

    filter: str
    dropped: frozenset[str] = frozenset()
    weights: Mapping[str, int] = {}
    forced: str | None = None
    rejected: str | None = None
    failed: str = ""
    closed: bool = False
    ignored: int = 0
    clamped: int = 0

    @property
    def note(self) -> str:
        """For an explanation; empty where the filter changed nothing."""
        if self.failed:
            return f"filter {self.filter} failed ({self.failed})"
        parts = [
            f"forced {self.forced}" if self.forced is not None else "",
            f"dropped {len(self.dropped)}" if self.dropped else "",
            f"re-weighted {len(self.weights)}" if self.weights else "",
            f"clamped {self.clamped}" if self.clamped else "",
            f"{self.ignored} unknown names ignored" if self.ignored else "",
        ]
        said = ", ".join(part for part in parts if part)
        return f"filter {self.filter}: {said}" if said else ""


def parse_verdict(name: str, value: Json, weights: Mapping[str, int], max_reweight: float) -> Verdict:
    """What the filter `name` said of the candidates that `weights` has, with those that are configured. Raises
    `BadAnswer`."""
    if value is None:
        return Verdict(name)
    if not isinstance(value, dict):
        raise BadAnswer("is no object")
    for key in value:
        if key not in _KEYS:
            raise BadAnswer(f"has an unknown key; known are {', '.join(_KEYS)}")
    rejected = _rejected(value.get("reject"))
    if rejected is not None:
        return Verdict(name, rejected=rejected)
    named, new = _dropped(value.get("drop")), _weights(value.get("weights"))
    dropped = {each for each in named if each in weights} | {
        each for each, weight in new.items() if weight == 0 and each in weights
    }
    forced = value.get("force")
    if forced is not None and (not isinstance(forced, str) or forced not in weights):
        raise BadAnswer("forces one that is no candidate")
    if forced in dropped:
        raise BadAnswer("forces one that it drops")
    kept: dict[str, int] = {}
    clamped = 0
    for each, weight in new.items():
        configured = weights.get(each, 0)
        if configured == 0 or each in dropped:
            continue
        most = max(1, math.floor(configured * max_reweight))
        bounded = min(most, max(1, round(min(weight, most))))
        clamped += weight > most
        if bounded != configured:
            kept[each] = bounded
    ignored = len({each for each in (*named, *new) if each not in weights})
    return Verdict(name, frozenset(dropped), kept, forced, ignored=ignored, clamped=clamped)


def _rejected(value: Json) -> str | None:
    if value is None:
        return None
    message = value.get("message", "") if isinstance(value, dict) else None
    if not isinstance(message, str):
        raise BadAnswer('has a `reject` that is not {"message": text}')
    # What a caller gets to see is one line.
    line = "".join(character if character.isprintable() else " " for character in message[:_MESSAGE_CHARS])
    return line.strip() or "no reason given"


def _dropped(value: Json) -> set[str]:
    if value is None:
        return set()
    if not isinstance(value, list):
        raise BadAnswer("has a `drop` that is no list of names")
    names = {each for each in value if isinstance(each, str)}
    if any(not isinstance(each, str) for each in value):
        raise BadAnswer("has a `drop` that is no list of names")
    return names


def _weights(value: Json) -> dict[str, float]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadAnswer("has `weights` that are no object of name and number")
    found: dict[str, float] = {}
    for name, weight in value.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
            raise BadAnswer("has `weights` with something that is no number of 0 or more")
        found[name] = weight
    return found
