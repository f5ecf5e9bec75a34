"""Which models an Ollama server has installed, or is serving now."""

from __future__ import annotations

import math
from typing import Final, Literal

import trio

from spear.backends._http import broken_answer, json_of, open_client
from spear.backends._protocol import Call, Host
from spear.config import InstanceConfig
from spear.ir import BackendError, Clock, ErrorCode, Failure, make_error

_PATH: Final = {"serving": "/api/ps", "installed": "/api/tags"}
MAX_LISTED: Final = 10_000


async def ask_models(
    instance: InstanceConfig, scope: Literal["serving", "installed"], seconds: float
) -> tuple[str, ...]:
    """Their names, in the server's order, each once. `instance` says where. Waits at most `seconds` in all; raises
    `BackendError`."""
    clock: Clock = "total"
    call = Call(deadline=math.inf, connect=seconds, first_event=seconds, idle=seconds)
    with trio.move_on_after(seconds):
        async with open_client(instance, Host()) as client:
            async with client.post(client.url(_PATH[scope]), b"", call, method="GET") as received:
                value = await json_of(received, client.mask)
            models = value.get("models") if isinstance(value, dict) else None
            if models is None and isinstance(value, dict) and "models" in value:
                models = []  # how a server without any may write it
            if not isinstance(models, list) or len(models) > MAX_LISTED:
                raise broken_answer("the answer has no list of models")
            names = [_name(each) for each in models]
            return tuple(dict.fromkeys(name for name in names if name))
    message = f"the list of models did not come within {seconds:g} s"
    raise BackendError(make_error(ErrorCode.TIMEOUT, message, clock=clock), Failure.SERVER)


def _name(model: object) -> str:
    if not isinstance(model, dict):
        return ""
    name = model.get("model") or model.get("name")
    return name.strip() if isinstance(name, str) and name.isprintable() and len(name) <= 512 else ""
