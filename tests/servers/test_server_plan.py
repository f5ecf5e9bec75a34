"""The pure half of the test server: any behaviour and any question make a whole answer, unless told otherwise."""

from __future__ import annotations

import json

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.servers import _counts
from tests.servers._behaviour import Behaviour, Rule, Script
from tests.servers._plan import Caller, End, Hang, Send, plan
from tests.servers._reply import BadRequest, Question, read_question, smallest

CALLER = Caller("a", 1, "Bearer key")

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
chat_like = st.fixed_dictionaries(
    {"model": st.just("m") | json_values},
    optional={
        "messages": json_values
        | st.lists(
            st.fixed_dictionaries(
                {}, optional={"role": st.sampled_from(["user", "tool", "system"]), "content": json_values}
            ),
            max_size=4,
        ),
        "stream": json_values,
        "stream_options": json_values | st.just({"include_usage": True}),
        "n": json_values,
        "tools": json_values | st.just([{"function": {"name": "f"}}]),
        "response_format": json_values
        | st.fixed_dictionaries(
            {"type": st.just("json_schema"), "json_schema": st.fixed_dictionaries({"schema": json_values})}
        ),
    },
)
questions = st.builds(
    Question,
    model=st.text(min_size=1, max_size=8),
    stream=st.booleans(),
    include_usage=st.booleans(),
    choices=st.integers(1, 4),
    user_text=st.text(max_size=60),
    tool_text=st.none() | st.text(max_size=10),
    tool_names=st.just(()) | st.just(("add",)),
    schema=st.none() | json_values,
    prompt_words=st.integers(0, 99),
)
behaviours = st.builds(
    Behaviour,
    text=st.text(max_size=40) | st.just("echo: {text}"),
    tools=st.sampled_from(["auto", "never", ({"name": "f", "arguments": "{"},)]),
    reasoning=st.none() | st.text(max_size=10),
    usage=st.booleans(),
    delta_chars=st.none() | st.integers(1, 5),
    split=st.none() | st.integers(1, 9),
    newline=st.sampled_from(["\n", "\r\n", "\r"]),
    status=st.sampled_from([200, 200, 200, 302, 400, 429, 500]),
    retry_after=st.none() | st.just(1.5),
    body=st.none() | st.text(max_size=10),
    informational=st.just(()) | st.just((103,)),
    leak_key=st.booleans(),
    cut_after=st.none() | st.integers(0, 50),
    finish=st.booleans(),
    done=st.booleans(),
    error_after=st.none() | st.integers(0, 5),
    junk_after=st.none() | st.integers(0, 5),
)


def sent(steps):
    return b"".join(step.data for step in steps if isinstance(step, Send))


def complete(data):
    """Whether a strict client finds one whole answer and nothing behind it."""
    parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    parser.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    parser.send(h11.EndOfMessage())
    parser.receive_data(data)
    parser.receive_data(b"")
    try:
        while not isinstance(parser.next_event(), h11.EndOfMessage):
            pass
    except h11.RemoteProtocolError:
        return False
    return parser.trailing_data[0] == b""


@given(st.binary(max_size=200) | chat_like.map(lambda body: json.dumps(body).encode()))
@settings(deadline=None)
def test_any_request_body_is_a_question_or_a_named_mistake(raw):
    try:
        question = read_question(raw)
    except BadRequest:
        return
    assert complete(sent(plan(Behaviour(), question, CALLER)))


@given(behaviours, st.none() | questions)
@settings(deadline=None, max_examples=300)
def test_every_answer_without_a_cut_is_whole(behaviour, question):
    steps = list(plan(behaviour, question, CALLER))
    assert complete(sent(steps))
    assert isinstance(steps[-1], Send)
    assert not complete(sent(steps[:-1]))  # the last Send carries the last byte


@given(behaviours.filter(lambda b: b.status < 300 and b.body is None), questions, st.sampled_from(["fin", "rst"]))
@settings(deadline=None, max_examples=300)
def test_no_answer_with_a_cut_is_whole(behaviour, question, how):
    steps = list(plan(behaviour.model_copy(update={"cut": how}), question, CALLER))
    assert steps[-1] == End(how)
    assert not complete(sent(steps))


@given(json_values | st.dictionaries(st.sampled_from(["type", "$ref", "anyOf", "items", "minItems"]), json_values))
def test_any_schema_gives_a_json_value(schema):
    json.dumps(smallest(schema))


def test_a_schema_that_refers_to_itself_ends():
    assert smallest({"$ref": "#"}) is None
    tree = smallest({"type": "object", "properties": {"left": {"$ref": "#"}}})
    assert "left" in json.dumps(tree)


@given(st.sampled_from(sorted(Behaviour.model_fields)), json_values)
def test_a_behaviour_read_from_json_is_taken_whole_or_refused_by_name(field, value):
    raw = json.dumps({"does": {field: value}})
    try:
        rule = Rule.model_validate_json(raw)
    except ValidationError as error:
        assert all(problem["loc"][:2] == ("does", field) for problem in error.errors())  # ruff: ignore[pytest-assert-in-except]
        return
    assert json.loads(rule.model_dump_json(exclude_unset=True)) == json.loads(raw)


def test_a_behaviour_survives_the_control_plane():
    rule = Rule(does=Behaviour(tools=({"name": "f"},), drip={"bytes": 3}, informational=[103], retry_after="soon"))
    assert Rule.model_validate_json(rule.model_dump_json(exclude_unset=True)) == rule


@given(st.lists(st.tuples(st.sampled_from("abc"), st.none() | st.integers(1, 3)), max_size=6))
def test_limited_rules_are_used_up_in_order_and_the_newest_permanent_stays(rules):
    script = Script(Rule(does=Behaviour(text=name), times=times) for name, times in rules)
    expected = [name for name, times in rules for _ in range(times or 0)]
    permanent = [name for name, times in rules if times is None]
    expected += [permanent[-1] if permanent else "echo: {text}"] * 2
    assert [script.take("chat", "m", False).text for _ in expected] == expected
    assert script.waiting == 0


def test_only_early_rules_are_taken_before_the_body():
    script = Script([Rule(does=Behaviour(text="late"), times=1), Rule(does=Behaviour(early=True), times=1)])
    assert script.take_early("chat") is None
    assert script.take("chat", "m", False).text == "late"
    taken = script.take_early("chat")
    assert taken is not None
    assert taken.early
    assert script.take_early("chat") is None


@pytest.mark.parametrize("behaviour", [Behaviour(never=True), Behaviour(keepalive_only=True)])
def test_never_and_only_comments_have_no_end(behaviour):
    question = read_question(b'{"model":"m","messages":[{}],"stream":true}')
    steps = plan(behaviour, question, CALLER)
    assert any(isinstance(step, Hang) for step, _ in zip(steps, range(5), strict=False))


@given(st.lists(st.integers(0, 9), max_size=40), st.integers(1, 30))
def test_the_newest_bodies_are_kept_within_their_bounds(sizes, room):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_counts, "KEPT_REQUESTS", 5)
        patch.setattr(_counts, "KEPT_BODY_BYTES", 8)
        patch.setattr(_counts, "_KEPT_BYTES_IN_ALL", room)
        counts = _counts.Counts()
        for size in sizes:
            counts.keep_body(counts.begin("POST", "/", []), b"x" * size)
            kept = [len(exchange.body) for exchange in counts.exchanges]
            assert sum(kept) == counts.kept_bytes <= room
            assert len(kept) <= 5
            assert kept[-1] == (min(size, 8) if min(size, 8) <= room else 0)
