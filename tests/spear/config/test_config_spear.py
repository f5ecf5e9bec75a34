"""The layout [spear]: what it means, and how each mistake is reported."""

# ruff: noqa: E501 -- tables of mistakes and their messages

from __future__ import annotations

import pickle
import tomllib
from pathlib import Path
from typing import Any

import pytest

from spear.config import Config, HealthConfig, Hedge, Probe, RetryConfig, Route, default_config, load_config
from spear.ir import ConfigError, Hosting, Operation, Transport
from spear.secrets import Secret

FULL = """\
[spear]
default_policy = "round_robin"
debug_raw = true

[[spear.credentials]]
name = "openai-a"
env = "OPENAI_KEY_A"
quota_group = "org-1"

[[spear.credentials]]
name = "unused"
env = "UNUSED_KEY"

[[spear.backends]]
name = "gpt-us"
kind = "openai_chat"
hosting = "remote"
base_url = "https://gpt.example/v1"
model = "gpt-4o-mini"
model_class = "small-chat"
credentials = ["openai-a"]
ops = ["chat_completions"]
features = ["supports_stream", "supports_tools"]
transports = ["http"]
weight = 80
priority = -1
limits = { max_inflight = 64, max_queue = 0 }
price = { input = 0.15, output = 1 }
timeouts = { connect = "500ms", first_event = "auto", idle = 12, total = "1.5h" }
stream_usage = false
options = { seed = 7, nested = { a = [1, 2] } }

[[spear.backends]]
name = "big"
kind = "stub"
hosting = "local"
model_class = "big-chat"

[[spear.routes]]
match = { operation = "chat_completions", model_class = "small-chat" }
policy = "priority"
within_level = "least_inflight"
allow_policies = ["round_robin"]
fallback = ["big-chat"]

[[spear.routes]]
policy = "weighted_random"

[[spear.tasks]]
id = "agent"
config = { greeting = "hello" }
allow_operations = ["chat_completions"]
allow_backends = ["gpt-us"]

[spear.router]
max_attempts = 2
default_timeout_s = "2m"

[spear.guests]
timeout_s = 0
module_cache = false

[spear.log]
level = "debug"
format = "json"
"""
KEY = "[[spear.credentials]]\nname = 'k'\nenv = 'K'\n"
BUDGET = "[[spear.budgets]]\nname = 'b'\nwindow = '1h'\n"
STUB = '[[spear.backends]]\nname = "s"\nkind = "stub"\nhosting = "local"\n'


def load(tmp_path: Path, text: str, **environ: str) -> Config:
    path = tmp_path / "spear.toml"
    path.write_text(text, encoding="utf-8")
    return load_config(path, environ=environ)


def line_of(start: str) -> int:
    """The first line of FULL that begins so."""
    return 1 + next(i for i, row in enumerate(FULL.split("\n")) if row.startswith(start))


def problems(tmp_path: Path, text: str, **environ: str) -> list[str]:
    """Each problem as `line key: message`."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, **environ)
    for problem in caught.value.problems:
        assert problem.file == str(tmp_path / "spear.toml")
        assert str(problem) in str(caught.value)
    return [f"{p.line} {p.key}: {p.message}" for p in caught.value.problems]


def test_everything_that_can_be_said(tmp_path: Path) -> None:
    config = load(tmp_path, FULL, OPENAI_KEY_A=" sk-canary \n", UNUSED_KEY="never read")
    assert (config.layout, config.default_policy, config.debug_raw) == ("spear", "round_robin", True)
    used, unused = config.credentials
    assert (used.name, used.source, used.quota_group) == ("openai-a", "env:OPENAI_KEY_A", "org-1")
    assert used.value == Secret("sk-canary")
    assert unused.value is None
    gpt, big = config.backends
    assert gpt.base_url == Secret("https://gpt.example/v1")
    assert gpt.hosting is Hosting.REMOTE
    assert gpt.ops == (Operation.CHAT_COMPLETIONS,)
    assert gpt.transports == (Transport.HTTP,)
    assert gpt.features == ("supports_stream", "supports_tools")
    assert (gpt.weight, gpt.priority, gpt.stream_usage) == (80, -1, False)
    assert (gpt.limits.max_inflight, gpt.limits.max_queue) == (64, 0)
    assert gpt.price is not None
    assert (gpt.price.input, gpt.price.output) == (0.15, 1.0)
    assert gpt.timeouts.model_dump() == {"connect": 0.5, "first_event": None, "idle": 12.0, "total": 5400.0}
    assert gpt.options == {"seed": 7, "nested": {"a": [1, 2]}}
    assert (gpt.origin.line, gpt.origin.key) == (line_of("[[spear.backends]]"), "spear.backends[0]")
    assert gpt.origin.line_of("base_url") == line_of("base_url")
    assert gpt.origin.line_of("allow_plaintext") == gpt.origin.line
    assert (big.ops, big.features, big.transports, big.weight, big.priority) == (None, None, None, 100, 0)
    first, second = config.routes
    assert first.match.operation is Operation.CHAT_COMPLETIONS
    assert (first.match.model_class, first.policy, first.within_level) == ("small-chat", "priority", "least_inflight")
    assert (first.allow_policies, first.fallback, first.origin.line) == (
        ("round_robin",),
        ("big-chat",),
        line_of("[[spear.routes]]"),
    )
    assert second.match.model_dump() == {"operation": None, "model_class": None}
    (task,) = config.tasks
    assert (task.id, task.config, task.allow_backends) == ("agent", {"greeting": "hello"}, ("gpt-us",))
    assert (config.router.max_attempts, config.router.default_timeout_s) == (2, 120.0)
    assert (config.guests.timeout_s, config.guests.module_cache) == (None, False)
    assert (config.log.level, config.log.format) == ("debug", "json")
    assert config.warnings == ()
    assert set(config.secrets) == {Secret("sk-canary"), Secret("https://gpt.example/v1")}


def test_limits_and_budgets(tmp_path: Path) -> None:
    text = STUB + "model = 'small'\nlimits = { rpm = 5, tpd = 7 }\nprice = { input = 1 }\n" + BUDGET
    text += "cost = 2\nper = 'task'\nmatch = { task = 't', model_class = 'small' }\nsoft = 0.5\ndegrade_to = 'small'\n"
    text += "[[spear.credentials]]\nname = 'k'\nenv = 'K'\nlimits = { rpm = 3, output_tpm = 4 }"
    config = load(tmp_path, text)
    (backend,), (budget,), (key,) = config.backends, config.budgets, config.credentials
    assert (backend.limits.rpm, backend.limits.tpd, backend.limits.tpm) == (5, 7, None)
    assert (key.limits.rpm, key.limits.output_tpm, key.limits.tpm) == (3, 4, None)
    assert (budget.window, budget.per, budget.cost, budget.soft) == (3600, "task", 2, 0.5)
    assert (budget.match.task, budget.match.model_class, budget.degrade_to) == ("t", "small", "small")
    assert (budget.origin.key, budget.origin.line_of("cost")) == ("spear.budgets[0]", 11)
    assert config.warnings == ()


def test_money_that_is_not_counted_is_told(tmp_path: Path) -> None:
    text = STUB + BUDGET + "cost = 2\n"
    (warning,) = load(tmp_path, text).warnings
    assert warning.endswith("spear.budgets[0].cost: counts nothing at backends without a price: s")
    assert load(tmp_path, STUB + BUDGET + "tokens = 2").warnings == ()


def test_secrets_and_addresses_do_not_show(tmp_path: Path) -> None:
    config = load(tmp_path, FULL, OPENAI_KEY_A="sk-canary")
    for text in (repr(config), str(config), f"{config}", config.model_dump_json(), repr(config.model_dump())):
        assert "sk-canary" not in text
        assert "gpt.example" not in text
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(config)


def test_a_mapping_takes_the_same_shape() -> None:
    config = load_config(
        {
            "spear": {
                "credentials": ({"name": "k", "env": "K"},),
                "backends": [
                    {
                        "name": "s",
                        "kind": "openai_chat",
                        "hosting": Hosting.REMOTE,
                        "base_url": Secret("https://h/v1"),
                        "credentials": ["k"],
                        "timeouts": {"idle": 2},
                    }
                ],
            }
        },
        environ={"K": "v"},
    )
    assert config.backends[0].base_url == Secret("https://h/v1")
    assert config.backends[0].timeouts.idle == pytest.approx(2.0)
    assert config.credentials[0].value == Secret("v")
    assert config.origin.line == 0


def test_a_mapping_is_checked_like_a_file() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config({"spear": {"backends": [{"name": Secret("x"), 5: 6, "options": {"when": object()}}]}}, environ={})
    text = str(caught.value)
    assert "configuration: spear.backends[0].name: is a secret; no setting takes that" in text
    assert "configuration: spear.backends[0]: has a key that is 5; expected a string" in text
    assert "configuration: spear.backends[0].options.when: is of type object" in text
    assert "configuration: spear.backends[0].hosting: is missing" in text


def test_the_default_is_what_is_embedded() -> None:
    config = load_config(None, environ={})
    assert config == default_config()
    kinds = ["stub", "hashed_ngrams", "prompt_card", "espeak", "pocketsphinx"]
    assert [(b.name, b.kind, b.hosting, b.answers_to) for b in config.backends] == [(k, k, "local", ()) for k in kinds]
    assert config.layout == "embedded"


def test_an_empty_configuration_loads_with_a_warning(tmp_path: Path) -> None:
    config = load(tmp_path, "[spear]\n")
    assert config.backends == ()
    assert "no backend is configured" in config.warnings[0]


def test_health_and_retries(tmp_path: Path) -> None:
    text = """
    [spear]
    on_exhausted = "panic"
    [spear.health]
    failures = 3
    min_success = 0.5
    open_s = "500ms"
    slow_start_s = 0
    max_wait_s = "2s"
    [spear.retries]
    per_instance = 1
    backoff_s = "250ms"
    """
    config = load_config(tomllib.loads(text))
    assert config.on_exhausted == "panic"
    assert config.health == HealthConfig(failures=3, min_success=0.5, open_s=0.5, slow_start_s=0, max_wait_s=2)
    assert config.retries == RetryConfig(per_instance=1, backoff_s=0.25)
    assert default_config().on_exhausted == "wait"


def test_probes_and_the_bounds_of_a_route() -> None:
    text = (
        STUB + "probe = { every = '10s', timeout = 0.5 }\n[[spear.routes]]\non_exhausted = 'fail'\nmax_attempts = 1\n"
    )
    config = load_config(tomllib.loads(text))
    assert config.backends[0].probe == Probe(every=10, timeout=0.5)
    assert (config.routes[0].on_exhausted, config.routes[0].max_attempts) == ("fail", 1)
    config = load_config(tomllib.loads(STUB + "probe = {}\n"))
    assert config.backends[0].probe == Probe(every=30, timeout=5)
    assert load_config(tomllib.loads(STUB)).backends[0].probe is None


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("{}", Hedge()),
        (
            "{ max_extra_load = 0.1, max_attempts = 3, delay = 'p99.5' }",
            Hedge(max_extra_load=0.1, max_attempts=3, delay="p99.5"),
        ),
        ("{ delay = '80ms' }", Hedge(delay=0.08)),
        ("{ delay = 1 }", Hedge(delay=1.0)),
        ("{ delay = ' p95 ' }", Hedge(delay="p95")),
    ],
)
def test_hedges(written: str, expected: Hedge) -> None:
    config = load_config(tomllib.loads(STUB + f"[[spear.routes]]\nhedge = {written}\n"))
    assert config.routes[0].hedge == expected


def test_all_problems_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = FULL.replace("debug_raw = true", "debug_rew = true").replace("weight = 80", 'weight = "much"')
    text = text.replace('level = "debug"', 'level = "loud"').replace('["gpt-us"]', '["gpt-uk"]')
    found = problems(tmp_path, text)
    assert found == [
        '3 spear.debug_rew: is not a known key; did you mean "debug_raw"?',
        f"{line_of('weight = 80')} spear.backends[0].weight: is a string; expected a whole number",
        f'{line_of("allow_backends")} spear.tasks[0].allow_backends[0]: is not among [[spear.backends]]; did you mean "gpt-us"?',
        f"{line_of('level')} spear.log.level: is none of the known names; expected 'debug', 'info', 'warning' or 'error'",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[spear]\non_exhausted = 'hope'", "2 spear.on_exhausted: is none of the known names; expected 'wait', 'panic'"),
        ("[spear.health]\nfailures = 0", "2 spear.health.failures: is 0; expected at least 1"),
        ("[spear.health]\neject_max_share = 0.6", "2 spear.health.eject_max_share: is 0.6; expected at most 0.5"),
        ("[spear.health]\nopen_s = 0", "2 spear.health.open_s: is 0; expected more than 0"),
        ("[spear.health]\nopen_s = '10m'", "spear.health.open_max_s: is 300; expected at least open_s, which is 600"),
        ("[spear.health]\nmax_wait = 3", '2 spear.health.max_wait: is not a known key; did you mean "max_wait_s"?'),
        ("[spear.retries]\nbackoff_max_s = 0.1", "2 spear.retries.backoff_max_s: is 0.1; expected at least backoff_s"),
        ("[spear.retries]\nper_instance = 11", "2 spear.retries.per_instance: is 11; expected at most 10"),
        ("[spear.retry]\nper_instance = 1", '1 spear.retry: is not a known key; did you mean "retries"?'),
        (STUB + "limits = { rpm = 0 }", "5 spear.backends[0].limits.rpm: is 0; expected at least 1"),
        (STUB + "limits = { rmp = 1 }", '5 spear.backends[0].limits.rmp: is not a known key; did you mean "rpm"?'),
        (
            "[[spear.credentials]]\nname = 'k'\nenv = 'K'\nlimits = { max_inflight = 3 }",
            "4 spear.credentials[0].limits.max_inflight: is not a known key",
        ),
        (BUDGET, "1 spear.budgets[0]: limits nothing; expected at least one of `requests`, `tokens` and `cost`"),
        (BUDGET + "cost = 0", "4 spear.budgets[0].cost: is 0; expected more than 0"),
        (BUDGET + "tokens = 1.5", "4 spear.budgets[0].tokens: is 1.5; expected a whole number"),
        ("[[spear.budgets]]\nname = 'b'\ncost = 1", "1 spear.budgets[0].window: is missing; expected a duration such"),
        ("[[spear.budgets]]\nname = 'b'\nwindow = 'day'", "3 spear.budgets[0].window: is a string; expected more than 0"),
        (BUDGET + "cost = 1\nper = 'user'", "5 spear.budgets[0].per: is none of the known names; expected 'all', 'task'"),
        (BUDGET + "cost = 1\nper = 'key'\nsoft = 0.5", "6 spear.budgets[0].soft: has a meaning only beside per = "),
        (BUDGET + "cost = 1\nper = 'key'\ndegrade_to = 'x'", "6 spear.budgets[0].degrade_to: has a meaning only beside"),
        (
            STUB + "model = 'small'\n" + BUDGET + "cost = 1\ndegrade_to = 'smal'",
            '10 spear.budgets[0].degrade_to: no backend has this model or class; did you mean "small"?',
        ),
        (
            STUB + BUDGET + "cost = 1\nmatch = { backend = 't' }",
            "spear.budgets[0].match.backend: no backend has this name; expected one of s",
        ),
        (
            STUB + BUDGET + "cost = 1\nmatch = { user = 't' }",
            "spear.budgets[0].match.user: is not a known key; expected one of",
        ),
        (BUDGET + "cost = 1\n" + BUDGET + "cost = 1", "6 spear.budgets[1].name: is the name of spear.budgets[0] already"),
        ("[spear.decisions]\nfiles = 0", "2 spear.decisions.files: is 0; expected at least 1"),
        ("[spear.decisions]\nsample = 1.5", "2 spear.decisions.sample: is 1.5; expected at most 1"),
        ("[spear.decisions]\npath = '/no/such/d'", "2 spear.decisions.path: is no place for a file; expected a file in a"),
        (STUB + "probe = true", "5 spear.backends[0].probe: is a boolean; expected a table"),
        (STUB + "probe = { evry = 3 }", '5 spear.backends[0].probe.evry: is not a known key; did you mean "every"?'),
        (STUB + "probe = { every = 0 }", "5 spear.backends[0].probe.every: is 0; expected more than 0"),
        (STUB + "probe = { every = '50ms' }", "5 spear.backends[0].probe.every: is 0.05; expected at least 0.1"),
        (STUB + "probe = { timeout = 'soon' }", "5 spear.backends[0].probe.timeout: is a string; expected more than 0"),
        (STUB + "[[spear.routes]]\non_exhausted = 'hope'", "6 spear.routes[0].on_exhausted: is none of the known names"),
        (STUB + "[[spear.routes]]\nmax_attempts = 0", "6 spear.routes[0].max_attempts: is 0; expected at least 1"),
        (STUB + "[[spear.routes]]\nmax_attempts = 11", "6 spear.routes[0].max_attempts: is 11; expected at most 10"),
        (STUB + "region = 'eu'", "5 spear.backends[0].region: is not supported by this version"),
        (STUB + "credentials = ['a', 'b', 'a']", "5 spear.backends[0].credentials[2]: is there twice"),
        (KEY + "weight = 0", "4 spear.credentials[0].weight: is 0; expected at least 1"),
        (KEY + "quota_group = ''", "4 spear.credentials[0].quota_group: is empty"),
        ("[spear.keys]\nrevive_s = 0", "2 spear.keys.revive_s: is 0; expected more than 0"),
        ("[spear.keys]\ncool_max_s = 0.5", "2 spear.keys.cool_max_s: is 0.5; expected at least cool_s, which is 1"),
        ("[spear.keys]\nrevive = 3", '2 spear.keys.revive: is not a known key; did you mean "revive_s"?'),
        ("[spear]\ndefault_policy = 'weighted_randm'", 'is no policy; did you mean "weighted_random"?'),
        (STUB + "[[spear.routes]]\npolicy = 'x'", "6 spear.routes[0].policy: is no policy; expected one of"),
        (STUB + "[[spear.routes]]\npolicy = 5", "spear.routes[0].policy: is 5; expected a string"),
        ("[spear]\nbackends = 3", "2 spear.backends: is 3; expected a list of tables, each under [[spear.backends]]"),
        ("[spear.backends]\nname = 'x'", "1 spear.backends: is a table; expected a list of tables"),
        ("[spear]\nbackends = [1]", "2 spear.backends[0]: is 1; expected a list of tables"),
        ("[spear]\nrouter = 3", "2 spear.router: is 3; expected a table: [spear.router]"),
        ("[[spear.backends]]\nkind = 'stub'", '1 spear.backends[0].hosting: is missing; expected "local" or "remote"'),
        ("[[spear.backends]]\nhosting = 'local'", "1 spear.backends[0].kind: is missing; expected a kind of backend"),
        (STUB + STUB, "6 spear.backends[1].name: is the name of spear.backends[0] already"),
        (STUB.replace('"s"', '""'), "2 spear.backends[0].name: is empty; expected a name"),
        (STUB.replace('"s"', '" s"'), "2 spear.backends[0].name: has blanks around it"),
        (STUB + "stream_usage = true\nname2 = 1", '6 spear.backends[0].name2: is not a known key; did you mean "name"?'),
        (STUB + "ops = []", "5 spear.backends[0].ops: is an empty list; name at least one, or leave the key out"),
        (STUB + "transports = []", "5 spear.backends[0].transports: is an empty list"),
        (STUB + "credentials = []", "5 spear.backends[0].credentials: is an empty list"),
        (STUB + "ops = ['chat']", "5 spear.backends[0].ops[0]: is none of the known names; expected 'chat_completions'"),
        (STUB + "weight = -1", "5 spear.backends[0].weight: is -1; expected at least 0"),
        (STUB + "weight = 1.5", "5 spear.backends[0].weight: is 1.5; expected a whole number"),
        (STUB + "weight = true", "5 spear.backends[0].weight: is a boolean; expected a whole number"),
        (STUB + "weight = 10_000_000", "5 spear.backends[0].weight: is 10000000; expected at most 1000000"),
        (STUB + f"priority = {'9' * 400}", "5 spear.backends[0].priority: is a whole number with many digits; expected"),
        (STUB + "price = { input = nan }", "5 spear.backends[0].price.input: is not a finite number"),
        (STUB + "price = { input = -0.1 }", "5 spear.backends[0].price.input: is -0.1; expected at least 0"),
        (STUB + "price = 3", "5 spear.backends[0].price: is 3; expected a table"),
        (STUB + "price = { inpt = 1 }", '5 spear.backends[0].price.inpt: is not a known key; did you mean "input"?'),
        (STUB + "limits = { max_inflight = 0 }", "5 spear.backends[0].limits.max_inflight: is 0; expected at least 1"),
        (STUB + "timeouts = { connect = '3 weeks' }", "5 spear.backends[0].timeouts.connect: is a string; expected more"),
        (STUB + "timeouts = { connect = 0 }", "5 spear.backends[0].timeouts.connect: is 0; expected more than 0"),
        (STUB + "timeouts = { connect = 'auto' }", "5 spear.backends[0].timeouts.connect: is a string"),
        (STUB + "timeouts = { total = '9000h' }", "5 spear.backends[0].timeouts.total: is a duration out of range"),
        (STUB + f"timeouts = {{ total = {'9' * 400} }}", "timeouts.total: is a whole number with many digits"),
        (STUB + "timeouts = { total = 1979-05-27 }", "5 spear.backends[0].timeouts.total: is a date or time"),
        (STUB + "model = 07:32:00", "5 spear.backends[0].model: is a date or time; no setting takes that"),
        (STUB + "base_url = 5", "5 spear.backends[0].base_url: is 5; expected a URL"),
        (STUB + "base_url = ''", "5 spear.backends[0].base_url: is empty; expected a URL"),
        (STUB + "base_url = 'gpt.canary'", "5 spear.backends[0].base_url: is a string without a scheme"),
        (STUB + "base_url = 'http://h:canary/'", "5 spear.backends[0].base_url: is not a URL"),
        (STUB + "base_url = 'http://[canary/'", "5 spear.backends[0].base_url: is not a URL"),
        (STUB + "base_url = 'https://canary /'", "5 spear.backends[0].base_url: is a string with blanks"),
        (STUB + "api_key = 'sk-canary'", "5 spear.backends[0].api_key: is not a setting here, and a key itself never"),
        (STUB + "options = { a = { token = 'canary' } }", "5 spear.backends[0].options.a.token: does not belong into"),
        (STUB + "origin = {}", "5 spear.backends[0].origin: is not a known key"),
        (STUB + "'sk-canary123' = 1", "5 spear.backends[0].(a key not shown): is not a known key"),
        (STUB + "'https://canary' = 1", "5 spear.backends[0].(a key not shown): is not a known key"),
        (STUB + "credentials = ['sk-canary']", "is not among [[spear.credentials]]; there is none"),
        ("[[spear.credentials]]\nname = 'k'", "1 spear.credentials[0]: has no `env` and no `file`"),
        ("[[spear.credentials]]\nname = 'k'\nenv='A'\nfile='b'", "1 spear.credentials[0]: has both `env` and `file`"),
        ("[[spear.credentials]]\nname='k'\nenv='sk-canary'", "3 spear.credentials[0].env: is not the name of an environ"),
        ("[[spear.credentials]]\nname = 'k'\nenv = 5", "3 spear.credentials[0].env: is 5; expected a string"),
        ("[[spear.credentials]]\nname = 'k'\nfile = ''", "3 spear.credentials[0].file: is empty; expected a string"),
        ("[[spear.credentials]]\nenv = 'K'", "1 spear.credentials[0].name: is missing; expected a name"),
        ("[[spear.credentials]]\nname='k'\nenv='K'\nvalue='canary'", "4 spear.credentials[0].value: is not a known key"),
        (STUB + "[[spear.routes]]\n[[spear.routes]]", "6 spear.routes[1]: is never reached: spear.routes[0] matches all"),
        (STUB + "[[spear.routes]]\nwithin_level = 'round_robin'", "within_level: has a meaning only beside policy"),
        (STUB + "[[spear.routes]]\nspill = 'strict'", '6 spear.routes[0].spill: has a meaning only beside policy = "prio'),
        (STUB + "[[spear.routes]]\npolicy='priority'\nspill='some'", "7 spear.routes[0].spill: is none of the known names"),
        (STUB + "[[spear.routes]]\ntau = 3", 'only beside policy = "cheapest" or policy = "ewma_latency" or policy = "pea'),
        (STUB + "[[spear.routes]]\npolicy='round_robin'\ntau='3s'", "7 spear.routes[0].tau: has a meaning only beside"),
        (STUB + "[[spear.routes]]\npolicy='round_robin'\nwithin_level='peak_ewma'\ntau='3s'", "8 spear.routes[0].tau: has"),
        (STUB + "[[spear.routes]]\npolicy='peak_ewma'\ntau=0", "7 spear.routes[0].tau: is 0; expected more than 0"),
        (STUB + "[[spear.routes]]\npolicy='peak_ewma'\ntau='1ms'", "7 spear.routes[0].tau: is 0.001; expected at least 0"),
        (STUB + "[[spear.routes]]\npolicy='peak_ewma'\ntau='25h'", "spear.routes[0].tau: is 90000; expected at most 86400"),
        (STUB + "[[spear.routes]]\npolicy='peak_ewma'\nhash_key=['task']", "7 spear.routes[0].hash_key: has a meaning only"),
        (STUB + "[[spear.routes]]\npolicy='consistent_hash'\nhash_key=[]", "7 spear.routes[0].hash_key: is an empty list"),
        (STUB + "[[spear.routes]]\npolicy='consistent_hash'\nhash_key=['user']", "hash_key[0]: is none of the known names"),
        (STUB + "[[spear.routes]]\npolicy='consistent_hash'\nload_bound=1", "load_bound: is 1; expected more than 1"),
        (STUB + "[[spear.routes]]\npolicy='cheapest'\nload_bound=2", "7 spear.routes[0].load_bound: has a meaning only"),
        (STUB + "[[spear.routes]]\npolicy='priority'\nwithin_level='priority'", "7 spear.routes[0].within_level: is the"),
        (STUB + "[[spear.routes]]\nhedge = 3", "6 spear.routes[0].hedge: is 3; expected a table"),
        (STUB + "[[spear.routes]]\nhedge = { dely = 1 }", '6 spear.routes[0].hedge.dely: is not a known key; did you mean "delay"?'),
        (STUB + "[[spear.routes]]\nhedge = { max_extra_load = 0 }", "6 spear.routes[0].hedge.max_extra_load: is 0; expected more than 0"),
        (STUB + "[[spear.routes]]\nhedge = { max_extra_load = 1.1 }", "hedge.max_extra_load: is 1.1; expected at most 1"),
        (STUB + "[[spear.routes]]\nhedge = { max_attempts = 1 }", "6 spear.routes[0].hedge.max_attempts: is 1; expected at least 2"),
        (STUB + "[[spear.routes]]\nhedge = { max_attempts = 6 }", "6 spear.routes[0].hedge.max_attempts: is 6; expected at most 5"),
        (STUB + "[[spear.routes]]\nhedge = { delay = 'p100' }", 'hedge.delay: is a string and no percentile; expected a percentile'),
        (STUB + "[[spear.routes]]\nhedge = { delay = 'p' }", "6 spear.routes[0].hedge.delay: is a string and no percentile"),
        (STUB + "[[spear.routes]]\nhedge = { delay = '95' }", "6 spear.routes[0].hedge.delay: is a string and no percentile"),
        (STUB + "[[spear.routes]]\nhedge = { delay = '95p' }", '"p99.999" such as "p95", or a number of seconds'),
        (STUB + "[[spear.routes]]\nhedge = { delay = 'p0.95' }", "6 spear.routes[0].hedge.delay: is less than the first"),
        (STUB + "[[spear.routes]]\nhedge = { delay = '9 x s' }", "6 spear.routes[0].hedge.delay: is a string; expected more"),
        (
            STUB + "[[spear.routes]]\nmax_attempts = 1\nhedge = {}",
            "7 spear.routes[0].hedge: does nothing here: this route allows one attempt",
        ),
        (
            STUB + "[spear.router]\nmax_attempts = 1\n[[spear.routes]]\nhedge = {}",
            "8 spear.routes[0].hedge: does nothing here: [spear.router] allows one attempt",
        ),
        ("[spear.mirrors]\npath = '/no/such/d'", "2 spear.mirrors.path: is no place for a file; expected a file in a"),
        (
            "[spear.mirrors]\npath = 'both'\n[spear.decisions]\npath = './both'",
            "4 spear.decisions.path: is the file of spear.mirrors.path already",
        ),
        (STUB + "[[spear.routes]]\nhedge = { delay = 0 }", "6 spear.routes[0].hedge.delay: is 0; expected more than 0"),
        (STUB + "[[spear.routes]]\nhedge = { delay = true }", "6 spear.routes[0].hedge.delay: is a boolean; expected more than 0"),
        (STUB + "[[spear.routes]]\nhedge = { delay = [] }", "6 spear.routes[0].hedge.delay: is a list; expected more than 0"),
        (STUB + "[[spear.routes]]\nhedge = {}\nmatch = { operation = 'image_generation' }", "hedge: does nothing here: image_generation is never"),
        (STUB + "[[spear.routes]]\nhedge = {}\nmatch = { operation = 'realtime_voice' }", "hedge: does nothing here: realtime_voice is never"),
        (STUB + "[[spear.routes]]\ncontinuation = 'hope'", "6 spear.routes[0].continuation: is none of the known names"),
        (STUB + "[[spear.routes]]\ncontinuation = 'prefill'\nmatch = { operation = 'embeddings' }", "only chats are contin"),
        (STUB + "[[spear.routes]]\nfallback = []", "6 spear.routes[0].fallback: is an empty list"),
        (STUB + "model='m'\n[[spear.routes]]\nfallback = ['n']", "7 spear.routes[0].fallback[0]: is not among the models"),
        (STUB + "model='m'\n[[spear.routes]]\nmatch={model_class='n'}", "match.model_class: no backend has this model"),
        (STUB + "[[spear.routes]]\nmatch={model='n'}", '6 spear.routes[0].match.model: is not a known key; did you mean'),
        ("[[spear.tasks]]\nid = 'a'\n[[spear.tasks]]\nid = 'a'", "4 spear.tasks[1].id: is the id of spear.tasks[0] alre"),
        ("[[spear.tasks]]\nid='a'\nconfig={a=1}", "3 spear.tasks[0].config.a: is 1; expected a string"),
        ("[spear.guests]\nmemory_bytes = 1", "2 spear.guests.memory_bytes: is 1; expected at least 65536"),
        ("[spear.guests]\ntimeout_s = -1", "2 spear.guests.timeout_s: is -1; expected 0 (none) or a number of seconds"),
        ("[spear.router]\nmax_attempts = 11", "2 spear.router.max_attempts: is 11; expected at most 10"),
        ("[spear]\n[tool.x]", "2 tool: is not a known table"),
        ("[[backends]]\nname = 'x'", "1 backends: is not a known table; did you mean spear.backends?"),
        ("", "0 : has neither a table [spear] nor [spearlet.llm]"),
        ("spear = 5", "1 spear: is 5; expected a table: [spear]"),
        ("[spear]\n[spearlet.llm]", "2 : both [spear] and [spearlet] are here; expected one layout in a file"),
        ("[spear]\na = \n", "2 : is not TOML: Invalid value"),
        ("[spear]\nkcanary = 1\nkcanary = 1\n", "3 : is not TOML: "),
        ("[spear]\n[tcanary]\n[tcanary]\n", "3 : is not TOML: this key or table is declared twice"),
        ("[spear]\na = '''", "2 : is not TOML: "),
        ("[spear]\na = '\x01'", "2 : is not TOML: a character that may not stand here"),
        (f"a = {'9' * 5000}", "0 : is not TOML: a number has too many digits"),
        ("a = " + "[" * 3000, "0 : is nested deeper than 32"),
        ("[spear]\na = " + "[" * 40 + "]" * 40, "2 spear.a[0][0]"),
    ],
)  # fmt: skip
def test_each_mistake_has_its_place_and_its_words(tmp_path: Path, text: str, expected: str) -> None:
    found = problems(tmp_path, text)
    assert any(expected in problem for problem in found), found
    assert "canary" not in "\n".join(found).replace(str(tmp_path), "")


def test_the_options_of_policies(tmp_path: Path) -> None:
    def read(text: str) -> Route:
        (tmp_path / "spear.toml").write_text(STUB + "[[spear.routes]]\n" + text, encoding="utf-8")
        (route,) = load_config(tmp_path / "spear.toml", environ={}).routes
        return route

    route = read("policy = 'priority'\nspill = 'proportional'\nwithin_level = 'peak_ewma'\ntau = '500ms'")
    assert (route.spill, route.within_level, route.tau) == ("proportional", "peak_ewma", 0.5)
    route = read("policy = 'consistent_hash'\nhash_key = ['task', 'prompt']\nload_bound = 2")
    assert (route.hash_key, route.load_bound) == (("task", "prompt"), 2.0)
    route = read("policy = 'round_robin'\nallow_policies = ['cheapest', 'consistent_hash']\ntau = 5\nload_bound = 1.5")
    assert (route.tau, route.load_bound) == (5.0, 1.5)
    empty = read("")
    assert (empty.spill, empty.tau, empty.hash_key, empty.load_bound) == (None, None, None, None)


def test_what_is_unbound_may_answer_to_any_model(tmp_path: Path) -> None:
    config = load(tmp_path, STUB + "[[spear.routes]]\nmatch = { model_class = 'whatever' }")
    assert config.routes[0].match.model_class == "whatever"


def test_models_are_compared_without_the_blanks_around_them_and_names_are_not(tmp_path: Path) -> None:
    config = load(tmp_path, STUB + "model = ' m '\n[[spear.routes]]\nmatch={model_class='m '}\nfallback = [' m']")
    assert config.routes[0].fallback == (" m",)
    key = "[[spear.credentials]]\nname = 'k'\nenv = 'K'\n"
    (problem,) = problems(tmp_path, key + STUB + "credentials = [' k']")
    assert "is not among [[spear.credentials]]" in problem


def test_a_long_list_of_problems_is_cut(tmp_path: Path) -> None:
    found = problems(tmp_path, "[spear]\n" + "".join(f"x{i} = 1\n" for i in range(150)))
    assert len(found) == 101
    assert found[-1] == "0 : and 50 more problems"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"[spear]\n# \xff\n", ":2: is not UTF-8"),
        (b"#" * 1_048_577, ": is larger than 1048576 bytes"),
    ],
)
def test_what_is_no_text(tmp_path: Path, data: bytes, expected: str) -> None:
    path = tmp_path / "spear.toml"
    path.write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        load_config(path, environ={})
    assert str(caught.value).startswith(f"{path}{expected}")


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "spear.toml"
    path.write_bytes(b"\xef\xbb\xbf" + STUB.encode())
    assert load_config(str(path), environ={}).backends[0].origin.line == 1


@pytest.mark.parametrize("name", ["missing.toml", ".", "a\0b"])
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / name, environ={})
    assert "cannot be read" in str(caught.value)


def test_lines_of_windows(tmp_path: Path) -> None:
    path = tmp_path / "spear.toml"
    path.write_bytes((STUB + "wieght = 1\n").replace("\n", "\r\n").encode())
    with pytest.raises(ConfigError) as caught:
        load_config(path, environ={})
    assert caught.value.problems[0].line == 5


def test_an_error_survives_pickling(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, "[spear]\nx = 1\n")
    again: Any = pickle.loads(pickle.dumps(caught.value))
    assert again.problems == caught.value.problems


def test_a_key_that_is_no_text_is_a_problem_like_any_other():
    with pytest.raises(ConfigError, match="lone surrogate"):
        load_config({"spear": {"backends": [{"name": "a", "kind": "stub", "options": {"deep": {"\ud800": 1}}}]}})
