"""Parameters that a dialect has no word for: refused, or left out where the request allows that."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from spear.ir import ChatRequest, ErrorCode, RequestEnvelope, RoutingError, make_error

STEP: Final = "parameters_dropped"
"""The step of a request's `degradation` that allows it."""
_NEUTRAL: Final = {
    "n": (1,), "logprobs": (False,), "top_logprobs": (0,), "presence_penalty": (0,), "frequency_penalty": (0,),
}  # fmt: skip
"""Values that ask for nothing."""


def lacking(chat: ChatRequest, names: Iterable[str]) -> tuple[str, ...]:
    """Those of `names`, parameters of `chat.generation`, that the request gives and that ask for something."""
    return tuple(
        name
        for name in names
        if (value := getattr(chat.generation, name)) is not None and value not in _NEUTRAL.get(name, ())
    )


def without(request: RequestEnvelope, names: tuple[str, ...], dialect: str) -> tuple[str, ...]:
    """What goes into `degraded` where `names` are left out; empty where there are none. Raises `RoutingError`
    (missing_capabilities) where the request does not allow that."""
    if not names:
        return ()
    allowed = request.degradation
    if allowed.mode != "allow" or (allowed.steps and STEP not in allowed.steps):
        message = f"{dialect} has no {', '.join(names)}; take it out, or allow the degradation {STEP}"
        raise RoutingError(
            make_error(ErrorCode.MISSING_CAPABILITIES, message, operation=request.operation, required=names)
        )
    return tuple(f"{STEP}:{name}" for name in names)
