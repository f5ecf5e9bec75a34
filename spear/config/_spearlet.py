"""The `[spearlet.llm]` layout of existing installations, which loads unchanged.

What is malformed is a problem, as everywhere. What the layout has always passed over, it passes over here too: a
credential that is none, an unknown operation, a backend without operations, with a name that is taken or a key that is
missing. Each such backend stands in `Config.skipped`, everything else in `Config.warnings`. Backends of unknown kinds
are passed over by the registry, which knows the kinds.

Tables beside `llm` belong to other programs and are not looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import Field

from spear.ir import Hosting, Operation, Transport
from spear.secrets import Secret

from ._credentials import UnusableCredential, from_environment, is_variable_name
from ._discovery import legacy_discovery
from ._model import Config, Credential, Discovery, InstanceConfig, Section, SkippedInstance
from ._positions import Path
from ._read import Document
from ._report import Report
from ._sections import Table, build, keys_of, only_known, table, tables
from ._spearlet_extras import Discovery as WrittenOllama
from ._spearlet_extras import FilterStream, check_filter_stream
from ._urls import checked_url

POLICY: Final = "weighted_random"
_AT: Final = ("spearlet", "llm")


class WrittenCredential(Section):
    name: str = ""
    kind: str = ""
    api_key_env: str = ""


class WrittenBackend(Section):
    """A backend as it is written; absent lists are empty."""

    name: Annotated[str, Field(min_length=1, max_length=128)]
    kind: str
    hosting: Hosting
    base_url: str | None = None
    model: str | None = None
    credential_ref: str | None = None
    weight: Annotated[int, Field(ge=0, le=1_000_000)] = 100
    priority: Annotated[int, Field(ge=-1_000_000, le=1_000_000)] = 0
    ops: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    transports: tuple[str, ...] = ()


class WrittenDiscovery(Section):
    ollama: WrittenOllama = WrittenOllama()


class WrittenLlm(Section):
    """The keys of `[spearlet.llm]`."""

    default_policy: str | None = None
    credentials: tuple[WrittenCredential, ...] = ()
    backends: tuple[WrittenBackend, ...] = ()
    discovery: WrittenDiscovery = WrittenDiscovery()
    router_grpc_filter_stream: FilterStream = FilterStream()


def read(document: Document, environ: Mapping[str, str]) -> Config:
    """A `Config`; raises `ConfigError` with all problems."""
    report = document.report
    outer = table(report, document.data, (), "spearlet")
    if "llm" not in outer:
        report.warn(("spearlet",), "has no table [spearlet.llm], so that no backend is configured")
    top = only_known(report, table(report, outer, ("spearlet",), "llm"), _AT, keys_of(WrittenLlm))
    credentials = _credentials(report, top)
    reading = _Backends(report, credentials, environ)
    for path, values in tables(report, top, _AT, "backends"):
        reading.add(path, values)
    scalars = build(report, WrittenLlm, {key: top[key] for key in ("default_policy",) if key in top}, _AT)
    if scalars and scalars.default_policy not in {None, "", POLICY}:
        report.warn((*_AT, "default_policy"), f"is not used: this layout always chooses by {POLICY}")
    check_filter_stream(report, table(report, top, _AT, "router_grpc_filter_stream"), environ)
    discovery = _discovery(report, top)
    report.raise_if_any()
    return Config(
        layout="spearlet",
        default_policy=POLICY,
        credentials=tuple(reading.read.get(name, credential) for name, credential in credentials.items()),
        backends=tuple(reading.kept),
        skipped=tuple(reading.skipped),
        discovery=discovery,
        warnings=report.warnings,
        origin=report.origin(_AT),
    )


def _credentials(report: Report, top: Table) -> dict[str, Credential]:
    """Those that are usable, by name, not yet read."""
    usable: dict[str, Credential] = {}
    for path, values in tables(report, top, _AT, "credentials"):
        values = only_known(report, values, path, keys_of(WrittenCredential))
        written = build(report, WrittenCredential, values, path)
        if written is None:
            continue
        if not written.name.strip():
            report.warn(path, "skipped: it has no name")
        elif written.kind != "env":
            report.warn(path, 'skipped: its kind is not "env"')
        elif not is_variable_name(written.api_key_env):
            report.warn(path, "skipped: its api_key_env is not the name of an environment variable")
        elif written.name in usable:
            report.warn(path, "skipped: an earlier credential has this name")
        else:
            usable[written.name] = Credential(name=written.name, source=f"env:{written.api_key_env}")
    return usable


class _Backends:
    """Sorts the backends into those that are kept and those that are skipped, and reads the variables in use."""

    def __init__(self, report: Report, credentials: Mapping[str, Credential], environ: Mapping[str, str]) -> None:
        self.kept: list[InstanceConfig] = []
        self.skipped: list[SkippedInstance] = []
        self.read: dict[str, Credential] = {}
        self._report = report
        self._credentials = credentials
        self._environ = environ
        self._names: set[str] = set()

    def add(self, path: Path, values: Table) -> None:
        values = only_known(self._report, values, path, keys_of(WrittenBackend))
        written = build(self._report, WrittenBackend, values, path)
        url = None
        if values.get("base_url"):
            url = checked_url(self._report, values["base_url"], (*path, "base_url"))
        if written is None:
            return
        ops = self._operations(written, path)
        reason = self._reason_to_skip(written, ops)
        if reason is not None:
            self._skip(written, path, *reason)
            return
        self._names.add(written.name)
        self.kept.append(self._instance(written, path, ops, url))

    def _operations(self, written: WrittenBackend, path: Path) -> tuple[Operation, ...]:
        known = {operation.value for operation in Operation}
        for index, name in enumerate(written.ops):
            if name not in known:
                self._report.warn((*path, "ops", index), "dropped: no such operation")
        return tuple(dict.fromkeys(Operation(name) for name in written.ops if name in known))

    def _reason_to_skip(self, written: WrittenBackend, ops: tuple[Operation, ...]) -> tuple[str, str] | None:
        if not ops:
            return "no_operations", "`ops` names no known operation"
        if written.name in self._names:
            return "duplicate_name", "an earlier backend has this name"
        if written.credential_ref is not None and (missing := self._missing(written.credential_ref)):
            return "missing_credential", missing
        return None

    def _missing(self, reference: str) -> str:
        """Why the credential has no value; empty where it has one."""
        credential = self._credentials.get(reference)
        if credential is None:
            return "`credential_ref` names no usable credential"
        variable = credential.source.removeprefix("env:")
        if reference not in self.read:
            try:
                value = from_environment(variable, self._environ)
            except UnusableCredential as error:
                return f"{variable}: {error}"
            self.read[reference] = credential.model_copy(update={"value": value})
        return "" if self.read[reference].value else f"the variable {variable} is not set or empty"

    def _instance(
        self, written: WrittenBackend, path: Path, ops: tuple[Operation, ...], url: Secret | None
    ) -> InstanceConfig:
        known = {transport.value for transport in Transport}
        for index, name in enumerate(written.transports):
            if name not in known:
                self._report.warn((*path, "transports", index), "dropped: no such transport")
        plaintext = written.hosting is Hosting.REMOTE and url is not None and urlsplit(url.reveal()).scheme == "http"
        if plaintext:
            # The other layout refuses this. Here there is no key to allow it with, and existing files have to load.
            self._report.warn((*path, "base_url"), "is plain http to a remote host: keys and prompts can be read")
        return InstanceConfig(
            name=written.name,
            kind=written.kind,
            hosting=written.hosting,
            base_url=url,
            model=written.model,
            credentials=(written.credential_ref,) if written.credential_ref is not None else (),
            ops=ops,
            features=written.features,
            transports=tuple(Transport(name) for name in written.transports if name in known),
            weight=written.weight,
            priority=written.priority,
            allow_plaintext=plaintext,
            origin=self._report.origin(path, WrittenBackend.model_fields),
        )

    def _skip(self, written: WrittenBackend, path: Path, reason: str, detail: str) -> None:
        self._report.warn(path, f"skipped ({reason}): {detail}")
        self.skipped.append(
            SkippedInstance(
                name=written.name,
                kind=written.kind,
                reason=reason,
                detail=detail,
                origin=self._report.origin(path),
            )
        )


def _discovery(report: Report, top: Table) -> Discovery:
    above = (*_AT, "discovery")
    path = (*above, "ollama")
    values = only_known(report, table(report, top, _AT, "discovery"), above, keys_of(WrittenDiscovery))
    written = only_known(report, table(report, values, above, "ollama"), path, keys_of(WrittenOllama))
    url = None
    if "base_url" in written:
        url = checked_url(report, written.pop("base_url"), (*path, "base_url"))
    found = build(report, WrittenOllama, written, path)
    return Discovery() if found is None else legacy_discovery(report, found, url, path)
