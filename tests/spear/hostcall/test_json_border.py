"""JSON over the guest border: what is malformed, and the one form in which it goes out."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spear.hostcall._json import MAX_DEPTH, Malformed, dump, parse
from tests.spear.hostcall.probe import RELAXED

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=15,
)


@RELAXED
@given(VALUES)
def test_out_is_compact_sorted_and_value_equal(value: Any):
    raw = dump(value)
    assert json.loads(raw) == value
    assert b"\0" not in raw
    assert raw == reference(value).encode() or has_float(value)  # floats may be written in another form


def reference(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False, allow_nan=False)


def has_float(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(has_float, value.values()))
    return isinstance(value, float) or (isinstance(value, list) and any(map(has_float, value)))


@RELAXED
@given(st.binary(max_size=60) | st.text(max_size=40).map(lambda text: text.encode("utf-8", "replace")))
def test_any_bytes_are_a_value_or_malformed(raw: bytes):
    try:
        value = parse(raw)
    except Malformed:
        return
    dump(value)


@RELAXED
@given(VALUES)
def test_what_the_standard_library_writes_is_read(value: Any):
    def without_huge(one: Any) -> Any:
        if isinstance(one, dict):
            return {key: without_huge(inner) for key, inner in one.items()}
        if isinstance(one, list):
            return [without_huge(inner) for inner in one]
        return float(one) if isinstance(one, int) and not -(2**63) <= one < 2**64 else one

    assert parse(json.dumps(value)) == without_huge(value)  # beyond 64 bits a number is a float, as in most hosts


@pytest.mark.parametrize(
    "text",
    ["NaN", "Infinity", "-Infinity", "[NaN]", "1e999", '"\\ud800"', '"\\udc00x"', "", " ", "{,}", "[1,]", "01", "'a'"],
)
def test_malformed(text: str):
    with pytest.raises(Malformed):
        parse(text)


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_the_depth_limit_is_exact(opening: str):
    closing = "]" if opening == "[" else "}"
    for depth, ok in ((MAX_DEPTH, True), (MAX_DEPTH + 1, False), (1000, False), (100_000, False)):
        text = opening * depth + "1" + closing * depth
        if ok:
            parse(text)
        else:
            with pytest.raises(Malformed):
                parse(text)
    parse("[" + ",".join(["[]"] * 500) + "]")  # many brackets, but flat
    parse('"' + "[" * 500 + '"')


def test_duplicates_bad_bytes_and_lone_surrogates_out():
    assert parse(b'{"a":1,"a":2}') == {"a": 2}
    assert parse(b'"a\xffb"') == "a\ufffdb"
    assert dump({"é": 1, "z": 2, "a": 3, "\U0001f600": 4, "\uffff": 5}) == (
        '{"a":3,"z":2,"é":1,"\uffff":5,"\U0001f600":4}'.encode()
    )
    assert dump("\ud800") == b'"?"'
    assert dump(2**70) == str(2**70).encode()
    assert dump(math.inf) == b"null"
    with pytest.raises(ValueError, match="not representable"):
        dump({"a": object()})
