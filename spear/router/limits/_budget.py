"""A budget: from its configuration to what each backend's attempts draw on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from spear.config import Budget as BudgetConfig
from spear.config import InstanceConfig
from spear.router._facts import Facts

from ._allowance import MOST_SUBJECTS, Allowance, PerSubject, Scope, Single, Who
from ._meter import MeterFactory, Quantity, Quota

QUANTITIES: Final[tuple[Quantity, ...]] = ("requests", "tokens", "cost")
BUDGET: Final = "budget:"
SOFT: Final = 0.8
"""The share of a budget from which on requests go to the cheaper class, where it is not written."""
_SHOWN: Final = 10


def _task(facts: Facts) -> str | None:
    return None if facts.mirrored else facts.task_id or ""


def _guest(facts: Facts) -> str | None:
    return None if facts.mirrored else facts.execution_id


_WHO: Final[Mapping[str, Who]] = {"task": _task, "guest": _guest}


class Budget:
    """`shared` are the allowances of all, of tasks or of guests; those of a backend or a key are made where it is
    known. `meter` gives the meter of a quota, the same one for the same quota."""

    __slots__ = ("_above", "_meter", "_models", "_scope", "config", "fixed", "reason", "shared")

    def __init__(
        self,
        config: BudgetConfig,
        instances: Iterable[InstanceConfig],
        meter: MeterFactory,
        factory: MeterFactory,
        former: Budget | None,
    ) -> None:
        self.config = config
        self.reason = f"{BUDGET}{config.name}"
        self._meter = meter
        self._above: set[str] = set()
        """Those who have crossed the soft limit and have not come back."""
        self._scope = Scope(config.match.operation, config.match.task)
        self._models = frozenset(name for each in instances if config.pays(each) for name in each.answers_to)
        self.fixed: dict[str, list[Single]] = {}
        """Of keys and backends, by their names."""
        known: dict[Quota, PerSubject] = {}
        if former is not None and self._same_as(former):
            known = {each.quota: each for each in former.shared if isinstance(each, PerSubject)}
            self._above = former._above
        self.shared: tuple[Single | PerSubject, ...] = tuple(
            known.get(quota) or self._share(quota, factory)
            for quota in (self._quotas() if config.per not in {"backend", "key"} else ())
        )

    def of(self, name: str) -> tuple[Allowance, ...]:
        """Those of one backend or one key."""
        found = self.fixed.get(name)
        if found is None:
            found = self.fixed[name] = [
                self._single(quota._replace(subject=f"{quota.subject}:{name}")) for quota in self._quotas()
            ]
        return tuple(found)

    def degrades(self, facts: Facts, now: float) -> bool:
        """Whether so much of it is used that a request is to go to the cheaper class."""
        return self.config.degrade_to is not None and facts.backend is None and self._is_soft(facts, now)

    @property
    def warns(self) -> bool:
        """Whether a crossing of its soft limit is only said."""
        return self.config.soft is not None and self.config.degrade_to is None

    def crossed(self, facts: Facts, now: float) -> bool:
        """Whether whoever pays for `facts` is found above the soft limit for the first time since it was below."""
        who = _WHO.get(self.config.per)
        subject = "" if who is None else who(facts) or ""
        if not self._is_soft(facts, now):
            self._above.discard(subject)
            return False
        if subject in self._above or len(self._above) >= MOST_SUBJECTS:
            return False
        self._above.add(subject)
        return True

    def _is_soft(self, facts: Facts, now: float) -> bool:
        config = self.config
        if config.match.model_class is not None and facts.model not in self._models:
            return False
        share = SOFT if config.soft is None else config.soft
        return any(
            each.covers(facts) and each.quota.limit - each.remaining(facts, now) >= share * each.quota.limit
            for each in self.shared
        )

    def observe(self, now: float) -> dict[str, object]:
        """What remains: of each quantity, or of it for those that have least left."""
        config = self.config
        shown: dict[str, object] = {"per": config.per, "window_s": config.window}
        for quota in self._quotas():
            shown[f"{quota.quantity}_limit"] = quota.limit
        for each in self.shared:
            left = each.left(now) if isinstance(each, Single) else each.lowest(now, _SHOWN)
            shown[f"{each.quota.quantity}_left"] = left
            if isinstance(each, PerSubject):
                shown["subjects"] = len(each)
        for position, quota in enumerate(self._quotas() if self.fixed else ()):
            shown[f"{quota.quantity}_left"] = {name: each[position].left(now) for name, each in self.fixed.items()}
        return shown

    def _quotas(self) -> list[Quota]:
        return [
            Quota(self.reason, quantity, limit, self.config.window, "window")
            for quantity in QUANTITIES
            if (limit := getattr(self.config, quantity)) is not None
        ]

    def _share(self, quota: Quota, factory: MeterFactory) -> Single | PerSubject:
        who = _WHO.get(self.config.per)
        return self._single(quota) if who is None else PerSubject(self.reason, quota, factory, who, self._scope)

    def _single(self, quota: Quota) -> Single:
        return Single(self.reason, quota, self._meter(quota), self._scope)

    def _same_as(self, former: Budget) -> bool:
        """Whether those of tasks and guests go on: who pays for what is as it was."""
        return (former.config.per, former._scope) == (self.config.per, self._scope)
