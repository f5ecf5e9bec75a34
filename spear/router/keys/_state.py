"""One key and the quota that it draws on: ok, cooling until, dead because. Pure.

A quota group cools as a whole: its keys share what the provider counts. Keys without a group are one each. A dead key
stays dead until its value changes, which makes a new state, or until one request that tried it out succeeds.
"""

from __future__ import annotations

import math
from typing import Final, Literal

from spear.backends import Key
from spear.config import KeysConfig
from spear.router._facts import hash_name

_MOST_DOUBLINGS: Final = 30


class QuotaGroup:
    """`until` is never shortened. `times`: how many 429s in a row, where those of requests that were out together
    count once, or a burst would look like a minute of refusals."""

    __slots__ = ("_since", "times", "until")

    def __init__(self) -> None:
        self.until = -math.inf
        self.times = 0
        self._since = -math.inf

    def cool(self, sent: float, now: float, retry_after_s: float | None, settings: KeysConfig) -> None:
        """A request that was sent at `sent` was refused for its rate."""
        if sent >= self._since:
            self.times += 1
        self._since = now
        wait = retry_after_s
        if wait is None:
            wait = min(settings.cool_s * 2.0 ** min(self.times - 1, _MOST_DOUBLINGS), settings.cool_max_s)
        self.until = max(self.until, now + wait)

    def answered(self, sent: float) -> None:
        if sent >= self._since:
            self.times = 0

    def cooling(self, now: float) -> bool:
        return now < self.until


class KeyState:
    """What is known of one value of one credential, by all instances that use it. `key.id` may be shown."""

    __slots__ = ("dead", "group", "identity", "key", "own", "retry_at", "trial", "weight")

    def __init__(self, key: Key, *, group: QuotaGroup | None = None, weight: int = 1) -> None:
        self.key = key
        self.own: Final = QuotaGroup()
        self.group = group or self.own
        self.weight = weight
        self.identity = hash_name(f"key {key.id}")
        self.dead: str | None = None
        """What the backend said when it refused it; None = it is not dead."""
        self.retry_at = -math.inf
        self.trial: object | None = None
        """The one attempt that tries a dead key out."""

    def __repr__(self) -> str:
        return f"<KeyState {self.key.id}>"

    def admits(self, now: float) -> bool:
        """A dead key is admitted for a trial, once that is due, one at a time."""
        return not self.group.cooling(now) and self._usable(now)

    def waits(self, now: float) -> bool:
        """Nothing but its quota keeps it."""
        return self.group.cooling(now) and self._usable(now)

    def _usable(self, now: float) -> bool:
        return self.dead is None or (self.trial is None and now >= self.retry_at)

    def begin(self, attempt: object) -> None:
        if self.dead is not None:
            self.trial = attempt

    def kill(self, attempt: object, now: float, why: str, settings: KeysConfig) -> bool:
        """True where it was alive before."""
        fresh = self.dead is None
        self.dead = why
        self.retry_at = max(self.retry_at, now + settings.revive_s)
        self.release(attempt)
        return fresh

    def answered(self, attempt: object, sent: float) -> bool:
        """`attempt` had a good answer. True where that revives it: others may have been out since before it died."""
        self.group.answered(sent)
        if self.trial is not attempt:
            return False
        self.trial = self.dead = None
        return True

    def release(self, attempt: object) -> None:
        """`attempt` is over and says nothing of the key."""
        if self.trial is attempt:
            self.trial = None

    def forget(self) -> None:
        self.dead = self.trial = None
        self.group.until = -math.inf
        self.group.times = 0

    def stirred(self, now: float) -> bool:
        """Whether there is anything to ask or to be told: it is dead, cools, or was limited and not answered since."""
        return self.dead is not None or self.group.times > 0 or self.group.cooling(now)

    def state(self, now: float) -> Literal["ok", "cooling", "dead"]:
        if self.dead is not None:
            return "dead"
        return "cooling" if self.group.cooling(now) else "ok"

    def observe(self, now: float) -> dict[str, object]:
        """`for_s`: how long a cooling key cools yet, or how long it is until a dead one may be tried out."""
        state = self.state(now)
        until = self.retry_at if state == "dead" else self.group.until
        more: dict[str, object] = {} if state == "ok" else {"for_s": round(max(0.0, until - now), 3)}
        if self.dead is not None:
            more["reason"] = self.dead
        return {"id": self.key.id, "state": state, **more}
