"""The state of one running guest: everything a hostcall can see of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spear.hostcall._fiber import Fiber, Runtime
from spear.hostcall._limits import Limits
from spear.hostcall._log import LogRing
from spear.hostcall._memory import GuestMemory


class Exited(Exception):  # noqa: N818  (an outcome)
    """The guest ended itself by proc_exit."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Stopped(Exception):  # noqa: N818  (an outcome)
    """The guest was told to end and has now been stopped."""


class Guest:
    """Made for one execution and thrown away with it. `close` frees the store."""

    __slots__ = ("fiber", "log", "memory", "stop_text")

    def __init__(self, runtime: Runtime, engine_address: int, limits: Limits, log: LogRing) -> None:
        self.memory = GuestMemory()
        self.log = log
        self.stop_text: str | None = None  # set from outside: the next hostcall logs it and traps
        self.fiber = Fiber(runtime, self, engine_address, limits)

    def stop(self) -> Stopped:
        """Note in the log that the guest is being stopped, once."""
        assert self.stop_text is not None
        if not isinstance(self.fiber.ending, Stopped):
            self.log.add("warn", self.stop_text)
        return Stopped(self.stop_text)

    def close(self) -> None:
        self.memory.detach()
        self.fiber.close()
