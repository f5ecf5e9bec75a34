"""Settings of the design that this version does not have, by where they stand. They are refused by name, never ignored:
a file that asks for hedging must not run without it."""

from __future__ import annotations

from typing import Final

TOP: Final = frozenset(
    {
        "hedge", "probe", "limits", "redis", "simulate",
    }
)  # fmt: skip
BACKEND: Final = frozenset(
    {
        "breaker", "outlier", "hedge", "mirror", "key_pool", "key_policy", "slow_start", "group", "quota_group",
        "region",
    }
)  # fmt: skip
CREDENTIAL: Final = frozenset({"weight"})
ROUTE: Final = frozenset(
    {
        "retry", "budget", "limits",
    }
)  # fmt: skip
TASK: Final = frozenset({"limits", "policy"})
