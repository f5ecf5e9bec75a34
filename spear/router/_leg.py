"""What the course of a request consists of: attempts, and pauses between them."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from actors import Ref
from spear.backends import BackendMessage, Call
from spear.ir import RequestEnvelope, Usage

from ._bell import Bell
from ._decide import Plan
from ._hedge import Purse
from ._instance import Instance
from .health import Trial
from .keys import KeyState
from .limits import Reservation

Outcome = Literal["ok", "failed", "refused", "superseded", "cancelled"]
FIRST_EVENT_S: Final = 60.0
"""The first-event clock where the configuration leaves it to the router."""


class Leg:
    """One attempt: at whom, with what, until when. Times on Trio's clock. `timed`: the policies know its time. `usage`:
    what the backend said so far; `chars`: how much of a stream has passed through."""

    __slots__ = (
        "call", "chars", "deadline", "first_event_at", "instance", "key", "plan", "purse", "reason", "ref", "request",
        "reservation", "started", "streamed", "timed", "trial", "usage",
    )  # fmt: skip

    def __init__(
        self,
        plan: Plan,
        instance: Instance,
        ref: Ref[BackendMessage],
        reason: str,
        request: RequestEnvelope,
        started: float,
        trial: Trial | None,
    ) -> None:
        self.plan = plan
        self.instance = instance
        self.ref = ref
        self.reason = reason
        self.request = request
        self.started = started
        self.trial = trial
        self.key: KeyState | None = None
        self.first_event_at: float | None = None
        self.timed = False
        self.reservation: Reservation | None = None
        self.usage: Usage | None = None
        self.chars = 0
        self.streamed = False
        self.purse: Purse | None = None  # that it put something in, or was paid from

    def limit(self, deadline: float, upstream: float) -> None:
        """`deadline` is the request's; `upstream` is that of whoever asked, if it is earlier."""
        timeouts = self.instance.config.timeouts
        self.deadline = min(deadline, self.started + timeouts.total)
        self.call = Call(
            deadline=min(self.deadline, upstream),
            connect=timeouts.connect,
            first_event=timeouts.first_event or FIRST_EVENT_S,
            idle=timeouts.idle,
            key=None if self.key is None else self.key.key,
        )


class Pause(NamedTuple):
    """Nothing to send until `until`, on Trio's clock, or until the bell rings where there is one."""

    until: float
    bell: Bell | None = None
