"""Settings of the design that this version does not have, by where they stand. They are refused by name, never ignored:
a file that asks for hedging must not run without it."""

from __future__ import annotations

from typing import Final

TOP: Final = frozenset(
    {
        "hedge", "probe", "limits",
    }
)  # fmt: skip
BACKEND: Final = frozenset(
    {
        "breaker", "outlier", "hedge", "mirror", "slow_start", "group", "quota_group", "region",
    }
)  # fmt: skip
ROUTE: Final = frozenset(
    {
        "retry", "budget", "limits",
    }
)  # fmt: skip
TASK: Final = frozenset({"limits", "policy"})
