"""Who may run next among guests that use up their time slice.

Every poll of a guest may take one epoch tick. If all spinning guests resumed in the same pass of the loop, k of them
would hold it for k ticks; so they share one token in FIFO order, and only its holder resumes per pass. Guests that
come from a hostcall or just start do not need the token; but while somebody has already used up a whole slice in this
pass they stand back, one after the other, for a pass in which nobody has.
"""

from __future__ import annotations

from typing import Final

import trio

PATIENCE: Final = 4
"""Passes that the first in line stands back at most, so that it never starves behind spinners."""


class Slices:
    def __init__(self) -> None:
        self.token = trio.StrictFIFOLock()
        self.spent = False
        self._door = trio.StrictFIFOLock()
        self._loop: trio.lowlevel.TrioToken | None = None

    def use_up(self) -> None:
        """Note that a guest ran to its epoch deadline in this pass of the loop."""
        if not self.spent:
            self.spent = True
            if self._loop is None:
                self._loop = trio.lowlevel.current_trio_token()
            self._loop.run_sync_soon(self._next_pass, idempotent=True)

    def _next_pass(self) -> None:
        self.spent = False

    async def stand_back(self) -> None:
        """Wait in line for a pass in which nobody has used up a slice yet. A cancellation point."""
        async with self._door:
            for _ in range(PATIENCE):
                if not self.spent:
                    return
                await trio.lowlevel.checkpoint()
