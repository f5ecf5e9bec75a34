"""JSON at the borders: the rules in the docstring of `spear.ir._json`, against the standard library."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from spear.ir import MalformedJson, check_json, dump_json, parse_json
from tests.spear.ir.ir_strategies import examples, identical, json_values

BROKEN = ["", " ", "nul", "[1,]", '{"a":}', "{'a':1}", "01", "1.", ".5", "+1", '"\t"', "[1] 2", "\ufeff1", '"\\x"']


def by_the_rules(text):
    """What the standard library makes of it, held to our rules."""

    def refuse(name):
        raise ValueError(name)

    def walk(value, depth):
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError
        if isinstance(value, str):
            value.encode()
        if isinstance(value, dict | list):
            if depth == 128:
                raise ValueError
            for item in value.values() if isinstance(value, dict) else value:
                walk(item, depth + 1)
            for key in value if isinstance(value, dict) else ():
                key.encode()

    value = json.loads(text.decode() if isinstance(text, bytes) else text, parse_constant=refuse)
    walk(value, 0)
    return value


@examples(200)
@given(json_values, st.sampled_from([None, 1]), st.booleans())
def test_what_the_standard_library_writes_is_read_the_same(value, indent, ascii_only):
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    assert identical(parse_json(text), value)
    assert identical(parse_json(text.encode()), value)


@examples(200)
@given(json_values, st.booleans())
def test_what_is_written_is_read_back_the_same(value, sort):
    text = dump_json(value, sort=sort)
    assert identical(parse_json(text), value)
    assert identical(json.loads(text), value)
    assert b"\n" not in text


@examples(250)
@given(st.text(alphabet='[]{}",:\\u0123456789dDeE+-.tfnrulase \n\t/é', max_size=24))
@example("-0")
@example("1e400")
@example('"\\ud800"')
@example('{"\\udc00":1}')
@example('{"a":1,"a":2}')
@example("123456789012345678901234567890")
@example("1" * 5000)
@example("1234567890123456789012e5")
@example("0.12345678901234567890123456789")
@example("[NaN]")
def test_any_text_is_judged_as_the_rules_say(text):
    try:
        expected = by_the_rules(text)
    except (ValueError, RecursionError):
        with pytest.raises(MalformedJson):
            parse_json(text)
    else:
        assert identical(parse_json(text), expected)


@examples(200)
@given(st.binary(max_size=40) | json_values.map(lambda value: dump_json(value)[:-1]))
def test_any_bytes_are_judged_as_the_rules_say(data):
    try:
        expected = by_the_rules(data)
    except (ValueError, RecursionError):
        with pytest.raises(MalformedJson):
            parse_json(data)
    else:
        assert identical(parse_json(data), expected)


@examples(100)
@given(json_values)
def test_keys_are_sorted_by_bytes(value):
    def is_sorted(pairs):
        keys = [key.encode() for key, _ in pairs]
        assert keys == sorted(keys)
        return dict(pairs)

    json.loads(dump_json(value, sort=True), object_pairs_hook=is_sorted)


@pytest.mark.parametrize("text", BROKEN)
def test_broken_text_is_refused(text):
    with pytest.raises(MalformedJson):
        parse_json(text)


@pytest.mark.parametrize("open_close", ["[]", '{"a":}'])
def test_the_depth_limit_is_exact(open_close):
    opening, closing = open_close[:-1], open_close[-1]
    inner = {"[": "", '{"a":': "1"}[opening]
    at_limit = opening * 128 + inner + closing * 128
    assert parse_json(at_limit) is not None
    assert check_json(parse_json(at_limit)) is not None
    for depth in (129, 300, 2000, 200_000):
        with pytest.raises(MalformedJson):
            parse_json(opening * depth + inner + closing * depth)


def test_brackets_inside_strings_are_not_nesting():
    assert parse_json(json.dumps("[{" * 500)) == "[{" * 500


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        [math.inf],
        {"a": {"b": -math.inf}},
        {"a": None, "b": math.nan},
        {1: "a"},
        {None: 1},
        {"a": {2: 2**70}},
        [2**70, math.nan],
        "\ud800",
        {"\udfff": 1},
        {1, 2},
        object,
        b"bytes",
    ],
    ids=repr,
)
def test_what_json_cannot_say_is_not_written(value):
    with pytest.raises(MalformedJson):
        dump_json(value)


def test_a_cycle_is_not_written():
    cycle = []
    cycle.append(cycle)
    with pytest.raises(MalformedJson):
        dump_json(cycle)
    with pytest.raises(MalformedJson):
        check_json(cycle)


@pytest.mark.parametrize("value", [math.nan, {1: 2}, (1,), {1}, "\ud800", {"\ud800": 1}, [[object]]], ids=repr)
def test_check_refuses_what_is_not_json(value):
    with pytest.raises(MalformedJson):
        check_json(value)


@examples(100)
@given(json_values)
def test_check_returns_the_value_itself(value):
    assert check_json(value) is value


@examples(100)
@given(st.text(alphabet="secret-", min_size=7, max_size=20))
def test_the_reason_does_not_quote_the_text(text):
    with pytest.raises(MalformedJson) as caught:
        parse_json(f'{{"key": canary{text}}}')
    assert "canary" not in str(caught.value)
