"""All meters of a runtime: made from a configuration, kept across reloads as far as their quota is the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from spear.config import Config, KeyLimits
from spear.ir import Limits
from spear.router._facts import Facts
from spear.telemetry import get_logger

from ._allowance import Allowance, Single
from ._bounds import Bounds
from ._budget import BUDGET, Budget
from ._counts import LimitCounts
from ._gcra import Gcra
from ._meter import Meter, MeterFactory, Quantity, Quota
from ._window import Window

if TYPE_CHECKING:
    from spear.router._instance import Instance

_log = get_logger("spear.router")
LIMIT: Final = "limit:"
_MINUTE: Final = 60.0
_DAY: Final = 86_400.0
_RATES: Final[tuple[tuple[str, Quantity, float], ...]] = (
    ("rpm", "requests", _MINUTE),
    ("tpm", "tokens", _MINUTE),
    ("input_tpm", "input_tokens", _MINUTE),
    ("output_tpm", "output_tokens", _MINUTE),
    ("rpd", "requests", _DAY),
    ("tpd", "tokens", _DAY),
)
RATES: Final = tuple(name for name, _, _ in _RATES)
"""The keys of limits that are about time."""
RATE_REASONS: Final = frozenset(f"{LIMIT}{prefix}{name}" for prefix in ("", "key_") for name in RATES)


def local_meter(quota: Quota) -> Meter:
    """A meter of this process alone; it starts with nothing used."""
    return Gcra(quota) if quota.shape == "rate" else Window(quota)


class Book:
    __slots__ = ("_factory", "_meters", "budgets", "counts", "degrades", "limiting", "warns")

    def __init__(self, factory: MeterFactory = local_meter) -> None:
        self._factory = factory
        self._meters: dict[Quota, Meter] = {}
        self.budgets: tuple[Budget, ...] = ()
        self.degrades = False
        """Whether any budget ever sends requests to another class."""
        self.warns: tuple[Budget, ...] = ()
        """Those that only say when their soft limit is crossed."""
        self.limiting = False
        """Whether anybody has a rate or is paid from a budget."""
        self.counts = LimitCounts()

    def open(self, config: Config, instances: Sequence[Instance]) -> None:
        """From here on `instances` are limited as `config` says. What was used of a quota that is still there stays
        used; what has been learned of an instance that stays, too."""
        former, self._meters = self._meters, {}

        def meter(quota: Quota) -> Meter:
            found = self._meters.get(quota)
            if found is None:
                known = former.get(quota)
                found = self._meters[quota] = self._factory(quota) if known is None else known
            return found

        before = {each.config.name: each for each in self.budgets}
        configs = [each.config for each in instances]
        self.budgets = tuple(
            Budget(each, configs, meter, self._factory, before.get(each.name)) for each in config.budgets
        )
        self.degrades = any(each.degrade_to is not None for each in config.budgets)
        self.warns = tuple(each for each in self.budgets if each.warns)
        limits = {each.name: each.limits for each in config.credentials}
        for instance in instances:
            bounds = self._bounds(instance, limits, meter)
            if bounds is not None:
                bounds.succeed(instance.bounds)
            instance.bounds = bounds
        self.limiting = any(each.bounds is not None for each in instances)

    def begun(self, facts: Facts, now: float) -> None:
        """A request was made of `facts`: what budgets have to say of it is counted, and each crossing is in the log."""
        for reason in facts.degraded:
            self.counts.degrade(reason.removeprefix(BUDGET))
        for each in self.warns:
            if each.crossed(facts, now):
                name = each.config.name
                self.counts.warn(name)
                _log.warning("budget_soft_limit", budget=name, per=each.config.per, soft=each.config.soft)

    def refused(self, rejected: Mapping[str, str], last: Iterable[str]) -> None:
        """A decision left out `rejected`, by name and reason. The step that asks limits is the last but for those of
        the reasons `last`, so that nobody has to look at what stands before it."""
        budgets = set()
        for name in reversed(list(rejected)):
            reason = rejected[name]
            if reason in RATE_REASONS:
                self.counts.limit(name, reason.removeprefix(LIMIT))
            elif reason.startswith(BUDGET):
                budgets.add(reason)
            elif reason not in last:
                break
        for reason in budgets:
            self.counts.reject(reason.removeprefix(BUDGET))

    def degraded(self, facts: Facts, now: float) -> Facts:
        """`facts`, of the cheaper class where a budget that is nearly used up says so: of one budget after the other,
        each at most once."""
        for each in self.budgets:
            to = each.config.degrade_to
            if to is not None and to.strip() != facts.model and each.degrades(facts, now):
                facts = facts._replace(model=to.strip(), degraded=(*facts.degraded, each.reason))
        return facts

    def observe(self, now: float) -> Mapping[str, object]:
        return {each.config.name: each.observe(now) for each in self.budgets}

    def _bounds(self, instance: Instance, limits: Mapping[str, KeyLimits], meter: MeterFactory) -> Bounds | None:
        own = _rates(f"backend:{instance.name}", "", instance.config.limits, meter)
        keyed = {key.id: _rates(f"key:{key.id}", "key_", limits[key.id], meter) for key in instance.keys}
        for budget in self.budgets:
            if not budget.config.pays(instance.config):
                continue
            if budget.config.per == "backend":
                own += budget.of(instance.name)
            elif budget.config.per == "key":
                for key_id in keyed:
                    keyed[key_id] += budget.of(key_id)
            else:
                own += budget.shared
        keyed = keyed if any(keyed.values()) else {}
        return Bounds(own, keyed, instance.price) if own or keyed else None


def _rates(subject: str, prefix: str, limits: Limits | KeyLimits, meter: MeterFactory) -> tuple[Allowance, ...]:
    return tuple(
        Single(f"{LIMIT}{prefix}{name}", quota, meter(quota))
        for name, quantity, period in _RATES
        if (most := getattr(limits, name)) is not None
        for quota in (Quota(subject, quantity, most, period, "rate" if period == _MINUTE else "window"),)
    )
