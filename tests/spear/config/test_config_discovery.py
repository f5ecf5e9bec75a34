"""What discovered models become. Pure: no server is asked."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spear.config import load_config, with_models, without_discovered
from spear.ir import ConfigError
from spear.router import build_generation

STUB = {"name": "ollama/b", "kind": "stub", "hosting": "local"}


def written(*backends: dict[str, Any], **fields: Any) -> Any:
    return load_config({"spear": {"backends": list(backends), "discovery": {"ollama": {"enabled": True, **fields}}}})


def named(config: Any) -> list[tuple[str, str | None]]:
    return [(each.name, each.model) for each in config.backends]


def test_each_model_is_a_backend_that_can_be_used() -> None:
    config = with_models(written(default_weight=7, default_priority=-1), ["llama3.2:3b", "grüße/x y"])
    assert named(config) == [("ollama/llama3.2_3b", "llama3.2:3b"), ("ollama/gr__e/x_y", "grüße/x y")]
    assert config.discovered == ("ollama/llama3.2_3b", "ollama/gr__e/x_y")
    generation = build_generation(config)
    first = generation.instances[0]
    assert (first.reason, first.weight, first.priority) == (None, 7, -1)
    assert "supports_tools" in first.features
    assert [each.value for each in first.capabilities.ops] == ["chat_completions"]
    assert without_discovered(config).backends == ()


def test_which_models() -> None:
    config = written(allow_models=["a", "b", "c", "d"], deny_models=["b"], max_models=2)
    found = with_models(config, ["x", "a", "b", "c", "d"])
    assert [model for _, model in named(found)] == ["a", "c"]
    assert "1 models beyond max_models = 2 are left out" in found.warnings[-1]


def test_names_that_are_taken() -> None:
    config = with_models(written(STUB), ["a:1", "a;1", "b", "c" * 200])
    assert named(config) == [("ollama/b", None), ("ollama/a_1", "a:1")]
    assert [(each.name[:9], each.reason) for each in config.skipped] == [
        ("ollama/a_", "duplicate_name"),
        ("ollama/b", "duplicate_name"),
        ("ollama/cc", "name_too_long"),
    ]
    config = with_models(written(STUB, name_conflict="overwrite"), ["b"])
    assert named(config) == [("ollama/b", "b")]
    assert config.backends[0].kind == "ollama_chat"


def test_twice_is_as_once() -> None:
    config = with_models(written(STUB), ["a", "c"])
    assert with_models(config, ["a"]).backends == with_models(written(STUB), ["a"]).backends


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=140), max_size=6))
def test_whatever_the_models_are_called(models: list[str]) -> None:
    config = with_models(written(STUB), models)
    names = [each.name for each in config.backends]
    assert len(set(names)) == len(names)
    assert len(config.backends) - 1 + len(config.skipped) == len(models)
    build_generation(config)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"base_url": "http://canary.example:1"}, "discovery.ollama.base_url: is not on this machine"),
        ({"base_url": "canary"}, "discovery.ollama.base_url: is a string without a scheme"),
        ({"timeout": 0}, "discovery.ollama.timeout: is 0"),
        ({"timeout_ms": 5}, "discovery.ollama.timeout_ms: is not a known key; did you mean"),
        ({"scope": "all"}, "discovery.ollama.scope: is none of the known names"),
        ({"default_ops": ["image_generation"]}, "default_ops[0]: is not an operation of Ollama's"),
        ({"default_ops": []}, "default_ops: is an empty list"),
    ],
)
def test_what_is_wrong_is_said(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        written(**fields)
    assert says in str(caught.value)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "hosting"), [("http://[::1]:5", "local"), ("http://LOCALHOST:5", "local"), ("http://a.example:5", "remote")]
)
def test_where_it_runs(url: str, hosting: str) -> None:
    config = with_models(written(base_url=url, allow_remote=hosting == "remote"), ["a"])
    assert config.backends[0].hosting.value == hosting
    assert build_generation(config).instances[0].reason is None
    assert "example" not in repr(config)
    assert any(secret.reveal() == url for secret in config.secrets)
