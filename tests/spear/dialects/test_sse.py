"""Server-sent events: however the bytes are cut, the payloads are the same."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from spear.dialects.openai_chat import SseDecoder
from spear.ir import BackendError, ErrorCode
from tests.spear.ir.ir_strategies import examples


def decode(pieces, **options):
    """The payloads, and whether the stream was refused."""
    decoder = SseDecoder(**options)
    payloads = []
    try:
        for piece in pieces:
            payloads += decoder.feed(piece)
        payloads += decoder.finish()
    except BackendError as error:
        return payloads, error.code
    return payloads, None


def cut(data, places):
    edges = [0, *sorted(min(place, len(data)) for place in places), len(data)]
    return [data[left:right] for left, right in itertools.pairwise(edges)]


lines = st.one_of(
    st.sampled_from(
        ["", "data", "data:", "data: ", "data:  two blanks", ":comment", "event: x", "id", "retry: 1", "x"]
    ),
    st.text(alphabet="ab é漢😀:\x00", max_size=8).map(lambda text: f"data: {text}"),
    st.text(max_size=12),
)
streams = st.lists(
    st.tuples(lines, st.sampled_from(["\n", "\r", "\r\n", "\n\n", "\r\n\r\n", "\r\r"])), max_size=12
).map(lambda pairs: "".join(line + end for line, end in pairs).encode())
cuts = st.lists(st.integers(0, 200), max_size=12)


def by_the_standard(data):
    """The reading of the standard, over the whole text at once; an event that is unfinished at the end counts."""
    text = data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    payloads, event = [], []
    for line in [*text.split(b"\n"), b""]:
        name, _, value = line.partition(b":")
        if not line:
            if any(event) or len(event) > 1:
                payloads.append(b"\n".join(event))
            event = []
        elif name == b"data":
            event.append(value[1:] if value[:1] == b" " else value)
    return payloads


@examples(250)
@given(streams | st.binary(max_size=80), cuts)
@example(b"data: a\r\n\r\ndata: b\r\n\r\n", [8, 9, 10])
@example("data: é\n\n".encode(), [7])
@example(b"\xef\xbb\xbfdata: a\n\n", [1, 2])
@example(b"data: a\r\r\ndata: b", [9])
def test_any_cutting_gives_what_the_standard_says(data, places):
    expected = by_the_standard(data)
    assert decode([data]) == (expected, None)
    assert decode(cut(data, places)) == (expected, None)
    assert decode([data[i : i + 1] for i in range(len(data))]) == (expected, None)


@examples(200)
@given(streams, cuts, st.integers(1, 16))
def test_the_limit_does_not_depend_on_the_cutting(data, places, limit):
    whole = decode([data], max_line=limit)
    assert decode(cut(data, places), max_line=limit) == whole
    assert decode([data[i : i + 1] for i in range(len(data))], max_line=limit) == whole


def test_what_a_chat_server_sends():
    decoder = SseDecoder()
    assert decoder.feed(b': keep-alive\n\nevent: message\ndata: {"a":1}\n\ndata: {"b"') == [b'{"a":1}']
    assert decoder.feed(b":2}\n\ndata: [DONE]\n\n") == [b'{"b":2}', b"[DONE]"]
    assert decoder.finish() == []


def test_several_data_lines_are_one_payload():
    assert SseDecoder().feed(b'data: {"a":\ndata: 1}\n\n') == [b'{"a":\n1}']


def test_the_last_event_may_lack_its_end():
    decoder = SseDecoder()
    assert decoder.feed(b"data: [DONE]") == []
    assert decoder.finish() == [b"[DONE]"]
    assert decoder.finish() == []


@pytest.mark.parametrize("data", [b"x" * 40, b"data: " + b"x" * 40 + b"\n\n", b"data: 1234567890\n" * 4])
def test_a_line_or_event_beyond_the_limit_is_refused(data):
    assert decode([data], max_line=30) == ([], ErrorCode.BACKEND_ERROR)


def test_payloads_before_the_limit_come_first():
    decoder = SseDecoder(max_line=10)
    assert decoder.feed(b"data: a\n\ndata: 12345678\n\n") == [b"a"]
    with pytest.raises(BackendError, match="longer than 10 bytes"):
        decoder.feed(b"")
    with pytest.raises(BackendError):
        decoder.finish()


def test_the_default_limit_holds():
    decoder = SseDecoder()
    block = b"data: " + b"x" * (1024 * 1024 - 7)
    assert decoder.feed(block + b"\n\n") == [block[6:]]
    for _ in range(16):
        assert decoder.feed(b"x" * 65536) == []
    with pytest.raises(BackendError):
        decoder.feed(b"x")
