"""The variants that a scenario compares: its configuration, each time with something laid over it.

What a variant says beside `name`, `spear` and `reloads` goes into every route (`policy`, `hedge`, `tau`, …); without a
route, one is made that matches all. `spear` is laid over `[spear]`, table by table; tables of a list are matched by
their `name`, or are added.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from spear.config import POLICIES, Config, Document, Report, did_you_mean, durations, only_known, read, table, tables
from spear.config import Path as KeyPath
from spear.config import Route as RouteConfig
from spear.ir import ConfigError

from ._scenario import Behaviour, Reload, Variant

Table = dict[str, Any]
_OWN: Final = frozenset({"name", "spear", "reloads"})
_NOT_OF_A_ROUTE: Final = frozenset({"match", "origin"})
_OUTSIDE: Final = ("redis", "filters", "decisions")
_OUTSIDE_WITHIN: Final = {"routes": ("filter",), "mirrors": ("path",)}
_LONGEST_NAME: Final = 128
MOST_BACKENDS: Final = 10_000
MOST_CONFIGS: Final = 256
"""Variants and their reloads: each is a whole configuration."""
MOST_COPIES: Final = 200_000
AS_WRITTEN: Final = "as configured"


class _AnyKey(Mapping[str, str]):
    """An environment in which every variable has a value: nobody is asked with these keys."""

    def __getitem__(self, name: str) -> str:
        return f"simulated-{name}"

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def get(self, name: str, default: Any = None) -> Any:
        return self[name]


def read_variants(
    document: Document,
    configuration: Document,
    compare: Sequence[tuple[KeyPath, Table]],
    behaviours: Iterable[Behaviour],
    only: Sequence[str] = (),
) -> tuple[Variant, ...]:
    """At least one: without `compare`, the configuration as it is. `only` those, where a name that no variant has is
    that of a policy. Problems are added to the report of `document`, at the variant that has them; those of the
    configuration itself are raised."""
    behaviours = tuple(behaviours)
    plain = table(configuration.report, configuration.data, (), "spear")
    report = document.report
    _check_amount(report, plain, behaviours, compare)
    base = expand(plain, behaviours)
    config = _config(configuration, base)
    _check_behaviours(report, config, behaviours)
    if only:
        compare = _only(report, compare, only)
    if not compare:
        return (Variant(name=AS_WRITTEN, config=config),)
    variants, seen = [], set()
    for path, values in compare:
        variant = _variant(report, configuration, base, values, path)
        if variant is None:
            continue
        if variant.name in seen:
            report.add((*path, "name"), "is the name of another variant, too")
        seen.add(variant.name)
        _check_backends(report, variant, behaviours, path)
        variants.append(variant)
    return tuple(variants)


def _check_amount(
    report: Report, plain: Table, behaviours: Iterable[Behaviour], compare: Sequence[tuple[KeyPath, Table]]
) -> None:
    """Before any of it is made. Raises `ConfigError`: what is too much is not read on."""
    copies, backends = _copied(behaviours), plain.get("backends")
    names = [each.get("name") for each in backends if isinstance(each, dict)] if isinstance(backends, list) else []
    count = sum(copies.get(name, 1) for name in names if isinstance(name, str))
    reloads = [each.get("reloads") for _, each in compare]
    configs = len(compare) + sum(len(each) for each in reloads if isinstance(each, list))
    if count > MOST_BACKENDS:
        report.add(("simulate", "backends"), f"come to {count} with their copies; expected at most {MOST_BACKENDS}")
    if configs > MOST_CONFIGS:
        report.add(
            ("simulate", "compare"), f"has {configs} variants and reloads; expected at most {MOST_CONFIGS} in all"
        )
    elif count * configs > MOST_COPIES:
        message = f"has {configs} variants and reloads of {count} backends; expected at most {MOST_COPIES} in all"
        report.add(("simulate", "compare"), message)
    report.raise_if_any()


def _only(report: Report, compare: Sequence[tuple[KeyPath, Table]], only: Sequence[str]) -> list[tuple[KeyPath, Table]]:
    named = {str(values.get("name")): (path, values) for path, values in compare}
    found: list[tuple[KeyPath, Table]] = []
    for name in dict.fromkeys(only):
        if name in named:
            found.append(named[name])
        elif name in POLICIES:
            found.append((("simulate", "compare"), {"name": name, "policy": name}))
        elif name != AS_WRITTEN or compare:
            known = sorted({*named, *POLICIES})
            report.add(("simulate", "compare"), f"has no variant, and there is no policy, of that name: {name[:64]!r}"
                       f"{did_you_mean(name, known)}")  # fmt: skip
    return found


def _variant(report: Report, configuration: Document, base: Table, values: Table, path: KeyPath) -> Variant | None:
    known = (RouteConfig.model_fields.keys() - _NOT_OF_A_ROUTE) | _OWN
    values = only_known(report, values, path, known)
    name = values.get("name")
    if not isinstance(name, str) or not name.strip() or not name.isprintable() or len(name) > _LONGEST_NAME:
        report.add((*path, "name"), "is missing or no name; expected one of your choice")
        return None
    patch = table(report, values, path, "spear")
    for_routes = {key: value for key, value in values.items() if key not in _OWN}
    for key in left_out(with_routes(patch, for_routes)):
        report.add(path, f"has {key}, which reaches outside and is not simulated")
    whole = with_routes(lay_over(base, patch), for_routes)
    config = _laid(report, configuration, whole, path)
    reloads = []
    for at, each in tables(report, values, path, "reloads"):
        later = only_known(report, each, at, ("at", "spear"))
        later = durations(report, later, at, ("at",), zero=True)
        if "at" not in later:
            report.add((*at, "at"), "is missing; expected when")
            continue
        whole = lay_over(whole, table(report, later, at, "spear"))
        replaced = _laid(report, configuration, whole, at)
        if replaced is not None:
            reloads.append(Reload(at=later["at"], config=replaced))
    return None if config is None else Variant(name=name, config=config, reloads=tuple(reloads))


def _laid(report: Report, configuration: Document, data: Table, path: KeyPath) -> Config | None:
    try:
        return _config(configuration, data)
    except ConfigError as error:
        for each in error.problems:
            report.add(path, f"with this, {each.key or 'the configuration'} {each.message}")
        return None


def _config(configuration: Document, data: Table) -> Config:
    """As the file itself would be read, with another content and the lines of this one."""
    copy = Document({"spear": closed(data)}, configuration.report.anew(), configuration.folder)
    return read(copy, _AnyKey())


def left_out(data: Table) -> tuple[str, ...]:
    """What of a configuration would reach outside, where time is real: it is not simulated."""
    found = [f"spear.{key}" for key in _OUTSIDE if key in data]
    for key, inner in _OUTSIDE_WITHIN.items():
        value = data.get(key)
        tables_ = [value] if isinstance(value, dict) else value if isinstance(value, list) else []
        found += [f"spear.{key}.{each}" for each in inner if any(isinstance(t, dict) and each in t for t in tables_)]
    return tuple(found)


def closed(data: Table) -> Table:
    """Without that."""
    whole = {key: value for key, value in data.items() if key not in _OUTSIDE}
    for key, inner in _OUTSIDE_WITHIN.items():
        value = whole.get(key)
        if isinstance(value, dict):
            whole[key] = _without(value, inner)
        elif isinstance(value, list):
            whole[key] = [_without(each, inner) if isinstance(each, dict) else each for each in value]
    return whole


def _without(values: Table, keys: Iterable[str]) -> Table:
    return {key: value for key, value in values.items() if key not in keys}


def expand(plain: Table, behaviours: Iterable[Behaviour]) -> Table:
    """With all copies of the backends, and with keys that need no file."""
    copies = _copied(behaviours)
    whole = dict(plain)
    if isinstance(backends := whole.get("backends"), list):
        whole["backends"] = [
            copy for each in backends for copy in (_copies(each, copies) if isinstance(each, dict) else [each])
        ]
    if isinstance(credentials := whole.get("credentials"), list):
        whole["credentials"] = [
            {("env" if key == "file" else key): (f"FILE_{number}" if key == "file" else value)
             for key, value in each.items()} if isinstance(each, dict) else each
            for number, each in enumerate(credentials)
        ]  # fmt: skip
    return whole


def _copied(behaviours: Iterable[Behaviour]) -> dict[str, int]:
    return {each.name: each.copies for each in behaviours if each.copies > 1}


def _copies(backend: Table, copies: Mapping[str, int]) -> list[Table]:
    name = backend.get("name")
    count = copies.get(name, 1) if isinstance(name, str) else 1
    return [backend] if count == 1 else [{**backend, "name": f"{name}-{number + 1}"} for number in range(count)]


def lay_over(under: Table, over: Table) -> Table:
    """`over` wins; tables are merged, and so are lists of tables that have names."""
    whole = dict(under)
    for key, value in over.items():
        before = whole.get(key)
        if isinstance(before, dict) and isinstance(value, dict):
            whole[key] = lay_over(before, value)
        elif isinstance(before, list) and isinstance(value, list) and _all_named(before) and _all_named(value):
            whole[key] = _by_name(before, value)
        else:
            whole[key] = value
    return whole


def _all_named(items: list[Any]) -> bool:
    return all(isinstance(each, dict) and isinstance(each.get("name"), str) for each in items)


def _by_name(under: list[Table], over: list[Table]) -> list[Table]:
    changes = {each["name"]: each for each in over}
    there = {each["name"] for each in under}
    merged = [lay_over(each, changes[each["name"]]) if each["name"] in changes else each for each in under]
    return merged + [each for each in over if each["name"] not in there]


def with_routes(whole: Table, more: Table) -> Table:
    if not more:
        return whole
    routes = whole.get("routes") or [{}]
    if not isinstance(routes, list):
        return whole
    return {**whole, "routes": [{**each, **more} if isinstance(each, dict) else each for each in routes]}


def _check_behaviours(report: Report, config: Config, behaviours: Sequence[Behaviour]) -> None:
    """Each backend has a model, and each model a backend."""
    names = {each.name for each in config.backends}
    seen: set[str] = set()
    for number, each in enumerate(behaviours):
        path = ("simulate", "backends", number, "name")
        if each.name in seen:
            report.add(path, "is modelled twice")
        seen.add(each.name)
        if not names.intersection(model_names(each)):
            report.add(path, "is no backend of the configuration")
    _check_modelled(report, config, behaviours, ("simulate",))


def _check_backends(report: Report, variant: Variant, behaviours: Sequence[Behaviour], path: KeyPath) -> None:
    for config in (variant.config, *(each.config for each in variant.reloads)):
        _check_modelled(report, config, behaviours, path)


def _check_modelled(report: Report, config: Config, behaviours: Sequence[Behaviour], path: KeyPath) -> None:
    modelled = {name for each in behaviours for name in model_names(each)}
    missing = [each.name for each in config.backends if each.name not in modelled]
    if missing:
        report.add(path, f"has no model of {', '.join(missing[:8])}; expected [[simulate.backends]] for each")


def model_names(behaviour: Behaviour) -> list[str]:
    """Of the configured backends that behave so."""
    if behaviour.copies == 1:
        return [behaviour.name]
    return [f"{behaviour.name}-{number + 1}" for number in range(behaviour.copies)]
