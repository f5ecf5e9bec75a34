"""Scenarios: what is wrong is said, with its line and key; anything else is read or refused, never crashed on."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spear.ir import ConfigError
from spear.simulate import parse_scenario, read_scenario, shipped
from spear.simulate._compare import closed, left_out
from tests.spear.simulate.small import read, scenario, text


def problems(written: str) -> list[tuple[int, str, str]]:
    with pytest.raises(ConfigError) as caught:
        read(written)
    return [(each.line, each.key, each.message) for each in caught.value.problems]


def line_of(written: str, part: str) -> int:
    return next(number for number, line in enumerate(written.splitlines(), 1) if part in line)


COMPARE = "[[simulate.compare]]"
WRONG: tuple[tuple[str, str, str, str, str], ...] = (
    ("a", "concurency = 3", "", "backends[0].concurency", 'did you mean "concurrency"?'),
    ("a", "concurrency = 0", "", "backends[0].concurrency", "at least 1"),
    ("traffic", "arrivals = 'often'", "", "traffic.arrivals", "'poisson' or 'constant'"),
    ("traffic", "patience = 'long'", "", "traffic.patience", "duration"),
    ("traffic", "stream = 1.5", "", "traffic.stream", "at most 1"),
    (
        "traffic",
        "ramps = [{ at = '1s', rate = 3, over = '9s' }, { at = '5s', rate = 4 }]",
        "",
        "traffic.ramps",
        "begins before",
    ),
    (
        "traffic",
        "input_tokens = { kind = 'pareto', alpha = 2 }",
        "",
        "traffic.input_tokens.minimum",
        "is missing; pareto",
    ),
    ("traffic", "ramps = 3", "", "traffic.ramps", "expected a list"),
    ("traffic", "bursts = 'x'", "", "traffic.bursts", "expected a list"),
    ("a", "rate_limit = 5", "", "backends[0].rate_limit", "expected a table"),
    ("a", "events = true", "", "backends[0].events", "expected a list"),
    (
        "traffic",
        "output_tokens = { kind = 'pareto', minimum = 1, alpha = 0.01 }",
        "",
        "traffic.output_tokens.alpha",
        "at least",
    ),
    (
        "traffic",
        "output_tokens = { kind = 'lognormal', median = 1e308, sigma = 5 }",
        "",
        "traffic.output_tokens.median",
        "most",
    ),
    (
        "a",
        "rate_limit = { requests = 1 }\nevents = [{ at = 0, rate_factor = 1e-320 }]",
        "events",
        "backends[0].events[0].rate_factor",
        "at least",
    ),
    ("a", "copies = 1000\nconcurrency = 0", "concurrency", "backends[0].concurrency", "at least 1"),
    ("b", "errors = { share = 0.1, kind = 'odd' }", "", "backends[1].errors.kind", "expected 'server'"),
    ("b", "events = [{ at = '9s', until = '3s' }]", "", "backends[1].events[0].until", "not after"),
    ("b", "rate_limit = 0", "", "backends[1].rate_limit", "expected a table"),
    ("b", "rate_limit = { requests = 5, retry_after = 'soon' }", "", "backends[1].rate_limit.retry_after", "duration"),
    ("more", "[[simulate.backends]]\nname = 'nobody'\nlatency = 1", "nobody", "backends[2].name", "is no backend"),
    ("more", f"{COMPARE}\npolicy = 'cheapest'", COMPARE, "compare[0].name", "missing"),
    ("more", f"{COMPARE}\nname = 'v'\nfallbac = ['x']", "fallbac", "compare[0].fallbac", 'did you mean "fallback"?'),
    ("more", f"{COMPARE}\nname = 'v'\npolicy = 'best'", COMPARE, "compare[0]", "spear.routes[0].policy is no policy"),
    (
        "more",
        f"{COMPARE}\nname = 'v'\nspear = {{ backends = [{{ name = 'c', kind = 'stub', hosting = 'local' }}] }}",
        COMPARE,
        "compare[0]",
        "has no model of c",
    ),
)


@pytest.mark.parametrize(("part", "written", "where", "key", "says"), WRONG)
def test_what_is_wrong_is_said_where_it_stands(part: str, written: str, where: str, key: str, says: str) -> None:
    whole = text(**{part: written})
    found = [each for each in problems(whole) if each[1] == f"simulate.{key}"]
    assert len(found) == 1, problems(whole)
    assert found[0][0] == line_of(whole, where or written)
    assert says in found[0][2]


def test_what_is_wrong_with_the_configuration_is_said_there() -> None:
    whole = text(spear="[[spear.routes]]\npolicy = 'peak_emwa'")
    [(line, key, message)] = problems(whole)
    assert (line, key) == (line_of(whole, "peak_emwa"), "spear.routes[0].policy")
    assert 'did you mean "peak_ewma"?' in message


def test_two_variants_of_one_name() -> None:
    twice = "[[simulate.compare]]\nname = 'v'\n" * 2
    assert [message for _, _, message in problems(text(more=twice))] == ["is the name of another variant, too"]


def test_a_scenario_ends_by_requests_or_by_time() -> None:
    written = text().replace("requests = 300\n", "")
    assert [key for _, key, _ in problems(written)] == ["simulate"]


def test_without_spear_or_simulate() -> None:
    assert "no table [spear]" in problems("[simulate]\nrequests = 1\ntraffic = { rate = 1 }\n")[0][2]
    assert "no table [simulate]" in problems("[spear]\n")[0][2]
    assert "not a known table" in problems(text() + "\n[other]\n")[0][2]


def test_the_configuration_may_be_a_file_of_its_own(tmp_path: Path) -> None:
    head, tail = text().split("[spear]")
    (tmp_path / "spear.toml").write_text("[spear]" + tail)
    (tmp_path / "s.toml").write_text(head.replace("seed = 7", "seed = 7\nconfig = 'spear.toml'"))
    found = read_scenario(tmp_path / "s.toml")
    assert [each.name for each in found.variants[0].config.backends] == ["a", "b"]
    (tmp_path / "spear.toml").write_text("[spear]" + tail.replace("hosting", "hostin", 1))
    with pytest.raises(ConfigError, match=r"spear\.toml:\d+: spear\.backends\[0\]\.hostin"):
        read_scenario(tmp_path / "s.toml")


def test_variants_are_laid_over_the_configuration() -> None:
    found = scenario(
        spear="[[spear.routes]]\nmatch = { operation = 'chat_completions' }\npolicy = 'round_robin'",
        more="""
[[simulate.compare]]
name = "one"
policy = "priority"
spill = "proportional"
spear = { health = { failures = 9 }, backends = [{ name = "b", price = { input = 7 }, weight = 1 }] }
reloads = [{ at = "5s", spear = { backends = [{ name = "a", weight = 2 }] } }]
[[simulate.compare]]
name = "two"
""",
    )
    one, two = found.variants
    assert [(route.policy, route.spill, route.match.operation) for route in one.config.routes] == [
        ("priority", "proportional", "chat_completions")
    ]
    assert [route.policy for route in two.config.routes] == ["round_robin"]
    assert one.config.health.failures == 9
    assert [each.weight for each in one.config.backends] == [100, 1]
    assert one.config.backends[1].price is not None
    assert (one.config.backends[1].price.input, one.config.backends[1].price.output) == (7, 2)
    assert [(each.at, [b.weight for b in each.config.backends]) for each in one.reloads] == [(5.0, [2, 1])]
    assert [each.weight for each in two.config.backends] == [100, 100]


def test_only_some_variants_or_a_policy_by_its_name() -> None:
    written = text(more="[[simulate.compare]]\nname = 'v'\npolicy = 'cheapest'\n").encode()
    found = parse_scenario(written, file="s.toml", folder=Path(), only=("peak_ewma", "v"))
    assert [(each.name, each.config.routes[0].policy) for each in found.variants] == [
        ("peak_ewma", "peak_ewma"), ("v", "cheapest"),
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="did you mean"):
        parse_scenario(written, file="s.toml", folder=Path(), only=("peak_emwa",))


def test_what_reaches_outside_is_left_out_and_said(tmp_path: Path) -> None:
    """A configuration may have it; a variant that asks for it is refused."""
    outside = "redis = { url = 'redis://x' }\ndecisions = { path = 'd.jsonl' }\nmirrors = { path = 'm.jsonl' }\n"
    routes = "[[spear.routes]]\nfilter = 'f'\npolicy = 'round_robin'\n[[spear.filters]]\nname = 'f'\n"
    data = tomllib.loads(f"[spear]\n{outside}{routes}")["spear"]
    assert left_out(data) == (
        "spear.redis", "spear.filters", "spear.decisions", "spear.routes.filter", "spear.mirrors.path",
    )  # fmt: skip
    assert closed(data) == {"mirrors": {}, "routes": [{"policy": "round_robin"}]}
    assert left_out(closed(data)) == ()
    found = scenario(spear="redis = { url = 'redis://x' }\ndecisions = { path = 'd.jsonl' }")
    assert found.left_out == ("spear.redis", "spear.decisions")
    refused = problems(text(more=f"{COMPARE}\nname = 'v'\nspear = {{ decisions = {{ path = 'd' }} }}"))
    assert [message for _, _, message in refused] == [
        "has spear.decisions, which reaches outside and is not simulated"
    ]  # fmt: skip


def test_keys_need_no_environment() -> None:
    keys = """
[[spear.credentials]]
name = "k"
env = "SURELY_NOT_SET_ANYWHERE"
[[spear.credentials]]
name = "f"
file = "/does/not/exist"
"""
    written = text(spear=keys).replace('base_url = "http://a', 'credentials = ["k"]\nbase_url = "http://a')
    written = written.replace('base_url = "http://b', 'credentials = ["f"]\nbase_url = "http://b')
    assert all(each.value for each in read(written).variants[0].config.credentials)


SHIPPED = [path.read_text() for path in shipped().values()]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_text_is_read_or_refused(data: st.DataObject) -> None:
    """Shipped scenarios with pieces of them cut out, doubled or replaced."""
    written = data.draw(st.sampled_from(SHIPPED))
    lines = written.splitlines()
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(lines) - 1))
        match data.draw(st.sampled_from(["cut", "double", "value", "junk"])):
            case "cut":
                del lines[at]
            case "double":
                lines.insert(at, data.draw(st.sampled_from(lines)))
            case "value":
                key = lines[at].partition("=")[0]
                value = data.draw(
                    st.sampled_from(["0", "-1", "1e308", "[]", "{}", "''", "true", "[[1]]", "{a = [{}]}", "'1s'"])
                )
                lines[at] = f"{key}= {value}"
            case _:
                lines[at] = data.draw(st.text(max_size=20))
        if not lines:
            break
    try:
        found = read("\n".join(lines))
    except ConfigError:
        return
    assert found.variants
