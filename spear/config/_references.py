"""Names that are used twice, names that nothing has, and routes that nothing reaches."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ._model import Origin, Route, RouteMatch
from ._positions import Path
from ._report import Report, did_you_mean, show_key
from ._sections import Table


def check_references(report: Report, top: Table, sections: Mapping[str, Any]) -> None:
    """Names that are used twice, or that nothing has."""
    named = (("credentials", "name"), ("backends", "name"), ("filters", "name"), ("tasks", "id"), ("budgets", "name"))
    for key, field in named:
        _unique(report, top, key, field)
    credentials = _written(top, "credentials", "name")
    backends = _written(top, "backends", "name")
    for at, item in _tables_of(top, "backends"):
        _known_names(report, item.get("credentials"), (*at, "credentials"), credentials, "[[spear.credentials]]")
    for at, item in _tables_of(top, "tasks"):
        _known_names(report, item.get("allow_backends"), (*at, "allow_backends"), backends, "[[spear.backends]]")
    for at, item in _tables_of(top, "routes"):
        mirror = item.get("mirror")
        if isinstance(mirror, dict) and "to" in mirror:
            _known_names(report, [mirror["to"]], (*at, "mirror"), backends, "[[spear.backends]]", key="to")
    _filters(report, top, credentials)
    _mcp(report, sections, credentials)
    _models(report, top, sections)
    _unreachable(report, sections["routes"])


def _filters(report: Report, top: Table, credentials: Collection[str]) -> None:
    known = _written(top, "filters", "name")
    used = _written(top, "routes", "filter")
    for at, item in _tables_of(top, "routes"):
        if isinstance(item.get("filter"), str) and item["filter"] not in known:
            hint = did_you_mean(item["filter"], known, otherwise="there are:") or "; there is none"
            report.add((*at, "filter"), f"is not among [[spear.filters]]{hint}")
    for at, item in _tables_of(top, "filters"):
        name = item.get("credential")
        if isinstance(name, str) and name not in credentials:
            hint = did_you_mean(name, credentials, otherwise="there are:") or "; there is none"
            report.add((*at, "credential"), f"is not among [[spear.credentials]]{hint}")
        if isinstance(item.get("name"), str) and item["name"] not in used:
            report.warn(at, "has no effect: no route names this filter")


def _mcp(report: Report, sections: Mapping[str, Any], credentials: Collection[str]) -> None:
    servers = sections["mcp"].servers if sections["mcp"] is not None else ()
    seen: dict[str, str] = {}
    for each in servers:
        if not each.allowed_tools:
            report.warn(
                ("spear", "mcp"), f"{show_key(each.server_id)} has no allowed_tools: none of its tools can be used"
            )
        if each.server_id in seen:
            places = " and ".join(filter(None, (seen[each.server_id], _place(each.origin))))
            message = f"two servers have the server_id {show_key(each.server_id)}" + (f": {places}" if places else "")
            report.add(("spear", "mcp"), message)
        seen[each.server_id] = _place(each.origin)
        name = each.http.auth_ref if each.http is not None else None
        if name is not None and name not in credentials:
            hint = did_you_mean(name, credentials, otherwise="there are:") or "; there is none"
            report.add(
                ("spear", "mcp"), f"auth_ref of {show_key(each.server_id)} is not among [[spear.credentials]]{hint}"
            )


def _place(origin: Origin) -> str:
    return f"{origin.file}:{origin.line}" if origin.line else origin.file


def _models(report: Report, top: Table, sections: Mapping[str, Any]) -> None:
    instances = sections["backends"]
    if not instances or None in instances:
        return  # what a backend that is wrong would answer to is not known
    known = {name for each in instances for name in each.answers_to}
    unbound = any(not each.answers_to for each in instances)  # it may answer to any model
    for at, item in _tables_of(top, "routes"):
        names = item.get("fallback")
        names = [name.strip() if isinstance(name, str) else name for name in names] if isinstance(names, list) else ()
        _known_names(report, names, (*at, "fallback"), known, "the models of [[spear.backends]]")
        if "context_fallback" in item:
            name = item["context_fallback"]
            names = [name.strip() if isinstance(name, str) else name]
            _known_names(report, names, at, known, "the models of [[spear.backends]]", key="context_fallback")
        match = item.get("match")
        model = match.get("model_class") if isinstance(match, dict) else None
        if isinstance(model, str) and model.strip() not in known and not unbound:
            message = f"no backend has this model or class{did_you_mean(model, known)}"
            report.add((*at, "match", "model_class"), message)


def _unreachable(report: Report, routes: list[Route | None]) -> None:
    for index, later in enumerate(routes):
        for number, earlier in enumerate(routes[:index]):
            if later and earlier and _covers(earlier.match, later.match):
                message = f"is never reached: spear.routes[{number}] matches all that it matches, and the first wins"
                report.add(("spear", "routes", index), message)
                break


def _covers(earlier: RouteMatch, later: RouteMatch) -> bool:
    return earlier.operation in {None, later.operation} and earlier.model_class in {None, later.model_class}


def _unique(report: Report, top: Table, key: str, field: str) -> None:
    seen: dict[str, Path] = {}
    for at, item in _tables_of(top, key):
        name = item.get(field)
        if isinstance(name, str) and seen.setdefault(name, at) != at:
            first = f"spear.{key}[{seen[name][-1]}]"
            report.add((*at, field), f"is the {field} of {first} already; each needs its own")


def _known_names(
    report: Report, names: object, path: Path, known: Collection[str], where: str, *, key: str = ""
) -> None:
    """`names` stand in a list under `path`; with `key`, one stands there under that key."""
    for index, name in enumerate(names if isinstance(names, list) else ()):
        if isinstance(name, str) and name not in known:
            hint = did_you_mean(name, known, otherwise="there are:") or "; there is none"
            report.add((*path, key or index), f"is not among {where}{hint}")


def _tables_of(top: Table, key: str) -> list[tuple[Path, Table]]:
    value = top.get(key)
    items = enumerate(value if isinstance(value, list) else ())
    return [(("spear", key, index), item) for index, item in items if isinstance(item, dict)]


def _written(top: Table, key: str, field: str) -> set[str]:
    return {item[field] for _, item in _tables_of(top, key) if isinstance(item.get(field), str)}
