"""How a guest can end other than by returning or trapping. Raised through whatever it is in, to its run."""

from __future__ import annotations


class Exited(Exception):
    """The guest ended itself by proc_exit."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Stopped(Exception):
    """The guest was told to end, and a hostcall trapped because of it."""
