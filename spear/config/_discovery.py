"""Discovery of models: how it is written, in both layouts, and what backends the found models become.

Nothing here asks a server: that is done when a runtime is opened or reloaded.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from spear.ir import Hosting, Operation, Transport
from spear.secrets import Secret

from ._model import Config, Discovery, InstanceConfig, OllamaDiscovery, Origin, SkippedInstance
from ._positions import Path
from ._report import Report
from ._sections import Table, build, durations, keys_of, only_known, table
from ._spearlet_extras import Discovery as WrittenDiscovery
from ._urls import checked_url

OLLAMA_URL: Final = "http://127.0.0.1:11434"
DISCOVERED: Final = "discovery.ollama"
"""Where a discovered backend says that it was written."""
_OPERATIONS: Final = (Operation.CHAT_COMPLETIONS, Operation.EMBEDDINGS)
_LONGEST: Final = 128
_NOT_IN_A_NAME: Final = re.compile(r"[^A-Za-z0-9_./-]")
_REMOTE: Final = (
    "is not on this machine; write allow_remote = true if models are to be looked for there, too "
    "(what stands there is not shown)"
)


def read_discovery(report: Report, top: Table) -> Discovery | None:
    """`[spear.discovery]`."""
    above: Path = ("spear", "discovery")
    path = (*above, "ollama")
    values = only_known(report, table(report, top, ("spear",), "discovery"), above, keys_of(Discovery))
    written = only_known(report, table(report, values, above, "ollama"), path, keys_of(OllamaDiscovery))
    url = written.pop("base_url", None)
    url = None if url is None else checked_url(report, url, (*path, "base_url"))
    found = build(report, OllamaDiscovery, durations(report, written, path, ("timeout",)), path)
    if found is None:
        return None
    if found.enabled and not found.allow_remote and not is_here(url):
        report.add((*path, "base_url"), _REMOTE)
    for index, operation in enumerate(found.default_ops or ()):
        if operation not in _OPERATIONS:
            names = " and ".join(_OPERATIONS)
            report.add((*path, "default_ops", index), f"is not an operation of Ollama's; it has {names}")
    for key in ("default_ops", "default_transports"):
        if written.get(key) == []:
            report.add((*path, key), "is an empty list; name at least one, or leave the key out")
    return Discovery(ollama=found.model_copy(update={"base_url": url}))


def legacy_discovery(report: Report, written: WrittenDiscovery, url: Secret | None, path: Path) -> Discovery:
    """That of the other layout, whose lists are literal. What it has always passed over is passed over."""
    if not written.enabled:
        return Discovery()
    if not written.allow_remote and not is_here(url):
        report.warn((*path, "base_url"), f"discovery is off: it {_REMOTE}")
        return Discovery()
    known_ops, known_transports = {each.value for each in Operation}, {each.value for each in Transport}
    for key, names, known in (
        ("default_ops", written.default_ops, known_ops),
        ("default_transports", written.default_transports, known_transports),
    ):
        if any(name not in known for name in names):
            report.warn((*path, key), "names that are not known are dropped")
    return Discovery(
        ollama=OllamaDiscovery(
            enabled=True,
            scope=written.scope,
            base_url=url,
            allow_remote=written.allow_remote,
            timeout=max(written.timeout_ms, 1) / 1000,
            max_models=written.max_models,
            allow_models=written.allow_models,
            deny_models=written.deny_models,
            name_prefix=written.name_prefix,
            name_conflict=written.name_conflict,
            default_weight=min(written.default_weight, 1_000_000),
            default_priority=max(-1_000_000, min(written.default_priority, 1_000_000)),
            default_ops=tuple(Operation(name) for name in written.default_ops if name in known_ops),
            default_features=written.default_features,
            default_transports=tuple(
                Transport(each) for each in written.default_transports if each in known_transports
            ),
        )
    )


def is_here(url: Secret | None) -> bool:
    """Whether an address is one of this machine; None is Ollama's usual one."""
    if url is None:
        return True
    host = urlsplit(url.reveal()).hostname or ""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def asked_at(discovery: OllamaDiscovery) -> InstanceConfig:
    """The server itself, as an instance of no model."""
    return _instance(discovery, "ollama", None)


def without_discovered(config: Config) -> Config:
    """As it was written. A backend that a discovered one had replaced is gone."""
    if not config.discovered:
        return config
    gone = set(config.discovered)
    kept = tuple(each for each in config.backends if each.name not in gone)
    return config.model_copy(update={"backends": kept, "discovered": ()})


def with_models(config: Config, models: Sequence[str]) -> Config:
    """`config` with a backend for each of `models` that the discovery allows, in their order, at most `max_models`;
    what is left out for its name is among the skipped."""
    discovery = config.discovery.ollama
    config = without_discovered(config)
    backends = {each.name: each for each in config.backends}
    found: list[str] = []
    skipped = list(config.skipped)
    allowed = [model for model in models if _is_allowed(discovery, model)]
    for model in allowed[: discovery.max_models]:
        name = _NOT_IN_A_NAME.sub("_", discovery.name_prefix + model)
        if reason := _name_problem(name, backends, found, discovery):
            skipped.append(
                SkippedInstance(
                    name=name[:_LONGEST], kind="ollama_chat", reason=reason[0], detail=reason[1],
                    origin=Origin(key=DISCOVERED),
                )
            )  # fmt: skip
            continue
        backends[name] = _instance(discovery, name, model)
        found.append(name)
    warnings = config.warnings
    if (left := len(allowed) - discovery.max_models) > 0:
        warnings = (
            *warnings,
            f"{DISCOVERED}: {left} models beyond max_models = {discovery.max_models} are left out",
        )
    return config.model_copy(
        update={
            "backends": tuple(backends.values()),
            "discovered": tuple(found),
            "skipped": tuple(skipped),
            "warnings": warnings,
        }
    )


def _is_allowed(discovery: OllamaDiscovery, model: str) -> bool:
    if model in discovery.deny_models:
        return False
    return not discovery.allow_models or model in discovery.allow_models


def _name_problem(
    name: str, backends: dict[str, InstanceConfig], found: list[str], discovery: OllamaDiscovery
) -> tuple[str, str] | None:
    if len(name) > _LONGEST:
        return "name_too_long", f"a name has at most {_LONGEST} characters"
    if name in found:
        return "duplicate_name", "another discovered model has this name"
    if name in backends and discovery.name_conflict == "skip":
        return "duplicate_name", "a configured backend has this name (name_conflict)"
    return None


def _instance(discovery: OllamaDiscovery, name: str, model: str | None) -> InstanceConfig:
    url = discovery.base_url or Secret(OLLAMA_URL)
    here = is_here(discovery.base_url)
    ops = (Operation.CHAT_COMPLETIONS,) if discovery.default_ops is None else discovery.default_ops
    return InstanceConfig(
        name=name,
        kind="ollama_chat",
        hosting=Hosting.LOCAL if here else Hosting.REMOTE,
        base_url=url,
        model=model,
        ops=ops,
        features=discovery.default_features,
        transports=discovery.default_transports,
        weight=discovery.default_weight,
        priority=discovery.default_priority,
        allow_plaintext=not here,  # allow_remote says so
        origin=Origin(key=DISCOVERED),
    )
