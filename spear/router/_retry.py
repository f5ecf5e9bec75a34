"""When the same instance is asked again, and what keeps that from making a bad hour worse.

State and arithmetic only. An attempt is *extra* if it is not its request's first. Extra attempts at another instance
are bounded by `max_attempts` and by the breakers; they take room in the budget, but are not refused for want of it,
since they are what keeps a request alive when one backend dies. Asking the same instance again is refused.
"""

from __future__ import annotations

from typing import Final

from spear.config import RetryConfig

_REFILL: Final = 0.1
_MOST_DOUBLINGS: Final = 30


def jitter(draw: float) -> float:
    """A factor from 0.8 to 1.2, of a number from 0 to 1."""
    return 0.8 + 0.4 * draw


def backoff(count: int, factor: float, settings: RetryConfig) -> float:
    """Seconds to wait before the `count`-th repetition, from 1."""
    doublings = min(max(0, count - 1), _MOST_DOUBLINGS)
    return min(settings.backoff_s * 2.0**doublings, settings.backoff_max_s) * factor


def not_before(
    now: float, deadline: float, retry_after_ms: int | None, wait_s: float, settings: RetryConfig
) -> float | None:
    """When the same instance may be asked again: exactly when it said, else after `wait_s`. None = not within this
    request: it would be too late, or longer than anybody should wait."""
    wait = wait_s if retry_after_ms is None else retry_after_ms / 1000
    if retry_after_ms is not None and wait > settings.retry_after_max_s:
        return None
    return now + wait if now + wait < deadline else None


class Throttle:
    """Of one instance: a failure takes a token, a success gives a tenth back; below half there is no repetition."""

    __slots__ = ("_most", "tokens")

    def __init__(self, settings: RetryConfig) -> None:
        self._most = settings.throttle_tokens
        self.tokens = float(self._most)

    def tune(self, settings: RetryConfig) -> None:
        """As full as it was."""
        self.tokens *= settings.throttle_tokens / self._most
        self._most = settings.throttle_tokens

    @property
    def allows(self) -> bool:
        return self.tokens >= self._most / 2

    def failed(self) -> None:
        self.tokens = max(0.0, self.tokens - 1)

    def succeeded(self) -> None:
        if self.tokens < self._most:
            self.tokens = min(float(self._most), self.tokens + _REFILL)


class Budget:
    """Of a whole router: the extra attempts that are out, each by an object of its own."""

    __slots__ = ("_extra", "denied")

    def __init__(self) -> None:
        self._extra: set[object] = set()
        self.denied = 0

    def __len__(self) -> int:
        return len(self._extra)

    def allows(self, active: int, settings: RetryConfig) -> bool:
        """Whether one more repetition may go out while `active` requests are under way."""
        return len(self._extra) + 1 <= max(settings.budget_min, settings.budget_share * active)

    def take(self, attempt: object) -> None:
        self._extra.add(attempt)

    def give_back(self, attempt: object) -> None:
        self._extra.discard(attempt)
