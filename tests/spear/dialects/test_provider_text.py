"""A provider's error in one line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spear.dialects.openai_chat import one_line, provider_error_text
from tests.spear.ir.ir_strategies import examples, json_values


@examples(100)
@given(st.text(max_size=600), st.integers(1, 600))
def test_one_line_is_one_short_line(text, limit):
    line = one_line(text, limit)
    assert len(line.encode()) <= limit
    assert len(line.splitlines()) <= 1
    assert not any(ord(character) < 32 or ord(character) == 127 for character in line)


def test_the_cut_is_between_characters():
    assert one_line("é" * 300) == "é" * 256
    assert one_line("a" + "漢" * 300) == "a" + "漢" * 170
    assert one_line("a\r\n\tb\x00c\u2028d") == "a b c d"
    assert one_line("\n" * 10_000_000) == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"error": {"type": "t", "code": "c", "message": "m"}}, "t: c: m"),
        ({"type": "t", "code": 404, "message": "m\nn"}, "t: 404: m n"),
        ({"error": {"code": None, "message": "m", "param": None}}, "m"),
        ({"error": "plain"}, "plain"),
        ({"detail": "from a framework"}, "from a framework"),
        ({"error": {}}, ""),
        ([1], ""),
        (None, ""),
    ],
)
def test_what_is_told(value, text):
    assert provider_error_text(value) == text


@examples(100)
@given(json_values)
def test_any_value_gives_one_short_line(value):
    assert len(provider_error_text(value).encode()) <= 512
    assert len(provider_error_text({"error": value}).splitlines()) <= 1
