"""A handle with which somebody else can end a running guest."""

from __future__ import annotations

import trio

from spear.hostcall._guest import Guest


class Termination:
    """Pass one to `GuestEngine.run`; one handle serves one run.

    After `terminate` (or `destroy`) every hostcall of the guest traps, a hostcall it is blocked in is woken and traps,
    and a loop without hostcalls is stopped at its next time slice. Neither call waits; the run then ends with status
    "terminated". Called before the run begins, the guest does not start. Call from the loop that runs the guest.
    """

    def __init__(self) -> None:
        self._guest: Guest | None = None
        self._scope: trio.CancelScope | None = None
        self._text: str | None = None
        self.message = ""

    @property
    def requested(self) -> bool:
        return self._text is not None

    def terminate(self, message: str = "") -> None:
        """End the execution. The first call counts."""
        self._request("Terminate execution", message)

    def destroy(self, message: str = "") -> None:
        """End the execution because its instance is going away. The first call counts."""
        self._request("Destroy instance", message)

    def _request(self, what: str, message: str) -> None:
        if self._text is None:
            self._text = f"{what}: {message}" if message else what
            self.message = message
            self._apply()

    def attach(self, guest: Guest, scope: trio.CancelScope) -> None:
        if self._scope is not None:
            raise RuntimeError("a Termination handle serves one run; make a new one")
        self._guest, self._scope = guest, scope
        self._apply()

    def _apply(self) -> None:
        if self._text is not None and self._guest is not None and self._scope is not None:
            self._guest.stop_text = self._text
            self._scope.cancel()
