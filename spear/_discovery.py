"""Asking for the models that become backends, when a runtime is opened and at each reload."""

from __future__ import annotations

from .backends import find_kind
from .config import Config, OllamaDiscovery, asked_at, with_models, without_discovered
from .ir import SpearError
from .telemetry import get_logger

_log = get_logger("spear.discovery")


async def with_discovered(config: Config, before: Config | None = None) -> Config:
    """`config` with the backends of the models that its discovery finds; `config` itself where it has none.

    Waits for the server, at most the discovery's `timeout`. That it cannot be asked is a warning: the models found
    `before`, by the same discovery, stay, or there are none.
    """
    discovery = config.discovery.ollama
    if not discovery.enabled:
        return without_discovered(config)
    try:
        models = await _ask(discovery)
    except SpearError as error:
        _log.warning("discovery_failed", error=str(error))
        known = before is not None and before.discovery == config.discovery and len(before.discovered)
        kept = f"; the {known} found before stay" if known else ""
        config = _with_those_of(before, config) if before is not None and known else without_discovered(config)
        warning = f"discovery.ollama: no models found: {error}{kept}"
        return config.model_copy(update={"warnings": (*config.warnings, warning)})
    return with_models(config, models)


async def _ask(discovery: OllamaDiscovery) -> tuple[str, ...]:
    find_kind("ollama_chat")  # says what is missing, where it is not built in
    from .backends.ollama import ask_models

    return await ask_models(asked_at(discovery), discovery.scope, discovery.timeout)


def _with_those_of(before: Config, config: Config) -> Config:
    names = set(before.discovered)
    models = [each.model for each in before.backends if each.name in names and each.model is not None]
    return with_models(config, models)
