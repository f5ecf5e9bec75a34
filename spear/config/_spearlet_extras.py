"""Two tables of the `[spearlet.llm]` layout that are read and checked, and answered with a warning: what they turn on
does not exist here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from ._model import Section
from ._report import Report
from ._sections import Table, build, keys_of, only_known

ENVIRONMENT_PREFIX: Final = "SPEARLET_LLM_ROUTER_GRPC_FILTER_STREAM_"
_FILTER: Final = ("spearlet", "llm", "router_grpc_filter_stream")
_Count = Annotated[int, Field(ge=0, le=4_294_967_295)]
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


class FilterStream(Section):
    enabled: bool = False
    addr: str = ""
    decision_timeout_ms: _Count = 2000
    fail_open: bool = True
    max_candidates_sent: _Count = 64
    max_debug_kv: _Count = 32
    max_inflight_total: _Count = 4096
    per_agent_max_inflight: _Count = 512
    content_fetch_enabled: bool = False
    content_fetch_max_bytes: _Count = 65_536


class Discovery(Section):
    enabled: bool = False
    scope: Literal["serving", "installed"] = "serving"
    base_url: str = "http://127.0.0.1:11434"
    allow_remote: bool = False
    timeout_ms: _Count = 1500
    max_models: _Count = 32
    allow_models: tuple[str, ...] = ()
    deny_models: tuple[str, ...] = ()
    name_prefix: str = "ollama/"
    name_conflict: Literal["skip", "overwrite"] = "skip"
    default_weight: _Count = 100
    default_priority: int = 0
    default_ops: tuple[str, ...] = ("chat_completions",)
    default_features: tuple[str, ...] = ()
    default_transports: tuple[str, ...] = ("http",)


def check_filter_stream(report: Report, written: Table, environ: Mapping[str, str]) -> FilterStream | None:
    """The table with its overrides from the environment. Warns where it is enabled."""
    values = only_known(report, written, _FILTER, keys_of(FilterStream))
    found = build(report, FilterStream, values, _FILTER)
    overrides: dict[str, Any] = {}
    for key, field in FilterStream.model_fields.items():
        variable = ENVIRONMENT_PREFIX + key.upper()
        if variable in environ:
            value = _from_text(environ[variable], type(field.default))
            if value is None or build(Report("", {}), FilterStream, {key: value}, ()) is None:
                wanted = "true or false" if isinstance(field.default, bool) else "a whole number of 0 or more"
                report.add((*_FILTER, key), f"the variable {variable} has no usable value; expected {wanted}")
            else:
                overrides[key] = value
    if found is None:
        return None
    found = found.model_copy(update=overrides)
    if found.enabled:
        message = "has no effect: there is no gRPC filter; [[spear.filters]] of the [spear] layout replaces it"
        report.warn(_FILTER, message)
    return found


def _from_text(text: str, kind: type) -> bool | int | str | None:
    text = text.strip()
    if kind is bool:
        return True if text.lower() in _TRUE else False if text.lower() in _FALSE else None
    if kind is int:
        return int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else None
    return text
