"""`[[spear.filters]]`: who is asked before a backend is chosen."""

from __future__ import annotations

from pathlib import Path as FilePath
from typing import Final

from ._model import FilterConfig, FilterContent
from ._positions import Path
from ._read import describe
from ._report import Report
from ._sections import Table, build, durations, keys_of, only_known
from ._urls import checked_url

_PLACE: Final = {"http": "url", "wasm": "path", "python": None}
"""By kind, the key that says where the filter is."""
_HTTP_ONLY: Final = ("credential", "hosting", "allow_plaintext")


def filter_of(report: Report, values: Table, path: Path, folder: FilePath) -> FilterConfig | None:
    """Paths are relative to `folder`."""
    values = dict(only_known(report, values, path, keys_of(FilterConfig)))
    url = values.pop("url", None)
    if url is not None:
        url = checked_url(report, url, (*path, "url"))
        values["url"] = None
    _check_kind(report, values, path)
    _check_name(report, values, path)
    _content(report, values, path)
    place = values.get("path")
    if isinstance(place, str) and place:
        values["path"] = str(folder / place)
    values = durations(report, values, path, ("timeout",))
    found = build(report, FilterConfig, values, path)
    return found and found.model_copy(update={"url": url, "origin": report.origin(path, FilterConfig.model_fields)})


def _check_kind(report: Report, values: Table, path: Path) -> None:
    kind = values.get("kind")
    if not isinstance(kind, str) or kind not in _PLACE:
        return  # the model says so
    needed = _PLACE[kind]
    if needed is not None and needed not in values:
        report.add(path, f"has no `{needed}`, which a filter of kind {kind} needs")
    for key in ("url", "path"):
        if key in values and key != needed:
            report.add((*path, key), f"has no meaning for a filter of kind {kind}")
    if values.get("path") == "":
        report.add((*path, "path"), "is empty; expected the path of a WebAssembly module")
    for key in _HTTP_ONLY if kind != "http" else ():
        if key in values:
            report.add((*path, key), f"has no meaning for a filter of kind {kind}")


def _check_name(report: Report, values: Table, path: Path) -> None:
    name = values.get("name")
    if isinstance(name, str) and name and (name != name.strip() or not name.isprintable()):
        report.add((*path, "name"), "has blanks around it or unprintable characters; expected a plain name")


def _content(report: Report, values: Table, path: Path) -> None:
    given = values.get("content")
    if given is False:
        del values["content"]
    elif isinstance(given, dict):
        values["content"] = only_known(report, given, (*path, "content"), keys_of(FilterContent))
    elif given is not None:
        report.add((*path, "content"), f"is {describe(given)}; expected false or a table: {{max_bytes = 4096}}")
        del values["content"]
