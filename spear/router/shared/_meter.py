"""One limit that several processes share, as one of them meets it.

Redis has what all have taken, in slices of time. This process takes a lease, some of what is left, for a few seconds,
and answers from it. What it reserves beyond its lease is reported later. Redis counts each slice as long as the period
and a lease together, so that what is leased at the end of a slice and used at the end of its lease is still counted: in
no window more than the limit is used.

Without a lease (Redis is away, has lost its data, or has not been asked yet) the process has its share: the limit by
the number of processes, of what was left for all when it last heard.
"""

from __future__ import annotations

from collections import deque
from math import ceil, inf
from typing import Final, NamedTuple

from spear.router.limits import Quota

from ._ledger import SLICES, Ledger
from ._link import Link

_ROUNDING: Final = 1e-9
_BUSY_SHARE: Final = 0.5
_IDLE_SHARE: Final = 0.25
"""Of its even part of what is left: what a process leases that uses little, or whose windows are long, since what a
crashed process had leased counts as used until its slice is over."""
_LONG_S: Final = 300.0
_SOON_S: Final = 0.1


class Asked(NamedTuple):
    """What one meter asks of Redis. `moved` is what it still has, to be stamped anew; `back` goes back, by slice."""

    slice_s: float
    slices: int
    limit: float
    slice: int
    moved: float
    back: tuple[tuple[int, float], ...]
    forced: float
    want: float
    share: float


class Answered(NamedTuple):
    """`slice` is that of now, `moved` how much of what was moved was still there, `used` what all have taken, leases
    included; `frees_in` when the oldest of that is over."""

    slice: int
    moved: float
    granted: float
    used: float
    frees_in: float


class SharedMeter:
    __slots__ = (
        "_expires", "_forced", "_frees_at", "_from", "_full", "_gap", "_gap_until", "_largest", "_left", "_link",
        "_missed", "_own", "_recent", "_returns", "_since_answer", "_slice", "_used", "last_use", "quota",
    )  # fmt: skip

    def __init__(self, quota: Quota, link: Link) -> None:
        self.quota = quota
        self._link = link
        self._own = Ledger(quota.period)
        self._left = self._full = 0.0  # of the lease, and how much it was
        self._slice = 0
        self._expires = -inf
        self._forced = 0.0  # used without a lease, and not reported yet
        self._returns: dict[int, float] = {}
        # Since when reservations are of which slice, None for what is not reported yet; oldest first.
        self._from: deque[tuple[float, int | None]] = deque()
        self._used: float | None = None  # of all, as of the last answer
        self._frees_at = -inf
        self._gap = 0.0  # what others have of this process's share, after a loss
        self._gap_until = -inf
        self._missed = self._since_answer = self._recent = 0.0
        self._largest = 1.0 if quota.quantity == "requests" else 0.0
        self.last_use = -inf

    # --- a Meter ------------------------------------------------------------------------------------------------

    def admits(self, amount: float, now: float) -> bool:
        """Decides nothing but that; a lease that is too small is also noted as such, for the next round."""
        limit = self.quota.limit * (1 + _ROUNDING)
        if amount > limit:
            return False
        if amount <= self._lease(now) + limit * _ROUNDING:
            return True
        if self._link.leasing and self._used is not None:
            if amount > self._missed:
                self._missed = amount
                if limit - self._used + self._left >= amount:  # else there is nothing to be had for the moment
                    self._link.wake(self)
            return False
        return self._share_used(now) + amount <= limit / self._link.nodes

    def ready_at(self, amount: float, now: float) -> float:
        """An estimate: what others will give back or take is not known."""
        limit = self.quota.limit
        if amount > limit * (1 + _ROUNDING):
            return inf
        if self.admits(amount, now):
            return now
        if self._link.leasing and self._used is not None:
            soon = limit - self._used + self._left >= amount
            return now + _SOON_S if soon else max(now + _SOON_S, self._frees_at)
        share = limit / self._link.nodes - (self._gap if now < self._gap_until else 0.0)
        ready = self._own.ready_at(amount, share, now)
        # More than its share, it has to wait for Redis.
        return ready if ready < inf else max(now + self._link.lease_s, self._gap_until)

    def reserve(self, amount: float, now: float) -> None:
        self._own.take(amount, now)
        self._since_answer += amount
        self._largest = max(self._largest, min(amount, self.quota.limit))
        self.last_use = now
        had = self._lease(now)
        taken = min(had, amount)
        if taken:
            self._left -= taken
        elif amount:
            self._note(now, None)
        self._forced += amount - taken
        if 2 * self._left <= self._full or self not in self._link.awake:
            self._link.wake(self)

    def settle(self, reserved: float, used: float, since: float, now: float) -> None:
        if used >= reserved:
            if used > reserved:
                self.reserve(used - reserved, now)
            return
        back = reserved - used
        self._own.give_back(back, since)
        number = self._slice_at(since)
        if number is not None:
            self._returns[number] = self._returns.get(number, 0.0) + back
            if self not in self._link.awake:
                self._link.wake(self)
        elif self._from and since >= self._from[0][0]:  # not reported yet
            self._forced = max(0.0, self._forced - back)

    def remaining(self, now: float) -> float:
        limit = self.quota.limit
        if self._link.leasing and self._used is not None:
            return min(limit, max(0.0, limit - self._used + self._lease(now)))
        return max(0.0, limit / self._link.nodes - self._share_used(now))

    # --- for the actor ------------------------------------------------------------------------------------------

    def ask(self, now: float) -> Asked:
        """What to ask of Redis now. What it returns is asked once: an answer that never comes gives nothing back."""
        left = self._lease(now)
        if left < self._left:  # the lease is over
            self._give_up()
        self._recent = max(self._since_answer, self._recent / 2)
        self._since_answer = 0.0
        want = max(2 * self._recent, self._missed, self._largest)
        self._missed = 0.0
        back, self._returns = tuple(self._returns.items()), {}
        quota = self.quota
        slice_s = quota.period / SLICES
        busy = self._recent > 0 and quota.period <= _LONG_S
        return Asked(
            slice_s,
            ceil((quota.period + self._link.lease_s) / slice_s) + 1,
            quota.limit,
            self._slice,
            self._left,
            back,
            self._forced,
            want,
            _BUSY_SHARE if busy else _IDLE_SHARE,
        )

    def answered(self, asked: Asked, answer: Answered, sent: float, now: float) -> None:
        """`sent` is when `asked` was made: the lease counts from there, earlier than Redis counts it."""
        self._left = max(0.0, self._left - max(0.0, asked.moved - answer.moved)) + answer.granted
        self._full = self._left
        self._slice = answer.slice
        self._expires = sent + self._link.lease_s
        self._forced = max(0.0, self._forced - asked.forced)
        for position, (since, number) in enumerate(self._from):
            if number is None:
                self._from[position] = (since, answer.slice)
        self._note(now, answer.slice)
        self._used = answer.used
        self._frees_at = now + answer.frees_in
        if self._link.leasing:
            self._gap = 0.0

    def unleashed(self, now: float) -> None:
        """It will not hear of others: what is left of its lease is the last. Of its share, the others' use is taken
        off once, as if it were evenly everybody's: so what all may still use is what was left."""
        if self._used is not None:
            self._gap = max(0.0, self._used / self._link.nodes - self._own.used(now))
            self._gap_until = now + self.quota.period
        self._used = None

    def forgotten(self, now: float) -> None:
        """Redis has lost its data: all that this process has used lately is to be reported again."""
        self._left, self._expires = 0.0, -inf
        self._returns.clear()
        self._from.clear()
        self._note(-inf, None)
        self._forced = self._own.used(now)

    def farewell(self, now: float) -> Asked:
        """What to ask of Redis so that everything goes back and nothing is leased."""
        self._give_up()
        return self.ask(now)._replace(want=0.0, share=0.0)

    # --- inside -------------------------------------------------------------------------------------------------

    def _lease(self, now: float) -> float:
        return self._left if now < self._expires else 0.0

    def _share_used(self, now: float) -> float:
        return self._own.used(now) + (self._gap if now < self._gap_until else 0.0)

    def _give_up(self) -> None:
        if self._left:
            self._returns[self._slice] = self._returns.get(self._slice, 0.0) + self._left
            self._left = 0.0

    def _note(self, now: float, number: int | None) -> None:
        if self._from and self._from[-1][1] == number:
            return
        self._from.append((now, number))
        while len(self._from) > 2 * SLICES:
            self._from.popleft()

    def _slice_at(self, since: float) -> int | None:
        found = None
        for begun, number in self._from:
            if begun > since:
                break
            found = number
        return found
