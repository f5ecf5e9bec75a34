"""What a guest says is shown, not obeyed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from spear.cli._output import _folded, printable


def test_control_characters_are_spelled_out_and_lines_set_in():
    assert printable("red \x1b[31m\r\x07") == "red \\x1b[31m\\r\\x07"
    assert printable("one\n[error] two") == "one\n    [error] two"
    assert printable("tab\tand é stay") == "tab\tand é stay"


@given(st.text())
def test_nothing_is_left_that_a_terminal_obeys(text):
    shown = printable(text)
    assert all(c.isprintable() or c in "\n\t" for c in shown)
    assert not any(line.startswith("[") for line in shown.split("\n")[1:])


def test_long_cells_break_between_words_and_long_words_stay_whole():
    text = "audio_input, image_input, " + "x" * 90
    first, *more = _folded(text, 30).split("\n")
    assert first == "audio_input, image_input,"
    assert [line.strip() for line in more] == ["x" * 90]
    assert all(line.startswith(" " * 20) for line in more)
