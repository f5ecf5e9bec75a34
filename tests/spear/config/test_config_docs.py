"""The reference says what the model says, and the examples in the pages load."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from spear.config import (
    Budget,
    BudgetMatch,
    Config,
    FilterConfig,
    FilterContent,
    GuestLimits,
    HealthConfig,
    Hedge,
    InstanceConfig,
    KeyLimits,
    KeysConfig,
    LogConfig,
    McpConfig,
    McpHttp,
    McpServer,
    McpStdio,
    MediaConfig,
    Mirror,
    MirrorLimits,
    OllamaDiscovery,
    Price,
    Probe,
    RedisConfig,
    RetryConfig,
    Route,
    RouteMatch,
    RouterLimits,
    S3Config,
    TaskConfig,
    Timeouts,
    load_config,
)
from spear.config import _later as later
from spear.config._model import McpApproval, McpBudgets
from spear.config._spear import POLICIES
from spear.ir import Limits
from spear.router import POLICIES as ROUTER_POLICIES
from spear.router import build_generation

DOCS = Path(__file__).parents[3] / "docs"
REFERENCE = (DOCS / "reference/configuration.md").read_text(encoding="utf-8")
MIGRATION = (DOCS / "how-to/migrate-existing-config.md").read_text(encoding="utf-8")
NOT_WRITTEN = {"sources", "missing", "secrets", "origin", "layout", "skipped", "discovered", "warnings"}
SECTIONS: dict[str, type[BaseModel]] = {
    "[spear]": Config,
    "[[spear.backends]]": InstanceConfig,
    "limits": Limits,
    "price": Price,
    "timeouts": Timeouts,
    "probe": Probe,
    "[[spear.routes]]": Route,
    "match": RouteMatch,
    "hedge": Hedge,
    "mirror": Mirror,
    "[[spear.filters]]": FilterConfig,
    "content": FilterContent,
    "[[spear.tasks]]": TaskConfig,
    "[[spear.budgets]]": Budget,
    "budgets.match": BudgetMatch,
    "credentials.limits": KeyLimits,
    "[spear.router]": RouterLimits,
    "[spear.health]": HealthConfig,
    "[spear.retries]": RetryConfig,
    "[spear.keys]": KeysConfig,
    "[spear.mirrors]": MirrorLimits,
    "[spear.guests]": GuestLimits,
    "[spear.media]": MediaConfig,
    "[spear.mcp]": McpConfig,
    "[[spear.mcp.servers]]": McpServer,
    "servers.stdio": McpStdio,
    "servers.http": McpHttp,
    "servers.budgets": McpBudgets,
    "servers.approval_policy": McpApproval,
    "[spear.log]": LogConfig,
    "[spear.discovery.ollama]": OllamaDiscovery,
}


def documented(section: str) -> dict[str, str]:
    """The keys of a section of the reference, each with what stands as its default."""
    text = re.split(r"^##+ ", REFERENCE, flags=re.MULTILINE)
    (found,) = [part for part in text if part.startswith(f"`{section}`\n")]
    rows = re.findall(r"^\| `(\w+)` \|[^|]+\| ([^|]+) \|[^|]+\|$", found, re.MULTILINE)
    assert len(rows) == len({key for key, _ in rows}), "a key is there twice"
    return dict(rows)


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_is_documented_and_nothing_else(section: str) -> None:
    later_keys = later.BACKEND if section == "[[spear.backends]]" else frozenset()
    keys = set(SECTIONS[section].model_fields) - NOT_WRITTEN - later_keys
    assert set(documented(section)) == keys


def test_the_keys_of_a_credential() -> None:
    assert documented("[[spear.credentials]]") == {
        "name": "required",
        "env": "–",
        "file": "–",
        "quota_group": "–",
        "limits": "–",
        "weight": "`1`",
    }


def test_the_keys_of_a_redis() -> None:
    """The address is written in one of three ways."""
    said = documented("[spear.redis]")
    assert [said.pop(key) for key in ("env", "file", "url")] == ["–"] * 3
    assert said == {key: shown_default(RedisConfig, key) for key in RedisConfig.model_fields.keys() - {"url", "source"}}


def test_the_keys_of_a_bucket() -> None:
    """Its keys are written as the names of variables."""
    said = documented("media.s3")
    assert [said.pop(key) for key in ("access_key_env", "secret_key_env")] == ["–"] * 2
    keys = S3Config.model_fields.keys() - {"access_key", "secret_key"}
    assert said == {key: shown_default(S3Config, key) for key in keys}


@pytest.mark.parametrize("section", SECTIONS)
def test_every_default_is_right(section: str) -> None:
    for key, said in documented(section).items():
        assert said == shown_default(SECTIONS[section], key), f"{section} {key}"


def shown_default(model: type[BaseModel], key: str) -> str:
    field = model.model_fields[key]
    if field.is_required():
        return "required"
    default: Any = field.default
    if default is None or default in ((), {}) or isinstance(default, BaseModel):
        return "–"
    if isinstance(default, tuple):
        return f"`{json.dumps(default)}`"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f'`"{default}"`' if isinstance(default, str) else f"`{default:g}`" if default % 1 else f"`{int(default)}`"


def test_the_policies_are_those_of_the_router() -> None:
    assert set(POLICIES) == set(ROUTER_POLICIES)
    (line,) = re.findall(r"^Policies of this version: (.*)\.$", REFERENCE, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", line)) == set(POLICIES)


def test_what_is_named_as_missing_is_refused() -> None:
    (_, text) = REFERENCE.split("## Not in this version\n")
    named = set(re.findall(r"`([\w.]+)`", text))
    assert named <= later.TOP | later.BACKEND | later.ROUTE


@pytest.mark.parametrize("block", re.findall(r"```toml[^\n]*\n(.*?)```", REFERENCE + MIGRATION, re.DOTALL))
def test_the_examples_load(block: str) -> None:
    config = load_config(tomllib.loads(block), environ={"OPENAI_API_KEY": "k"})
    assert config.warnings == ()
    assert config.backends
    assert all(each.value is not None for each in config.credentials)
    build_generation(config)


def test_the_two_files_of_the_migration_mean_the_same() -> None:
    before, after = (
        load_config(tomllib.loads(block), environ={"OPENAI_API_KEY": "k"})
        for block in re.findall(r"```toml[^\n]*\n(.*?)```", MIGRATION, re.DOTALL)
    )
    assert before.default_policy == after.default_policy

    def plain(config: Config) -> list[dict[str, Any]]:
        return [each.model_dump(exclude={"origin"}) for each in config.backends]

    assert plain(before) == plain(after)
