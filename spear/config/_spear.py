"""The `[spear]` layout: everything that is wrong is a problem, nothing is skipped."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path as FilePath
from typing import Any, Final

from spear.ir import Limits

from . import _later
from ._budgets import check_budgets, read_budget
from ._credentials import UnusableCredential, from_environment, from_file, is_variable_name
from ._discovery import read_discovery
from ._filters import filter_of
from ._hedge import check_continuation, check_hedges, hedge_of
from ._mcp import credentials_of, read_mcp
from ._media import read_media
from ._model import (
    Config,
    Credential,
    DecisionsConfig,
    GuestLimits,
    HealthConfig,
    InstanceConfig,
    KeyLimits,
    KeysConfig,
    LogConfig,
    Mirror,
    MirrorLimits,
    Price,
    Probe,
    RetryConfig,
    Route,
    RouteMatch,
    RouterLimits,
    TaskConfig,
    Timeouts,
)
from ._positions import Path
from ._read import Document, describe
from ._redis import read_redis
from ._references import check_references
from ._report import Report, did_you_mean
from ._sections import Table, build, durations, keys_of, only_known, table, tables
from ._urls import checked_url

POLICIES: Final = frozenset(
    {
        "weighted_random", "round_robin", "weighted_round_robin", "least_inflight", "ewma_latency", "peak_ewma",
        "consistent_hash", "priority", "cheapest",
    }
)  # fmt: skip
_USED_BY: Final = {
    "within_level": frozenset({"priority"}),
    "spill": frozenset({"priority"}),
    "tau": frozenset({"ewma_latency", "peak_ewma", "cheapest"}),
    "hash_key": frozenset({"consistent_hash"}),
    "load_bound": frozenset({"consistent_hash"}),
}
"""Of the options of a route, the policies that read them."""

_DURATIONS = ("connect", "first_event", "idle", "total")
_HEALTH_DURATIONS = ("window_s", "open_s", "open_max_s", "probe_timeout_s", "eject_s", "eject_max_s")
_RETRY_DURATIONS = ("backoff_s", "backoff_max_s", "retry_after_max_s")
_KEYS_DURATIONS = ("cool_s", "cool_max_s", "revive_s")
_ORDERED = (
    ("health", "open_s", "open_max_s"),
    ("health", "eject_s", "eject_max_s"),
    ("retries", "backoff_s", "backoff_max_s"),
    ("keys", "cool_s", "cool_max_s"),
)
_NO_PLACE: Final = "is no place for a file; expected a file in a folder that exists"
_SCALARS = ("default_policy", "allow_degradation", "on_exhausted", "debug_raw", "tracing")


def read(document: Document, environ: Mapping[str, str]) -> Config:
    """A `Config`; raises `ConfigError` with all problems."""
    report, top, path = document.report, table(document.report, document.data, (), "spear"), ("spear",)
    known = keys_of(Config, without=("layout", "skipped", "discovered", "warnings", "origin"))
    top = only_known(report, top, path, known, _later.TOP)
    backends = [_backend(report, item, at) for at, item in tables(report, top, path, "backends")]
    used = {name for backend in backends if backend for name in backend.credentials}
    filters = [filter_of(report, item, at, document.folder) for at, item in tables(report, top, path, "filters")]
    used |= {each.credential for each in filters if each and each.credential is not None}
    mcp = read_mcp(report, top, document, environ)
    used |= credentials_of(mcp)
    sections: Table = {
        "router": _limits(report, RouterLimits, top, "router", ("default_timeout_s",)),
        "health": _limits(report, HealthConfig, top, "health", _HEALTH_DURATIONS, zero=("slow_start_s", "max_wait_s")),
        "retries": _limits(report, RetryConfig, top, "retries", _RETRY_DURATIONS),
        "keys": _limits(report, KeysConfig, top, "keys", _KEYS_DURATIONS),
        "redis": read_redis(report, ("spear", "redis"), top["redis"], document, environ) if "redis" in top else None,
        "mirrors": _mirrors(report, top, document),
        "decisions": _decisions(report, top, document),
        "mcp": mcp,
        "guests": _limits(report, GuestLimits, top, "guests", zero=("timeout_s",)),
        "media": read_media(report, top, document.folder, environ),
        "log": _limits(report, LogConfig, top, "log"),
        "discovery": read_discovery(report, top),
        "credentials": [
            _credential(report, *each, document, environ, used) for each in _items(report, top, "credentials")
        ],
        "routes": [_route(report, *each) for each in _items(report, top, "routes")],
        "filters": filters,
        "tasks": [_task(report, *each) for each in _items(report, top, "tasks")],
        "budgets": [read_budget(report, *each) for each in _items(report, top, "budgets")],
        "backends": backends,
    }
    for key, low, high in _ORDERED:
        _check_order(report, sections[key], ("spear", key), low, high)
    scalars = build(report, Config, {key: top[key] for key in _SCALARS if key in top}, path)
    _policy(report, top, path, "default_policy")
    check_references(report, top, sections)
    check_hedges(report, sections["routes"], sections["router"])
    _check_files(report, sections["mirrors"], sections["decisions"])
    check_budgets(report, top, sections)
    if not top.get("backends") and not (sections["discovery"] and sections["discovery"].ollama.enabled):
        report.warn(path, "no backend is configured: every request will be refused")
    report.raise_if_any()
    assert scalars is not None
    whole = {key: tuple(value) if isinstance(value, list) else value for key, value in sections.items()}
    return scalars.model_copy(
        update={**whole, "warnings": report.warnings, "origin": report.origin(path, Config.model_fields)}
    )


def _items(report: Report, top: Table, key: str) -> list[tuple[Path, Table]]:
    return list(tables(report, top, ("spear",), key))


def _limits(
    report: Report, model: type[Any], top: Table, key: str, seconds: tuple[str, ...] = (), zero: tuple[str, ...] = ()
) -> Any:
    """`seconds` are durations; those in `zero` may be 0, too."""
    path = ("spear", key)
    values = only_known(report, table(report, top, ("spear",), key), path, keys_of(model))
    values = durations(report, durations(report, values, path, seconds), path, zero, zero=True)
    if model is GuestLimits and values.get("timeout_s") == 0:
        values["timeout_s"] = None
    return build(report, model, values, path)


def _mirrors(report: Report, top: Table, document: Document) -> Any:
    """A relative path is relative to the folder of the configuration."""
    path = ("spear", "mirrors")
    values = table(report, top, ("spear",), "mirrors")
    name = values.get("path")
    if isinstance(name, str):
        if not name.strip() or "\0" in name:
            report.add((*path, "path"), 'is empty or no path; expected the name of a file, such as "mirrors.jsonl"')
            values = {key: value for key, value in values.items() if key != "path"}
        else:
            found = (document.folder / name).absolute()
            if not _takes_a_file(found):
                report.add((*path, "path"), _NO_PLACE)
            values = {**values, "path": str(found)}
    return _limits(report, MirrorLimits, {**top, "mirrors": values}, "mirrors", ("timeout_s",))


def _decisions(report: Report, top: Table, document: Document) -> DecisionsConfig | None:
    """A relative path is relative to the file that names it."""
    section: DecisionsConfig | None = _limits(report, DecisionsConfig, top, "decisions")
    if section is None or section.path is None:
        return section
    path = (document.folder / section.path).absolute()
    if not _takes_a_file(path):
        report.add(("spear", "decisions", "path"), _NO_PLACE)
    return section.model_copy(update={"path": str(path)})


def _takes_a_file(path: FilePath) -> bool:
    """Whether a file may stand there: one that does, or nothing in a folder. A pipe or a device is not one that could
    be rotated."""
    try:
        return "\0" not in str(path) and (path.is_file() or (path.parent.is_dir() and not path.exists()))
    except OSError:  # too long, or not to be entered
        return False


def _check_files(report: Report, mirrors: MirrorLimits | None, decisions: DecisionsConfig | None) -> None:
    if mirrors and decisions and mirrors.path is not None and str(mirrors.path) == decisions.path:
        report.add(("spear", "decisions", "path"), "is the file of spear.mirrors.path already; each needs its own")


def _check_order(report: Report, section: object, path: Path, low: str, high: str) -> None:
    least, most = getattr(section, low, 0.0), getattr(section, high, 0.0)
    if least > most:
        report.add((*path, high), f"is {most:g}; expected at least {low}, which is {least:g}")


def _credential(
    report: Report, path: Path, values: Table, document: Document, environ: Mapping[str, str], used: Collection[str]
) -> Credential | None:
    values = only_known(report, values, path, ("name", "env", "file", "quota_group", "limits", "weight"))
    sources = [key for key in ("env", "file") if key in values]
    if len(sources) != 1:
        report.add(
            path,
            "has both `env` and `file`; expected one of them"
            if sources
            else "has no `env` and no `file`; expected one of them",
        )
        return None
    kind = sources[0]
    place = values.pop(kind)
    if not isinstance(place, str) or not place.strip():
        report.add((*path, kind), f"is {'empty' if place == '' else describe(place)}; expected a string")
        return None
    if kind == "env" and not is_variable_name(place):
        report.add(
            (*path, kind),
            "is not the name of an environment variable (letters, digits, _); the key itself never stands here",
        )
        return None
    _name(report, values, path)
    if isinstance(values.get("limits"), dict):
        values["limits"] = only_known(report, values["limits"], (*path, "limits"), keys_of(KeyLimits))
    credential = build(report, Credential, {**values, "source": f"{kind}:{place}"}, path)
    if credential is None or credential.name not in used:
        return credential
    try:
        value = from_environment(place, environ) if kind == "env" else from_file(document.folder / place)
    except UnusableCredential as error:
        report.add((*path, kind), str(error))
        return None
    return credential.model_copy(update={"value": value})


def _backend(report: Report, values: Table, path: Path) -> InstanceConfig | None:
    values = only_known(report, values, path, keys_of(InstanceConfig) - _later.BACKEND, _later.BACKEND)
    url = values.pop("base_url", None)
    if url is not None:
        url = checked_url(report, url, (*path, "base_url"))
    _name(report, values, path)
    for key, model in (("limits", Limits), ("price", Price), ("timeouts", Timeouts), ("probe", Probe)):
        if isinstance(values.get(key), dict):
            values[key] = only_known(report, values[key], (*path, key), keys_of(model))
    if isinstance(values.get("timeouts"), dict):
        clocks = dict(values["timeouts"])
        if clocks.get("first_event") == "auto":
            del clocks["first_event"]
        values["timeouts"] = durations(report, clocks, (*path, "timeouts"), _DURATIONS)
    if isinstance(values.get("probe"), dict):
        values["probe"] = durations(report, values["probe"], (*path, "probe"), ("every", "timeout"))
    for key in ("ops", "transports", "credentials"):
        _not_empty(report, values, path, key)
    _each_once(report, values, path, "credentials")
    if isinstance(values.get("options"), dict):
        no_secrets(report, values["options"], (*path, "options"))
    instance = build(report, InstanceConfig, values, path)
    return instance and instance.model_copy(
        update={"base_url": url, "origin": report.origin(path, InstanceConfig.model_fields)}
    )


def no_secrets(report: Report, options: Mapping[str, Any], path: Path) -> None:
    """Options are shown in explanations, so that no key may stand in them."""
    for key, value in options.items():
        if key.lower() in {"api_key", "apikey", "token", "secret", "password", "authorization", "base_url", "url"}:
            report.add((*path, key), "does not belong into options, which are shown; use `credentials` or `base_url`")
        elif isinstance(value, dict):
            no_secrets(report, value, (*path, key))


def _route(report: Report, path: Path, values: Table) -> Route | None:
    values = only_known(report, values, path, keys_of(Route), _later.ROUTE)
    if isinstance(values.get("match"), dict):
        values["match"] = only_known(report, values["match"], (*path, "match"), keys_of(RouteMatch))
    if isinstance(values.get("mirror"), dict):
        values["mirror"] = only_known(report, values["mirror"], (*path, "mirror"), keys_of(Mirror))
    for key in ("policy", "within_level"):
        _policy(report, values, path, key)
    if isinstance(values.get("allow_policies"), list):
        for index, name in enumerate(values["allow_policies"]):
            _check_policy(report, name, (*path, "allow_policies", index))
    for key in ("allow_policies", "fallback", "hash_key"):
        _not_empty(report, values, path, key)
    _options(report, values, path)
    check_continuation(report, values, path)
    values = hedge_of(report, values, path)
    values = durations(report, values, path, ("tau",))
    route = build(report, Route, values, path)
    return route and route.model_copy(update={"origin": report.origin(path, Route.model_fields)})


def _options(report: Report, values: Table, path: Path) -> None:
    """An option that no policy of its route reads is a mistake, and so is not ignored."""
    if values.get("within_level") == "priority":
        report.add((*path, "within_level"), "is the policy that makes the levels; expected another one")
    allowed = values.get("allow_policies")
    named = [values.get("policy"), *(allowed if isinstance(allowed, list) else ())]
    if "priority" in named:
        named.append(values.get("within_level"))
    for key, policies in _USED_BY.items():
        if key in values and not any(isinstance(name, str) and name in policies for name in named):
            beside = " or ".join(f'policy = "{name}"' for name in sorted(policies))
            report.add((*path, key), f"has a meaning only beside {beside}")


def _task(report: Report, path: Path, values: Table) -> TaskConfig | None:
    values = only_known(report, values, path, keys_of(TaskConfig), _later.TASK)
    task = build(report, TaskConfig, values, path)
    return task and task.model_copy(update={"origin": report.origin(path, TaskConfig.model_fields)})


def _name(report: Report, values: Table, path: Path) -> None:
    name = values.get("name")
    if isinstance(name, str) and name and (name != name.strip() or not name.isprintable()):
        report.add((*path, "name"), "has blanks around it or unprintable characters; expected a plain name")


def _not_empty(report: Report, values: Table, path: Path, key: str) -> None:
    if values.get(key) == []:
        report.add((*path, key), "is an empty list; name at least one, or leave the key out")


def _each_once(report: Report, values: Table, path: Path, key: str) -> None:
    found = values.get(key)
    names = found if isinstance(found, list) else []
    for index, each in enumerate(names):
        if isinstance(each, str) and each in names[:index]:
            report.add((*path, key, index), "is there twice; expected each once")


def _policy(report: Report, values: Table, path: Path, key: str) -> None:
    if key in values:
        _check_policy(report, values[key], (*path, key))


def _check_policy(report: Report, name: object, path: Path) -> None:
    if not isinstance(name, str):
        return  # the model says so
    if name not in POLICIES:
        report.add(path, f"is no policy{did_you_mean(name, POLICIES)}")
