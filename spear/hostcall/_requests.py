"""The requests of one guest that go on while it does something else.

They live in a nursery that is opened around the run of the guest: what is left when the guest ends is cancelled then.
What one of them raises beyond the errors of requests ends the guest, as it does in a call that blocks.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import trio

from spear.hostcall._errno import EAGAIN, Refused
from spear.hostcall._holdings import Holdings
from spear.hostcall._last_error import LastError
from spear.hostcall._response import Response
from spear.ir import ErrorCode, make_error

LARGE_BYTES: Final = 1024 * 1024
"""From here on a request counts with what its guest has the host hold."""


class Requests:
    """What response descriptors and the requests behind them share."""

    __slots__ = ("_max", "_nursery", "holdings", "in_flight", "last_error", "touch")

    def __init__(
        self, holdings: Holdings, touch: Callable[[], None], last_error: LastError, max_in_flight: int
    ) -> None:
        self.holdings = holdings
        self.touch = touch  # some readiness changed
        self.last_error = last_error
        self.in_flight = 0
        self._max = max_in_flight
        self._nursery: trio.Nursery | None = None

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Around the run of the guest. What the block or a request raises comes out as it is, not in a group."""
        failed: BaseException | None = None
        try:
            async with trio.open_nursery() as self._nursery:
                yield
                self._nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            if len(group.exceptions) != 1:
                raise
            failed = group.exceptions[0]
        finally:
            self._nursery = None
        if failed is not None:
            raise failed

    def check_room(self) -> None:
        """Raises `Refused` (-11) where one more would be over the cap.

        A request counts until its body is complete or its terminal event queued. What was cancelled and has not quite
        ended has a cap of its own, so that starting and closing in a loop heaps nothing up.
        """
        assert self._nursery is not None, "the guest is not inside `opened`"
        if self.in_flight >= self._max or len(self._nursery.child_tasks) >= 2 * self._max:
            raise Refused(EAGAIN)

    def admit(self, response: Response, size: int) -> int:
        """A large request of `size` bytes is made anew for its backend, and that counts as held until it has ended. How
        much to give `start` for it, or -1 where there is no room: the response has failed then."""
        if size < LARGE_BYTES:
            return 0
        if not self.holdings.fits(size):
            response.fail(make_error(ErrorCode.OVERLOADED, "the guest has the host hold too much"))
            return -1
        self.holdings.take(size)
        return size

    def start(
        self,
        response: Response,
        work: Callable[[], Awaitable[None]],
        timeout_s: float | None = None,
        *,
        admitted: int = 0,
    ) -> None:
        """Run `work`, which settles the response, in the background. Check the room first. Gives back what was
        `admitted`.

        Closing the response cancels it. Beyond `timeout_s`, time in which the guest does not read included, the
        response fails with `timeout`.
        """
        assert self._nursery is not None
        self.in_flight += 1
        response.on_settled = self._leave
        scope = trio.CancelScope()
        response.attach(scope)
        self._nursery.start_soon(
            self._run, response, work, scope, timeout_s, admitted, name=f"{response.call} {response.fd}"
        )

    async def _run(
        self,
        response: Response,
        work: Callable[[], Awaitable[None]],
        scope: trio.CancelScope,
        timeout_s: float | None,
        admitted: int,
    ) -> None:
        try:
            with scope:
                with trio.move_on_after(float("inf") if timeout_s is None else timeout_s) as clock:
                    try:
                        await work()
                    except Refused as refused:
                        response.give_up(refused)
                if clock.cancelled_caught:
                    response.expire()
                assert response.settled, f"{response.call} ended without a body or a terminal event"
        finally:
            self.holdings.take(-admitted)

    def _leave(self) -> None:
        self.in_flight -= 1

    def close(self) -> None:
        """The guest is over, its descriptors are closed. Whatever still refers to this does not keep the guest."""
        self.touch = _nothing


def _nothing() -> None:
    pass
