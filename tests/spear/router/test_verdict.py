"""What a filter may say, and that nothing it says goes beyond that."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spear.config import FilterConfig, FilterContent, Route
from spear.ir import (
    AudioPart,
    ChatMessage,
    ChatRequest,
    EmbeddingsRequest,
    ImageRequest,
    InlineMedia,
    MalformedJson,
    TextPart,
    TextToSpeechRequest,
    parse_json,
)
from spear.router import Memory, decide, facts_of
from spear.router._case import Case
from spear.router._filter import considered
from spear.router._question import content_of, question_of
from spear.router._verdict import BadAnswer, Verdict, parse_verdict
from spear.router.policies import POLICIES
from tests.spear.router.world import chat, instance, still_generation

NAMES = st.sampled_from(["a", "b", "c", "d", "stranger", ""])
WEIGHTS = {"a": 100, "b": 1, "c": 0, "d": 7}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
SAID = st.fixed_dictionaries(
    {},
    optional={
        "drop": st.lists(NAMES, max_size=4),
        "weights": st.dictionaries(NAMES, st.integers(0, 10**400) | st.floats(0, 1e308), max_size=5),
        "force": st.none() | NAMES,
        "reject": st.none() | st.fixed_dictionaries({}, optional={"message": st.text(max_size=600)}),
    },
)


@given(SAID, st.floats(1, 1000))
def test_a_verdict_speaks_of_candidates_only_and_within_bounds(said, most):
    try:
        verdict = parse_verdict("f", said, WEIGHTS, most)
    except BadAnswer:
        assert said.get("force") is not None
        return
    assert verdict.dropped <= WEIGHTS.keys()
    assert verdict.weights.keys() <= WEIGHTS.keys() - verdict.dropped
    assert verdict.forced is None or (verdict.forced in WEIGHTS and verdict.forced not in verdict.dropped)
    for name, weight in verdict.weights.items():
        assert type(weight) is int
        assert 1 <= weight <= max(1, WEIGHTS[name] * most)
        assert WEIGHTS[name] > 0  # a drained one stays drained
    assert verdict.rejected is None or (verdict.rejected and len(verdict.rejected) <= 512)
    assert verdict.rejected is None or verdict.rejected.isprintable()


@given(JSON | st.dictionaries(st.sampled_from(["drop", "weights", "force", "reject"]), JSON, max_size=4))
def test_anything_else_is_a_bad_answer_and_nothing_worse(value):
    with contextlib.suppress(BadAnswer):
        assert parse_verdict("f", value, WEIGHTS, 10).dropped <= WEIGHTS.keys()


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_bytes_from_outside_are_json_or_malformed(data):
    try:
        value = parse_json(data)
    except MalformedJson:
        return
    with contextlib.suppress(BadAnswer):
        assert parse_verdict("f", value, WEIGHTS, 10).weights.keys() <= WEIGHTS.keys()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], "is no object"),
        ("drop", "is no object"),
        ({"drops": ["a"]}, "unknown key"),
        ({"drop": "a"}, "no list of names"),
        ({"drop": [1]}, "no list of names"),
        ({"weights": ["a"]}, "no object"),
        ({"weights": {"a": -1}}, "no number of 0 or more"),
        ({"weights": {"a": True}}, "no number of 0 or more"),
        ({"weights": {"a": float("nan")}}, "no number of 0 or more"),
        ({"weights": {"a": float("inf")}}, "no number of 0 or more"),
        ({"force": "stranger"}, "no candidate"),
        ({"force": 3}, "no candidate"),
        ({"force": "a", "drop": ["a"]}, "forces one that it drops"),
        ({"force": "a", "weights": {"a": 0}}, "forces one that it drops"),
        ({"reject": "no"}, "reject"),
        ({"reject": {"message": 1}}, "reject"),
    ],
)
def test_bad_answers_say_what_is_wrong(value, words):
    with pytest.raises(BadAnswer, match=words):
        parse_verdict("f", value, WEIGHTS, 10)


def test_what_is_said_is_understood():
    said = {"drop": ["b", "x"], "weights": {"a": 5000, "d": 0.2, "c": 9, "y": 1, "b": 3}}
    verdict = parse_verdict("f", said, WEIGHTS, 10)
    assert verdict == Verdict("f", frozenset({"b"}), {"a": 1000, "d": 1}, None, ignored=2, clamped=1)
    assert verdict.note == "filter f: dropped 1, re-weighted 2, clamped 1, 2 unknown names ignored"
    assert parse_verdict("f", {"weights": {"a": 0}}, WEIGHTS, 10).dropped == {"a"}
    assert parse_verdict("f", None, WEIGHTS, 10) == parse_verdict("f", {}, WEIGHTS, 10) == Verdict("f")
    assert parse_verdict("f", {"reject": {"message": "a\nb\x00"}}, WEIGHTS, 10).rejected == "a b"
    assert parse_verdict("f", {"reject": {}}, WEIGHTS, 10).rejected == "no reason given"


# --- what it does to a decision ---------------------------------------------------------------------------------


FOUR = [instance(name, weight=weight, **more) for name, weight, more in (
    ("a", 100, {"model": "m"}), ("b", 1, {}), ("c", 0, {}), ("d", 7, {"priority": 1}),
)]  # fmt: skip


@given(SAID, st.sampled_from(sorted(POLICIES)), st.integers(0, 2**64 - 1), st.sampled_from(["", "m", "other"]))
def test_no_verdict_brings_anybody_in(said, policy, seed, model):
    generation = still_generation(*FOUR, default_policy=policy)
    facts = facts_of(chat(model=model))
    seen = considered(generation.instances, Case(facts, None, frozenset()), generation.remembered).candidates
    try:
        verdict = parse_verdict("f", said, {each.name: each.weight for each in seen}, 10)
    except BadAnswer:
        return
    facts = facts._replace(verdict=verdict)
    plan, _ = decide(generation, generation.instances, facts, Memory(), seed, 0.0)
    again, _ = decide(generation, generation.instances, facts, Memory(), seed, 0.0)
    assert (again.chosen, again.rejected, again.note) == (plan.chosen, plan.rejected, plan.note)
    names = {each.name for each in plan.candidates}
    assert names <= {each.name for each in seen} - verdict.dropped - {"c"}
    if verdict.forced is not None and verdict.rejected is None:
        assert names <= {verdict.forced}
    if verdict.rejected is not None:
        assert plan.refused
        assert plan.chosen is None
    assert (plan.chosen is None) == (plan.error is not None)


def test_weights_of_a_verdict_are_those_the_policy_goes_by():
    generation = still_generation(instance("a"), instance("b"), default_policy="weighted_random")
    facts = facts_of(chat())._replace(verdict=Verdict("f", weights={"a": 900}))
    chosen = [
        decide(generation, generation.instances, facts, Memory(), seed * 2654435761, 0.0)[0].chosen.name
        for seed in range(2000)
    ]
    assert 0.87 < chosen.count("a") / 2000 < 0.93


def test_a_wheel_of_other_weights_does_not_disturb_the_usual_one():
    generation = still_generation(instance("a"), instance("b"), default_policy="weighted_round_robin")
    plain, memory = facts_of(chat()), Memory()
    heavy = plain._replace(verdict=Verdict("f", weights={"a": 300}))
    order = []
    for facts in [plain, heavy] * 8:
        plan, change = decide(generation, generation.instances, facts, memory, 0, 0.0)
        memory.apply(change)
        order.append(plan.chosen.name)
    assert "".join(order[::2]) == "abababab"
    assert order[1::2].count("a") == 6


def test_the_proportional_spill_counts_the_weights_of_the_verdict():
    two = [instance("near"), instance("far", priority=1)]
    generation = still_generation(*two, routes=(Route(policy="priority", spill="proportional"),))
    facts = facts_of(chat())._replace(verdict=Verdict("f", weights={"near": 1}))
    chosen = {decide(generation, generation.instances, facts, Memory(), seed, 0.0)[0].chosen.name for seed in range(99)}
    assert chosen == {"near"}  # all of its level is there, however little that weighs


# --- what it is asked --------------------------------------------------------------------------------------------


def test_the_question_has_no_secret_no_address_and_no_content():
    secretive = instance("a", base_url="https://hidden.example/v1", options={"x": "option-value"}, region="eu")
    generation = still_generation(secretive, instance("b", price={"input": 1.0, "output": 2.0}))
    request = chat("what only the backend may read", task_id="t", meta={"session_id": "session-key"})
    question = question_of(
        FilterConfig(name="f", kind="python"), request, facts_of(request), generation.instances, 10, 0
    )
    text = json.dumps(question)
    for hidden in ("hidden.example", "option-value", "session-key", "what only"):
        assert hidden not in text
    assert "content" not in question
    assert question["request"]["task"] == "t"
    assert [each["name"] for each in question["candidates"]] == ["a", "b"]
    assert question["candidates"][0]["region"] == "eu"
    assert question["candidates"][1]["price"] == {"input": 1.0, "output": 2.0}
    assert question["candidates"][0]["state"] == "ok"


def test_the_content_is_there_where_the_host_has_said_so():
    config = FilterConfig(name="f", kind="python", content=FilterContent(max_bytes=5))
    request = chat("a€€")
    question = question_of(config, request, facts_of(request), (), 10, 0)
    assert question["content"] == {"parts": [{"role": "user", "text": "a€"}], "truncated": True}


@given(st.lists(st.text(max_size=20), max_size=5), st.integers(1, 40))
def test_the_content_is_bounded_and_keeps_the_newest(texts, most):
    payload = ChatRequest(messages=tuple(ChatMessage(role="user", content=text) for text in texts))
    found = content_of(payload, most)
    parts = [part["text"] for part in found["parts"]]
    assert sum(len(text.encode("utf-8", "replace")) for text in parts) <= most
    whole = [text.encode("utf-8", "replace").decode() for text in texts if text]
    if not found["truncated"]:
        assert parts == whole
    elif len(parts) > 1:
        assert parts[1:] == whole[len(whole) - len(parts) + 1 :]


def test_texts_of_other_operations_and_no_media():
    assert content_of(EmbeddingsRequest(model="", input=("x", "y")), 99)["parts"][1] == {"role": "input", "text": "y"}
    assert content_of(ImageRequest(model="", prompt="p"), 99)["parts"] == [{"role": "input", "text": "p"}]
    assert content_of(TextToSpeechRequest(model="", input="say"), 99)["parts"] == [{"role": "input", "text": "say"}]
    audio = AudioPart(media=InlineMedia(data="QUJD", mime="audio/wav"))
    message = ChatMessage(role="user", content_parts=(TextPart(text="look"), audio))
    assert content_of(ChatRequest(messages=(message,)), 99)["parts"] == [{"role": "user", "text": "look"}]
