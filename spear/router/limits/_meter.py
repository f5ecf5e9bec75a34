"""What every limit is made of: one quantity of one subject, reserved before a send and settled after it.

A meter answers at once, from what this process knows. One that shares its limit with other processes answers from a
lease that somebody else renews.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

Quantity = Literal["requests", "input_tokens", "output_tokens", "tokens", "cost"]


class Quota(NamedTuple):
    """What is limited: `limit` of `quantity` in `period` seconds, for `subject`. The same quota is the same meter, also
    across reloads. `rate` refills continuously, up to a burst; `window` is counted in windows that start anew."""

    subject: str
    """Who: `backend:gpt-us`, `key:openai-a`, `budget:daily:alice`."""
    quantity: Quantity
    limit: float
    period: float
    shape: Literal["rate", "window"] = "rate"


class Meter(Protocol):
    """Never waits and never blocks. `now` is Trio's clock, and never goes back. Amounts are at least 0."""

    def admits(self, amount: float, now: float) -> bool:
        """Whether `amount` may be reserved now. An amount above the limit itself never may."""
        ...

    def ready_at(self, amount: float, now: float) -> float:
        """When `amount` will be admitted if nothing else is reserved until then: `now` where it is already, infinity
        where it never will be."""
        ...

    def reserve(self, amount: float, now: float) -> None:
        """Take `amount`, also where it is not admitted: whoever asks decides, the meter counts."""
        ...

    def settle(self, reserved: float, used: float, since: float, now: float) -> None:
        """`reserved`, taken at `since`, came to `used`: the rest is given back as if it had never been taken, an excess
        is taken now. Once for each reservation."""
        ...

    def remaining(self, now: float) -> float:
        """What would be admitted now; never below 0."""
        ...


MeterFactory = Callable[[Quota], Meter]
"""Makes the meter of a quota that nobody has one for yet."""
