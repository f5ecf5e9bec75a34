"""What a figure is drawn from."""

from __future__ import annotations

from spear.simulate._plot import _stretched


def test_answers_that_all_took_the_same_time_are_a_line():
    assert _stretched([(0.6, 1500)]) == [(1 / 0.99, 0.6), (1500.0, 0.6)]


def test_the_longest_answer_is_in_the_tail():
    assert _stretched([(0.1, 90), (0.2, 99), (5.0, 100)]) == [(1 / 0.99, 0.1), (10.0, 0.1), (100.0, 0.2), (100.0, 5.0)]


def test_no_answers():
    assert _stretched([]) == []
