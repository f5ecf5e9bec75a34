"""Power of two choices: two candidates are drawn, and the better one is taken.

Looking at two avoids that everybody runs to the same momentary best, costs the same among a thousand, and is nearly as
even as looking at all.
"""

from __future__ import annotations

from spear.router._draws import Draws


def two_of(count: int, draws: Draws) -> tuple[int, int]:
    """Two different positions, each pair as likely as any other. `count` is at least 2."""
    first, second = draws.below(count), draws.below(count - 1)
    return first, second + 1 if second >= first else second
