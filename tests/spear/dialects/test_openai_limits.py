"""How much structure an answer may have: counted whatever way the bytes are cut, and never by what strings say."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spear.dialects.openai_chat import (
    ChatStreamDecoder,
    PartCounter,
    bracket_count,
    check_answer_size,
)
from spear.ir import BackendError, Failure
from tests.spear.ir.ir_strategies import examples, json_values


def parts_of(value) -> int:
    """By walking the value: an opening bracket for each list and object, a comma between two of its items."""
    if isinstance(value, dict):
        return 1 + max(0, len(value) - 1) + sum(map(parts_of, value.values()))
    if isinstance(value, list):
        return 1 + max(0, len(value) - 1) + sum(map(parts_of, value))
    return 0


awkward = st.recursive(
    json_values | st.text(alphabet='\\",[{x', max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='\\",[', max_size=4), inner),
    max_leaves=8,
)


@examples(200)
@given(awkward, st.booleans(), st.lists(st.integers(0, 60), max_size=8))
def test_parts_however_they_are_cut(value, ascii_only, places):
    data = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    edges = [0, *sorted(min(place, len(data)) for place in places), len(data)]
    counter = PartCounter()
    for left, right in itertools.pairwise(edges):
        counter.feed(data[left:right])
    assert counter.parts == parts_of(value)
    assert bracket_count(data) >= counter.parts


@examples(100)
@given(st.lists(st.binary(max_size=30), max_size=5))
def test_any_bytes_get_some_number(pieces):
    counter = PartCounter()
    for piece in pieces:
        counter.feed(piece)
    assert 0 <= counter.parts <= bracket_count(b"".join(pieces))


@examples(100)
@given(json_values)
def test_any_json_of_ordinary_size_passes(value):
    check_answer_size(value)
    check_answer_size({"choices": value})
    check_answer_size({"choices": [{"message": {"tool_calls": value}}, value]})


def message(calls):
    return {"message": {"tool_calls": [{}] * calls}}


@pytest.mark.parametrize(
    ("choices", "says"),
    [([{}] * 1025, "more than 1024 choices"), ([message(4000), message(97)], "more than 4096 tool calls")],
)
def test_too_many(choices, says):
    with pytest.raises(BackendError, match=f"answer too large: it has {says}") as caught:
        check_answer_size({"choices": choices})
    assert caught.value.failure is Failure.SERVER


def test_as_many_as_may_be():
    check_answer_size({"choices": [{}] * 1024})
    check_answer_size({"choices": [message(4000), message(96)]})


def streamed(index, call):
    return {"choices": [{"index": index, "delta": {"tool_calls": [{"index": call, "id": str(call)}]}}]}


@pytest.mark.parametrize(
    ("chunks", "says"),
    [
        ([streamed(index, 0) for index in range(1025)], "more than 1024 choices"),
        ([streamed(call % 2, call) for call in range(4097)], "more than 4096 tool calls"),
    ],
)
def test_too_many_in_a_stream(chunks, says):
    decoder = ChatStreamDecoder(backend="b")
    for chunk in chunks[:-1]:
        decoder.feed(chunk)
    with pytest.raises(BackendError, match=f"answer too large: the stream has {says}"):
        decoder.feed(chunks[-1])
