"""Settings of the design that this version does not have, by where they stand. They are refused by name, never ignored:
a file that asks for hedging must not run without it."""

from __future__ import annotations

from typing import Final

TOP: Final = frozenset(
    {
        "hedge", "probe", "limits", "budgets", "redis", "simulate",
    }
)  # fmt: skip
BACKEND: Final = frozenset(
    {
        "breaker", "outlier", "probe", "hedge", "mirror", "budget", "key_pool", "key_policy", "slow_start", "group",
        "quota_group", "rpm", "tpm", "region",
    }
)  # fmt: skip
LIMITS: Final = frozenset({"rpm", "tpm", "rpd", "tpd", "input_tpm", "output_tpm"})
CREDENTIAL: Final = frozenset({"limits", "rpm", "tpm", "weight", "budget"})
ROUTE: Final = frozenset(
    {
        "on_exhausted", "max_attempts", "retry", "budget", "limits",
    }
)  # fmt: skip
TASK: Final = frozenset({"budget", "limits", "policy"})
