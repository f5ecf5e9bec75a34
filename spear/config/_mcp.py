"""`[spear.mcp]`: MCP servers, written in the configuration or in a folder with a file for each.

What a server's process gets to see of the host's environment is settled here: a few variables that every program
needs, those that `env_from` names, and `env`, in which `${ENV:NAME}` and `${ENV:NAME:-default}` stand for the host's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path as FilePath
from typing import Any, Final

from spear.ir import ConfigError, MalformedJson, parse_json

from ._model import McpApproval, McpBudgets, McpConfig, McpHttp, McpServer, McpStdio
from ._positions import Path
from ._read import MAX_BYTES, Document, describe, plain_document, read_file
from ._report import Report
from ._sections import Table, build, keys_of, only_known, table, tables
from ._urls import checked_url

MAX_MCP_SERVERS: Final = 64
INHERITED: Final = ("HOME", "LANG", "LC_ALL", "PATH", "TMPDIR", "TZ")
"""Of the host's variables, those that every server gets."""
_SHORTEST_SECRET: Final = 8
_PLACES: Final = {"stdio": "stdio", "streamable_http": "http"}
_NOT_WRITTEN: Final = ("origin", "missing", "secrets")
_VARIABLE: Final = re.compile(r"\$\{ENV:([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_OURS: Final = frozenset(
    {
        "accept", "accept-encoding", "connection", "content-length", "content-type", "host", "mcp-protocol-version",
        "mcp-session-id", "te", "trailer", "transfer-encoding", "upgrade", "user-agent",
    }
)  # fmt: skip


def read_mcp(report: Report, top: Table, document: Document, environ: Mapping[str, str]) -> McpConfig | None:
    path = ("spear", "mcp")
    values = only_known(
        report, table(report, top, ("spear",), "mcp"), path, keys_of(McpConfig, without=("origin", "sources"))
    )
    found = [
        _Reader(report, document.folder, environ).server(at, item)
        for at, item in tables(report, values, path, "servers")
    ]
    values = {key: value for key, value in values.items() if key != "servers"}
    files: list[str] = []
    folder = values.get("path")
    if isinstance(folder, str):
        place = (document.folder / folder).absolute()
        values["path"] = str(place)
        found += _folder(report, path, place, environ, files)
    if len(found) > MAX_MCP_SERVERS:
        report.add(path, f"there are {len(found)} servers; expected at most {MAX_MCP_SERVERS}")
    section = build(report, McpConfig, values, path)
    if section is None or None in found:
        return None
    return section.model_copy(update={"servers": tuple(found), "sources": tuple(files)})


def credentials_of(section: McpConfig | None) -> set[str]:
    servers = section.servers if section is not None else ()
    return {each.http.auth_ref for each in servers if each.http is not None and each.http.auth_ref is not None}


def _folder(
    report: Report, path: Path, place: FilePath, environ: Mapping[str, str], files: list[str]
) -> list[McpServer | None]:
    """In the order of the files' names. Each file's problems are told with its own name."""
    try:
        inside = sorted(place.iterdir())
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else "not a usable path"
        report.add((*path, "path"), f"cannot be read as a folder: {why}")
        return []
    named = [each for each in inside if each.suffix in {".toml", ".json"} and not each.name.startswith(".")]
    files += [str(place), *map(str, named)]
    found: list[McpServer | None] = []
    for each in named[: MAX_MCP_SERVERS + 1]:
        try:
            document = read_file(each) if each.suffix == ".toml" else _read_json(each)
        except ConfigError as error:
            for problem in error.problems:
                report.add_problem(problem)
            found.append(None)
            continue
        found.append(_Reader(document.report, document.folder, environ).server((), dict(document.data)))
        report.include(document.report)
    return found


def _read_json(path: FilePath) -> Document:
    report = Report(str(path), {})
    value: Any = None
    try:
        value = _without_nulls(parse_json(_bytes_of(path)))
    except OSError as error:
        report.add((), f"cannot be read: {error.strerror or 'not a usable path'}")
    except MalformedJson as error:
        report.add((), f"is not JSON: {error}")
    else:
        if not isinstance(value, dict):
            report.add((), f"is {describe(value)}; expected a table")
    report.raise_if_any()
    return plain_document(value, report, path.parent)


def _bytes_of(path: FilePath) -> bytes:
    with path.open("rb") as stream:
        data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise MalformedJson(f"larger than {MAX_BYTES} bytes")
    return data


def _without_nulls(value: Any) -> Any:
    """In JSON, null is how absence is often written."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


class _Reader:
    """Reads one server."""

    def __init__(self, report: Report, folder: FilePath, environ: Mapping[str, str]) -> None:
        self._report = report
        self._folder = folder
        self._environ = environ
        self._missing: set[str] = set()
        self._secrets: set[str] = set()

    def server(self, path: Path, values: Table) -> McpServer | None:
        report = self._report
        values = dict(only_known(report, values, path, keys_of(McpServer, without=_NOT_WRITTEN)))
        self._check_transport(values, path)
        self._check_id(values, path)
        url = None
        if isinstance(values.get("stdio"), dict):
            values["stdio"] = self._stdio(values["stdio"], (*path, "stdio"))
        if isinstance(values.get("http"), dict):
            values["http"], url = self._http(values["http"], (*path, "http"))
        for key, model in (("budgets", McpBudgets), ("approval_policy", McpApproval)):
            if isinstance(values.get(key), dict):
                values[key] = only_known(report, values[key], (*path, key), keys_of(model))
        values |= {"missing": sorted(self._missing), "secrets": sorted(self._secrets)}
        found = build(report, McpServer, values, path)
        if found is None:
            return None
        if found.http is not None and url is not None:
            found = found.model_copy(update={"secrets": (*found.secrets, url)})
        return found.model_copy(update={"origin": report.origin(path, McpServer.model_fields)})

    def _check_transport(self, values: Table, path: Path) -> None:
        needed = _PLACES.get(str(values.get("transport")))
        if needed is None:
            return  # the model says so
        if needed not in values:
            self._report.add(path, f"has no table `{needed}`, which the transport {values['transport']} needs")
        for key in _PLACES.values():
            if key in values and key != needed:
                self._report.add((*path, key), f"has no meaning with the transport {values['transport']}")

    def _check_id(self, values: Table, path: Path) -> None:
        name = values.get("server_id")
        if isinstance(name, str) and name and ("/" in name or not name.isprintable() or name.split() != [name]):
            problem = "has blanks, slashes or unprintable characters; expected a plain name"
            self._report.add((*path, "server_id"), problem)

    def _stdio(self, values: Table, path: Path) -> Table:
        values = dict(only_known(self._report, values, path, keys_of(McpStdio)))
        command, cwd = values.get("command"), values.get("cwd")
        for key, text in (("command", command), ("cwd", cwd)):
            if isinstance(text, str) and "\0" in text:
                self._report.add((*path, key), "has a NUL character")
        if isinstance(command, str) and "/" in command:
            values["command"] = str((self._folder / command).absolute())
        if isinstance(cwd, str):
            values["cwd"] = str((self._folder / cwd).absolute())
        env = {name: self._environ[name] for name in INHERITED if name in self._environ}
        env |= self._wanted(values.get("env_from"))
        given = values.get("env", {})
        if isinstance(given, dict):
            values["env"] = env | self._filled(given, (*path, "env"))
        return values

    def _wanted(self, names: Any) -> dict[str, str]:
        found: dict[str, str] = {}
        for name in names if isinstance(names, list) else ():
            if not isinstance(name, str):
                continue  # the model says so
            matching = [each for each in self._environ if fnmatchcase(each, name)] if "*" in name else [name]
            found |= {each: self._environ[each] for each in matching if each in self._environ}
            if "*" not in name and name in self._environ:
                self._hide(self._environ[name])
        return found

    def _filled(self, given: Table, path: Path) -> dict[str, Any]:
        filled: dict[str, Any] = {}
        for name, text in given.items():
            filled[name] = self._fill(text) if isinstance(text, str) else text
            if not name or "=" in name or "\0" in name or (isinstance(text, str) and "\0" in text):
                self._report.add((*path, name), "is no usable variable: it is empty or has `=` or NUL in it")
        return filled

    def _fill(self, text: str) -> str:
        def value(match: re.Match[str]) -> str:
            name, default = match[1], match[2]
            found = self._environ.get(name, "")
            if not found and default is None:
                self._missing.add(name)
                return ""
            self._hide(found)
            return found or default or ""

        return _VARIABLE.sub(value, text)

    def _hide(self, value: str) -> None:
        """What is shorter would garble every text, and is hardly a secret."""
        if len(value) >= _SHORTEST_SECRET:
            self._secrets.add(value)

    def _http(self, values: Table, path: Path) -> tuple[Table, Any]:
        values = dict(only_known(self._report, values, path, keys_of(McpHttp)))
        url = None
        if "url" in values:
            url = checked_url(self._report, values["url"], (*path, "url"))
            values["url"] = url.reveal() if url is not None else "https://x"
        headers = values.get("headers", {})
        if isinstance(headers, dict):
            values["headers"] = {
                name: self._fill(text) if isinstance(text, str) else text for name, text in headers.items()
            }
            for name, text in values["headers"].items():
                self._check_header((*path, "headers", name), name, text, "auth_ref" in values)
        return values, url

    def _check_header(self, path: Path, name: str, text: Any, keyed: bool) -> None:
        lower = name.lower()
        if _HEADER.fullmatch(name) is None:
            self._report.add(path, "is no name of a header")
        elif lower in _OURS or (keyed and lower == "authorization"):
            self._report.add(path, "is set by the host; take it out")
        elif isinstance(text, str) and not (text.isascii() and text.isprintable()):
            self._report.add(path, "has line breaks or characters that no header can carry")
        elif not isinstance(text, str):
            self._report.add(path, f"is {describe(text)}; expected a string")
        elif lower in {"authorization", "x-api-key"} or "token" in lower or "key" in lower:
            self._hide(text)
