"""Whatever the source is: a Config or a ConfigError, and no secret in the words of either."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from spear.config import Config, load_config
from spear.config._model import GuestLimits, InstanceConfig, Route, RouterLimits, TaskConfig
from spear.ir import ConfigError

MARK = "sk-canary-0123456789abcdef"
VALID = f"""\
[spear]
default_policy = "round_robin"
[[spear.credentials]]
name = "k"
env = "K"
[[spear.backends]]
name = "b"
kind = "openai_chat"
hosting = "remote"
base_url = "https://{MARK}.example/v1"
credentials = ["k"]
limits = {{ max_inflight = 1 }}
timeouts = {{ connect = "3s" }}
options = {{ a = "{MARK}" }}
[[spear.routes]]
match = {{ operation = "chat_completions" }}
[[spear.tasks]]
id = "t"
config = {{ a = "{MARK}" }}
"""
EXISTING = f"""\
[spearlet.llm]
[[spearlet.llm.credentials]]
name = "k"
kind = "env"
api_key_env = "K"
[[spearlet.llm.backends]]
name = "b"
kind = "openai_chat_completion"
hosting = "remote"
base_url = "http://{MARK}.example/v1"
credential_ref = "k"
ops = ["chat_completions"]
"""
ENVIRON = {"K": MARK}


def load_bytes(data: bytes) -> Config | ConfigError:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.toml"
        path.write_bytes(data)
        return outcome(path)


def outcome(source: Any) -> Config | ConfigError:
    try:
        return load_config(source, environ=ENVIRON)
    except ConfigError as error:
        result = error
    assert result.problems
    assert all(problem.message for problem in result.problems)
    return result


def assert_silent(result: Config | ConfigError) -> None:
    text = str(result) if isinstance(result, ConfigError) else "\n".join(result.warnings)
    assert MARK not in text
    assert "canary" not in text


@given(st.binary(max_size=300))
@example(b"\x00")
@example(b"a=" + b"[" * 20_000)
@example(b"[spear]\na = 9" + b"9" * 10_000)
def test_bytes(data: bytes) -> None:
    load_bytes(data)


@given(st.text(max_size=300))
def test_text(text: str) -> None:
    load_bytes(text.encode("utf-8", "surrogatepass"))


@settings(deadline=None)
@given(st.sampled_from([VALID, EXISTING]), st.data())
def test_damaged_files_keep_their_secrets(text: str, data: st.DataObject) -> None:
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        cut = data.draw(st.integers(0, 12))
        text = text[:at] + data.draw(st.text(alphabet="\"'[]{}=.,\n \\#a1", max_size=3)) + text[at + cut :]
    assert_silent(load_bytes(text.encode()))


@settings(deadline=None)
@given(st.sampled_from([VALID, EXISTING]), st.data())
def test_a_secret_in_the_place_of_any_value(text: str, data: st.DataObject) -> None:
    rows = text.split("\n")
    index = data.draw(st.sampled_from([i for i, row in enumerate(rows) if " = " in row]))
    key = rows[index].partition(" = ")[0]
    if key in {"name", "id", "kind"}:
        return  # names are for showing
    value = data.draw(st.sampled_from([f'"{MARK}"', f'["{MARK}"]', f'{{ a = "{MARK}" }}', f'{{ "{MARK}" = 1 }}']))
    rows[index] = f"{key} = {value}"
    assert_silent(load_bytes("\n".join(rows).encode()))


MODELS = (Config, InstanceConfig, Route, RouterLimits, GuestLimits, TaskConfig)
KEYS = sorted(
    {"spear", "spearlet", "llm", "api_key", "env", "file", "rpm", "hedge", "ollama", "enabled"}
    | {key for model in MODELS for key in model.model_fields}
)  # fmt: skip
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.binary(max_size=3),
    st.dates(), st.sampled_from(["stub", "local", "3s", "auto", "priority", "chat_completions", 10**400]),
)  # fmt: skip
TREES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.sampled_from(KEYS), st.text(max_size=4), st.integers()), inner, max_size=5),
    ),
    max_leaves=20,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["spear", "spearlet", "x"]), TREES, max_size=2))
def test_any_mapping(source: dict[str, Any]) -> None:
    outcome(source)


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_any_value_at_any_key(data: st.DataObject) -> None:
    backend: dict[str, Any] = {"name": "b", "kind": "stub", "hosting": "local"}
    top: dict[str, Any] = {"backends": [backend], "credentials": [{"name": "k", "env": "K"}], "routes": [{}]}
    place = data.draw(st.sampled_from([top, backend, top["credentials"][0], top["routes"][0]]))
    place[data.draw(st.sampled_from(KEYS))] = data.draw(TREES)
    outcome({data.draw(st.sampled_from(["spear", "spearlet"])): data.draw(st.sampled_from([top, {"llm": top}]))})
