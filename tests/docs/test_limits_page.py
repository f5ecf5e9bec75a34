"""The limits on the page about security are the defaults of the code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pytest

from spear import _operations, egress
from spear.backends import _resolve, _several, _split_speech
from spear.backends.openai import _operation as _openai
from spear.config import Config
from spear.config._mcp import MAX_MCP_SERVERS
from spear.config._model import FilterConfig, McpBudgets, S3Config, Timeouts
from spear.dialects import _picture, openai_audio, openai_embeddings, openai_images
from spear.filters import _port, _wasm
from spear.hostcall import Limits, _limits, _mcp
from spear.ir import _json
from spear.mcp import _client, _messages, _results, _stderr, _tools
from spear.media import _fetch as _media_fetch
from spear.media import _files as _media_files
from spear.normalize import _limits as _request_limits
from spear.router.limits import _allowance
from spear.router.record import _log, _reader
from tests.docs._pages import DOCS, rows, section

LISTED: Final = {
    name.strip("`"): default
    for _, name, default in rows(
        section((DOCS / "explanation" / "security.md").read_text(encoding="utf-8"), "## Limits")
    )
}

MCP: Final = (_client, _messages, _results, _stderr, _tools)


def defaults() -> Mapping[str, Any]:
    config = Config()
    filters = FilterConfig(name="f", kind="python")
    sections = {
        "guests": config.guests,
        "budgets": McpBudgets(),
        "media": config.media,
        "media.s3": S3Config(bucket="any"),
        "router": config.router,
        "mirrors": config.mirrors,
        "filters": filters,
        "decisions": config.decisions,
        "timeouts": Timeouts(),
    }
    found: dict[str, Any] = {f"{name}.{key}": value for name, model in sections.items() for key, value in model}
    guest = Limits()
    found |= {name: getattr(guest, name) for name in guest.__dataclass_fields__}
    dialect = (_openai, _picture, openai_audio, openai_embeddings, openai_images)
    for module in (
        *dialect,
        _request_limits,
        _operations,
        _limits,
        egress,
        _json,
        _allowance,
        _port,
        _wasm,
        _log,
        _reader,
        _media_files,
        _media_fetch,
        _several,
        _split_speech,
        _resolve,
    ):
        found |= {name: value for name, value in vars(module).items() if name.isupper()}
    found |= {name: value for module in MCP for name, value in vars(module).items() if name.isupper()}
    return found | {"MAX_MCP_SERVERS": MAX_MCP_SERVERS, "MAX_OFFERED": _mcp.MAX_OFFERED}


@pytest.mark.parametrize("name", LISTED)
def test_the_default(name: str) -> None:
    assert LISTED[name] == f"{defaults()[name]:.10g}"


def test_every_limit_of_the_configuration_is_listed() -> None:
    numbers = {
        name
        for name, value in defaults().items()
        if "." in name and isinstance(value, int | float) and not isinstance(value, bool)
    }
    assert numbers == {name for name in LISTED if "." in name}
