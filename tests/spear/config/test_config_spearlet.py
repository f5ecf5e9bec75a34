"""The layout [spearlet.llm]: a file of an existing installation loads unchanged."""

# ruff: noqa: E501 -- tables of mistakes and their messages

from __future__ import annotations

from pathlib import Path

import pytest

from spear.config import Config, load_config
from spear.ir import ConfigError, Operation, Transport
from spear.secrets import Secret

EXISTING = """\
[spearlet]
node_name = "edge-7"
heartbeat_interval = 30

[spearlet.http.server]
addr = "0.0.0.0:8081"

[spearlet.llm]
default_policy = "weighted_random"

[spearlet.llm.discovery.ollama]
enabled = false
scope = "installed"
base_url = "http://127.0.0.1:11434"
allow_models = []
name_conflict = "overwrite"
default_ops = ["chat_completions"]

[spearlet.llm.router_grpc_filter_stream]
enabled = false
addr = "127.0.0.1:50071"
decision_timeout_ms = 500

[[spearlet.llm.credentials]]
name = "chat"
kind = "env"
api_key_env = "CHAT_KEY"

[[spearlet.llm.credentials]]
name = "unused"
kind = "env"
api_key_env = "UNUSED_KEY"

[[spearlet.llm.backends]]
name = "chat"
kind = "openai_chat_completion"
base_url = "https://chat.example/v1"
hosting = "remote"
model = "gpt-4o-mini"
credential_ref = "chat"
weight = 70
priority = 2
ops = ["chat_completions"]
features = ["supports_tools"]
transports = ["http"]

[[spearlet.llm.backends]]
name = "bare"
kind = "stub"
hosting = "local"
ops = ["chat_completions", "embeddings"]
"""


def load(tmp_path: Path, text: str, **environ: str) -> Config:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return load_config(path, environ=environ)


def problems(tmp_path: Path, text: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, **environ)
    assert "canary" not in str(caught.value)
    return [f"{p.line} {p.key}: {p.message}" for p in caught.value.problems]


def backend(**changes: str) -> str:
    keys = {"name": '"b"', "kind": '"stub"', "hosting": '"local"', "ops": '["chat_completions"]', **changes}
    return "[[spearlet.llm.backends]]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items() if value)


def test_an_existing_file(tmp_path: Path) -> None:
    config = load(tmp_path, EXISTING, CHAT_KEY="sk-canary", UNUSED_KEY="not read")
    assert (config.layout, config.default_policy, config.warnings) == ("spearlet", "weighted_random", ())
    chat, bare = config.backends
    assert chat.base_url == Secret("https://chat.example/v1")
    assert (chat.kind, chat.hosting, chat.model) == ("openai_chat_completion", "remote", "gpt-4o-mini")
    assert (chat.weight, chat.priority, chat.credentials) == (70, 2, ("chat",))
    assert (chat.ops, chat.transports) == ((Operation.CHAT_COMPLETIONS,), (Transport.HTTP,))
    assert chat.features == ("supports_tools",)
    assert chat.origin.key == "spearlet.llm.backends[0]"
    assert (bare.weight, bare.priority, bare.credentials, bare.base_url, bare.model) == (100, 0, (), None, None)
    assert (bare.ops, bare.features, bare.transports) == (
        (Operation.CHAT_COMPLETIONS, Operation.EMBEDDINGS),
        (),  # absent = none, other than in the layout [spear]
        (),
    )
    assert [(c.name, c.source, c.value) for c in config.credentials] == [
        ("chat", "env:CHAT_KEY", Secret("sk-canary")),
        ("unused", "env:UNUSED_KEY", None),
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (backend(ops=""), "no_operations"),
        (backend(ops="[]"), "no_operations"),
        (backend(ops='["chat", "completions"]'), "no_operations"),
        (backend(credential_ref='"nobody"'), "missing_credential"),
        (backend(credential_ref='""'), "missing_credential"),
        (backend(credential_ref='"k"'), "missing_credential"),
        (backend(credential_ref='"empty"'), "missing_credential"),
        (backend(credential_ref='"broken"'), "missing_credential"),
        (backend(credential_ref='"wrong_kind"'), "missing_credential"),
    ],
)
def test_what_is_skipped(tmp_path: Path, text: str, reason: str) -> None:
    credentials = "".join(
        f'[[spearlet.llm.credentials]]\nname = "{name}"\nkind = "{kind}"\napi_key_env = "{variable}"\n'
        for name, kind, variable in [
            ("k", "env", "MISSING"),
            ("empty", "env", "EMPTY"),
            ("broken", "env", "BROKEN"),
            ("wrong_kind", "vault", "GOOD"),
        ]
    )
    config = load(tmp_path, credentials + text, EMPTY=" ", BROKEN="canary\ncanary", GOOD="g")
    assert config.backends == ()
    (skipped,) = config.skipped
    assert (skipped.name, skipped.reason, skipped.origin.line) == ("b", reason, 17)
    assert any("spearlet.llm.backends[0]: skipped" in warning for warning in config.warnings)
    assert "canary" not in repr(config)


def test_the_later_of_two_names_is_skipped(tmp_path: Path) -> None:
    config = load(tmp_path, backend() + backend(kind='"ollama_chat"') + backend(name='"c"'))
    assert [(b.name, b.kind) for b in config.backends] == [("b", "stub"), ("c", "stub")]
    assert [(s.kind, s.reason) for s in config.skipped] == [("ollama_chat", "duplicate_name")]


@pytest.mark.parametrize(
    ("credential", "why"),
    [
        ('kind = "env"\napi_key_env = "K"', "it has no name"),
        ('name = "k"\napi_key_env = "K"', 'its kind is not "env"'),
        ('name = "k"\nkind = "file"\napi_key_env = "K"', 'its kind is not "env"'),
        ('name = "k"\nkind = "env"', "its api_key_env is not the name"),
        ('name = "k"\nkind = "env"\napi_key_env = "sk-canary"', "its api_key_env is not the name"),
        ('name = "first"\nkind = "env"\napi_key_env = "K"', "an earlier credential has this name"),
    ],
)
def test_credentials_that_are_none_are_skipped(tmp_path: Path, credential: str, why: str) -> None:
    first = '[[spearlet.llm.credentials]]\nname = "first"\nkind = "env"\napi_key_env = "F"\n'
    config = load(tmp_path, f"{first}[[spearlet.llm.credentials]]\n{credential}\n")
    assert [(c.name, c.source) for c in config.credentials] == [("first", "env:F")]
    (warning,) = config.warnings
    assert f":5: spearlet.llm.credentials[1]: skipped: {why}" in warning
    assert "canary" not in warning


def test_unknown_operations_and_transports_are_dropped(tmp_path: Path) -> None:
    config = load(tmp_path, backend(ops='["chat_completions", "telepathy"]', transports='["http", "pigeon"]'))
    assert config.backends[0].ops == (Operation.CHAT_COMPLETIONS,)
    assert config.backends[0].transports == (Transport.HTTP,)
    assert [w.partition(": ")[2] for w in config.warnings] == [
        "spearlet.llm.backends[0].ops[1]: dropped: no such operation",
        "spearlet.llm.backends[0].transports[1]: dropped: no such transport",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (backend(hosting=""), '1 spearlet.llm.backends[0].hosting: is missing; expected "local" or "remote"'),
        (backend(hosting='"cloud"'), "4 spearlet.llm.backends[0].hosting: is none of the known names; expected 'local'"),
        (backend(api_key_env='"K"'), "6 spearlet.llm.backends[0].api_key_env: is not a setting here"),
        (backend(model_class='"m"'), "6 spearlet.llm.backends[0].model_class: is not a known key"),
        (backend(wieght="1"), '6 spearlet.llm.backends[0].wieght: is not a known key; did you mean "weight"?'),
        (backend(weight="-1"), "6 spearlet.llm.backends[0].weight: is -1; expected at least 0"),
        (backend(base_url='"canary"'), "6 spearlet.llm.backends[0].base_url: is a string without a scheme"),
        (backend(name='""'), "2 spearlet.llm.backends[0].name: is empty"),
        ("[spearlet.llm]\npolicy = 'x'", '2 spearlet.llm.policy: is not a known key; did you mean "default_policy"?'),
        ("[spearlet.llm]\ndefault_policy = 3", "2 spearlet.llm.default_policy: is 3; expected a string"),
        ("[[spearlet.llm.credentials]]\nkey = 'canary'", "2 spearlet.llm.credentials[0].key: is not a setting here"),
        ("[[spearlet.llm.credentials]]\nname = 5", "2 spearlet.llm.credentials[0].name: is 5; expected a string"),
        ("[spearlet.llm.discovery.x]", "1 spearlet.llm.discovery.x: is not a known key"),
        ("[spearlet.llm.discovery.ollama]\nscope='all'", "2 spearlet.llm.discovery.ollama.scope: is none of the known"),
        ("[spearlet.llm.discovery.ollama]\nbase_url='canary'", "2 spearlet.llm.discovery.ollama.base_url: is a string w"),
        ("[spearlet.llm.router_grpc_filter_stream]\naddress='x'", '2 spearlet.llm.router_grpc_filter_stream.address: is'),
        ("[spearlet.llm.router_grpc_filter_stream]\nenabled=1", "2 spearlet.llm.router_grpc_filter_stream.enabled: is 1"),
        ("spearlet = 1", "1 spearlet: is 1; expected a table: [spearlet]"),
        ("[spearlet]\nllm = 1", "2 spearlet.llm: is 1; expected a table: [spearlet.llm]"),
    ],
)  # fmt: skip
def test_what_is_malformed_is_an_error(tmp_path: Path, text: str, expected: str) -> None:
    found = problems(tmp_path, text)
    assert any(problem.startswith(expected) for problem in found), found


def test_other_tables_are_nobodys_business(tmp_path: Path) -> None:
    config = load(tmp_path, "[sms]\nx = 1\n[spearlet.storage]\nbackend = 5\n" + backend())
    assert config.warnings == ()
    assert len(config.backends) == 1


def test_a_file_without_the_table_has_no_backend(tmp_path: Path) -> None:
    config = load(tmp_path, "[spearlet]\nnode_name = 'x'\n")
    assert config.backends == ()
    assert "has no table [spearlet.llm]" in config.warnings[0]


def test_the_policy_is_always_the_same(tmp_path: Path) -> None:
    config = load(tmp_path, "[spearlet.llm]\ndefault_policy = 'round_robin'\n" + backend())
    assert config.default_policy == "weighted_random"
    assert "spearlet.llm.default_policy: is not used" in config.warnings[0]


def test_plain_http_loads_with_a_warning(tmp_path: Path) -> None:
    remote = load(tmp_path, backend(hosting='"remote"', base_url='"http://plain.canary/v1"'))
    assert remote.backends[0].allow_plaintext
    assert "is plain http to a remote host" in remote.warnings[0]
    assert "canary" not in remote.warnings[0]
    local = load(tmp_path, backend(base_url='"http://127.0.0.1:11434/v1"'))
    assert not local.backends[0].allow_plaintext
    assert local.warnings == ()


FILTER = "SPEARLET_LLM_ROUTER_GRPC_FILTER_STREAM_"


def test_the_filter_is_answered_with_a_warning(tmp_path: Path) -> None:
    table = "[spearlet.llm.router_grpc_filter_stream]\nenabled = true\n" + backend()
    assert "router_grpc_filter_stream: has no effect" in load(tmp_path, table).warnings[0]
    assert load(tmp_path, table, **{FILTER + "ENABLED": "false"}).warnings == ()
    assert "has no effect" in load(tmp_path, backend(), **{FILTER + "ENABLED": "1", FILTER + "ADDR": "x:1"}).warnings[0]


@pytest.mark.parametrize(
    ("key", "value"),
    [("ENABLED", "perhaps"), ("DECISION_TIMEOUT_MS", "2s"), ("DECISION_TIMEOUT_MS", "9999999999"), ("FAIL_OPEN", "")],
)
def test_an_override_that_means_nothing_is_an_error(tmp_path: Path, key: str, value: str) -> None:
    (problem,) = problems(tmp_path, backend(), **{FILTER + key: value})
    assert f"the variable {FILTER}{key} has no usable value" in problem


def test_discovery(tmp_path: Path) -> None:
    table = "[spearlet.llm.discovery.ollama]\nenabled = true\n"
    config = load(tmp_path, table + "timeout_ms = 0\ndefault_ops = ['embeddings', 'no_such']\n" + backend())
    assert [warning.rpartition(": ")[2] for warning in config.warnings] == ["names that are not known are dropped"]
    found = config.discovery.ollama
    assert (found.enabled, found.scope, found.timeout, found.max_models) == (True, "serving", 0.001, 32)
    assert [each.value for each in found.default_ops or ()] == ["embeddings"]
    assert (found.default_features, [each.value for each in found.default_transports or ()]) == ((), ["http"])
    assert not load(tmp_path, backend()).discovery.ollama.enabled


@pytest.mark.parametrize(("more", "enabled"), [("", False), ("allow_remote = true\n", True)])
def test_discovery_elsewhere_has_to_be_allowed(tmp_path: Path, more: str, enabled: bool) -> None:
    table = "[spearlet.llm.discovery.ollama]\nenabled = true\nbase_url = 'http://canary.example:1'\n"
    config = load(tmp_path, table + more + backend())
    assert config.discovery.ollama.enabled is enabled
    assert bool(config.warnings) is not enabled
    assert "canary" not in str(config.warnings)
