"""What a guest says is shown, not obeyed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from spear.cli._output import printable


def test_control_characters_are_spelled_out_and_lines_set_in():
    assert printable("red \x1b[31m\r\x07") == "red \\x1b[31m\\r\\x07"
    assert printable("one\n[error] two") == "one\n    [error] two"
    assert printable("tab\tand é stay") == "tab\tand é stay"


@given(st.text())
def test_nothing_is_left_that_a_terminal_obeys(text):
    shown = printable(text)
    assert all(c.isprintable() or c in "\n\t" for c in shown)
    assert not any(line.startswith("[") for line in shown.split("\n")[1:])
