"""`[[spear.budgets]]`: read, and compared with the backends that they pay for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from ._model import Budget, BudgetMatch, InstanceConfig
from ._positions import Path
from ._report import Report, did_you_mean
from ._sections import Table, build, durations, keys_of, only_known

QUANTITIES: Final = ("requests", "tokens", "cost")
_FOR_REQUESTS: Final = frozenset({"all", "task", "guest"})
"""Known of a request before anybody has been chosen for it."""


def read_budget(report: Report, path: Path, values: Table) -> Budget | None:
    values = only_known(report, values, path, keys_of(Budget))
    if isinstance(values.get("match"), dict):
        values["match"] = only_known(report, values["match"], (*path, "match"), keys_of(BudgetMatch))
    name = values.get("name")
    if isinstance(name, str) and name and (name != name.strip() or not name.isprintable()):
        report.add((*path, "name"), "has blanks around it or unprintable characters; expected a plain name")
    if not any(key in values for key in QUANTITIES):
        report.add(path, "limits nothing; expected at least one of `requests`, `tokens` and `cost`")
    per = values.get("per", "all")
    for key in ("soft", "degrade_to"):
        if key in values and isinstance(per, str) and per not in _FOR_REQUESTS:
            expected = " or ".join(f'per = "{each}"' for each in sorted(_FOR_REQUESTS))
            report.add((*path, key), f"has a meaning only beside {expected}")
    kept = durations(report, values, path, ("window",))
    if "window" in values:
        kept.setdefault("window", 1.0)  # reported already, where it was no duration
    budget = build(report, Budget, kept, path)
    return budget and budget.model_copy(update={"origin": report.origin(path, Budget.model_fields)})


def check_budgets(report: Report, top: Table, sections: Mapping[str, Any]) -> None:
    """Names that nothing has, and money that nothing is counted in."""
    instances: list[InstanceConfig | None] = sections["backends"]
    for index, budget in enumerate(sections["budgets"]):
        if budget is None or None in instances:
            continue
        path: Path = ("spear", "budgets", index)
        _check_names(report, path, budget, [each for each in instances if each is not None])


def _check_names(report: Report, path: Path, budget: Budget, instances: Iterable[InstanceConfig]) -> None:
    models = {name for each in instances for name in each.answers_to}
    names = {each.name for each in instances}
    match = budget.match
    for at, name, known, what in (
        ((*path, "degrade_to"), budget.degrade_to, models, "backend has this model or class"),
        ((*path, "match", "model_class"), match.model_class, models, "backend has this model or class"),
        ((*path, "match", "backend"), match.backend, names, "backend has this name"),
    ):
        if name is not None and name.strip() not in known:
            report.add(at, f"no {what}{did_you_mean(name, known)}")
    if budget.cost is None:
        return
    unpriced = sorted(each.name for each in instances if each.price is None and budget.pays(each))
    if unpriced:
        report.warn((*path, "cost"), f"counts nothing at backends without a price: {', '.join(unpriced)}")
