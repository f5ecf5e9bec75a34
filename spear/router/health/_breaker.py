"""A circuit breaker for one instance and operation.

    closed     everything passes. Opens after `failures` in a row, or where less than `min_success` of at least
               `min_requests` in the window succeeded.
    open       nothing passes until `until`: `open_s` at first, twice as long with each opening in a row, up to
               `open_max_s`, times the jitter. A failure of a request that was still out may prolong it; nothing
               shortens it.
    half-open  one request at a time passes, the probe. `close_after` successes close; a failure opens again. A probe
               that has not answered by its deadline has failed: nobody waits for it longer than that.

A neutral end (the caller left, the request was wrong) gives the probe's place back and says nothing else. Outcomes of
requests that were sent before the present state was entered neither close nor open it. A breaker that opens again soon
after it closed goes on where it stopped, so that a flapping backend is asked less and less often.

Requests of the router's own, active probes, pass as others do; what they say while it is closed is another thing
(`probed`).
"""

from __future__ import annotations

import math
from typing import Final, Literal

from spear.config import HealthConfig

from ._window import Window

BreakerState = Literal["closed", "open", "half_open"]
_LOOK_AGAIN_S: Final = 1.0
_MOST_DOUBLINGS: Final = 30


class Trial:
    """One request under a breaker, from its send to its verdict."""

    __slots__ = ("breaker", "epoch", "probe", "proved")

    def __init__(self, breaker: Breaker, epoch: int, *, probe: bool) -> None:
        self.breaker = breaker
        self.epoch = epoch
        self.probe = probe
        self.proved = False


class Breaker:
    """`now` is on any clock that does not run backwards; `jitter` is a factor around 1."""

    __slots__ = (
        "_consecutive", "_epoch", "_expires", "_lapsed_until", "_probe", "_probes_failed", "_settings", "_successes",
        "_window", "closed", "closed_at", "opened", "succeeded_at", "times", "until",
    )  # fmt: skip

    def __init__(self, settings: HealthConfig) -> None:
        self._settings = settings
        self._window = Window(settings.window_s)
        self._consecutive = 0
        self._probes_failed = 0  # active ones, in a row
        self._epoch = 0
        self._probe: Trial | None = None
        self._expires = 0.0  # when the probe is overdue, and until when the breaker is open then
        self._lapsed_until = 0.0
        self._successes = 0
        self.closed = True
        self.closed_at: float | None = None
        """When it closed last; None = it has never been open."""
        self.times = 0
        """Openings in a row."""
        self.opened = 0
        """Openings in all."""
        self.until = 0.0
        self.succeeded_at = -math.inf
        """When a request was answered last, or a stream began to be."""

    def tune(self, settings: HealthConfig) -> None:
        """An opening that is under way stays as long as it was to be."""
        self._settings = settings
        self._window.tune(settings.window_s)

    # --- asking: changes nothing ----------------------------------------------------------------------------

    def state(self, now: float) -> BreakerState:
        if self.closed:
            return "closed"
        return "open" if now < self._open_until(now) else "half_open"

    def admits(self, now: float) -> bool:
        return self.closed or (now >= self._open_until(now) and not self._probing(now))

    def recovers_at(self, now: float) -> float:
        """Where it does not admit: when to look again, which is after `now`. The answer of a probe may come earlier."""
        return min(self._expires, now + _LOOK_AGAIN_S) if self._probing(now) else self._open_until(now)

    def _probing(self, now: float) -> bool:
        return self._probe is not None and now < self._expires

    def _open_until(self, now: float) -> float:
        return self.until if self._probe is None or now < self._expires else self._lapsed_until

    # --- reporting --------------------------------------------------------------------------------------------

    def begin(self, now: float, jitter: float) -> Trial:
        """A request is sent. One that is sent though the breaker does not admit it (in a panic) decides nothing."""
        self._lapse(now)
        probe = not self.closed and self.admits(now)
        trial = Trial(self, self._epoch, probe=probe)
        if probe:
            self._probe = trial
            self._expires = now + self._settings.probe_timeout_s
            self._lapsed_until = max(self.until, self._expires + self._length(self.times + 1) * jitter)
        return trial

    def proved(self, trial: Trial, now: float) -> None:
        """The request is being answered, though it has not ended yet: enough for a probe."""
        self.succeeded_at = now
        if trial is self._probe:
            trial.proved = True
            self.succeeded(trial, now)
            trial.epoch = self._epoch

    def succeeded(self, trial: Trial, now: float) -> None:
        self._lapse(now)
        self.succeeded_at = now
        if self.closed:
            if trial.epoch == self._epoch:
                self._consecutive = self._probes_failed = 0
                self._window.add(True, now)
        elif trial is self._probe:
            self._probe = None
            self._successes += 1
            if self._successes >= self._settings.close_after:
                self._close(now)

    def failed(self, trial: Trial, now: float, jitter: float) -> None:
        self._lapse(now)
        if self.closed:
            if trial.epoch == self._epoch:
                self._consecutive += 1
                self._window.add(False, now)
                if self._is_bad():
                    self._open(now, jitter)
        elif trial is self._probe or (trial.proved and trial.epoch == self._epoch):
            self._open(now, jitter)
        elif not trial.probe and now < self.until:
            self.until = max(self.until, now + self._length(self.times) * jitter)

    def probed(self, trial: Trial, ok: bool, now: float, jitter: float) -> None:
        """How an active probe ended. It closes and opens as a request does. While the breaker is closed its failures
        count beside those of requests, in a row of their own, and its successes take back nothing but that row: a
        backend that answers probes and fails requests is still found out."""
        if trial.probe or not self.closed:
            if ok:
                self.succeeded(trial, now)
            else:
                self.failed(trial, now, jitter)
        elif trial.epoch == self._epoch:
            self._probes_failed = 0 if ok else self._probes_failed + 1
            if not ok and self._is_bad():
                self._open(now, jitter)

    def neutral(self, trial: Trial, now: float) -> None:
        self._lapse(now)
        if trial is self._probe:
            self._probe = None

    def _is_bad(self) -> bool:
        settings, window = self._settings, self._window
        if self._consecutive + self._probes_failed >= settings.failures:
            return True
        total = window.ok + window.failed
        return total >= settings.min_requests and window.ok < settings.min_success * total

    def _lapse(self, now: float) -> None:
        """Of a probe that is overdue: what it was decided to mean when it was sent."""
        if self._probe is not None and now >= self._expires:
            self._enter_open(self._lapsed_until)

    def _open(self, now: float, jitter: float) -> None:
        recovered = self.closed and self.closed_at is not None
        if recovered and now - (self.closed_at or 0.0) > max(self._settings.window_s, self._length(self.times)):
            self.times = 0
        self._enter_open(now + self._length(self.times + 1) * jitter)

    def _enter_open(self, until: float) -> None:
        self.times += 1
        self.opened += 1
        self._epoch += 1
        self.closed = False
        self._probe = None
        self._successes = self._consecutive = self._probes_failed = 0
        self._window.clear()
        self.until = max(self.until, until)

    def _close(self, now: float) -> None:
        self._epoch += 1
        self.closed = True
        self.closed_at = now

    def _length(self, times: int) -> float:
        settings = self._settings
        doublings = min(max(0, times - 1), _MOST_DOUBLINGS)
        return min(settings.open_s * 2.0**doublings, settings.open_max_s)
