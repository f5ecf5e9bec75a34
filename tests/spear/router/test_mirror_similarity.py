"""The measure of likeness: its laws, against a plain table of the same, and how long it may hold the loop."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spear.router.mirrors._similarity import MOST_CHARS, MOST_TOKENS, Similarity, is_cut, similarity

WORDS = st.lists(st.sampled_from(["red", "green", "blue", ",", "42", "你"]), max_size=30)
TEXTS = st.one_of(st.text(max_size=200), WORDS.map(" ".join))


def plain_share(ours: list[str], theirs: list[str]) -> float:
    """By the table of textbooks."""
    row = [0] * (len(theirs) + 1)
    for one in ours:
        above, row = row, [0]
        for place, other in enumerate(theirs):
            row.append(above[place] + 1 if one == other else max(above[place + 1], row[place]))
    return 2 * row[-1] / (len(ours) + len(theirs)) if ours or theirs else 1.0


@given(WORDS, WORDS)
def test_it_is_the_share_of_the_longest_common_subsequence(ours: list[str], theirs: list[str]) -> None:
    assert similarity(" ".join(ours), " ".join(theirs)) == plain_share(ours, theirs)


@given(TEXTS, TEXTS)
def test_from_0_to_1_and_the_same_both_ways(one: str, other: str) -> None:
    alike = similarity(one, other)
    assert 0 <= alike <= 1
    assert alike == similarity(other, one)


@given(TEXTS)
def test_a_text_is_like_itself(text: str) -> None:
    assert similarity(text, text) == 1


@given(TEXTS)
def test_blanks_around_words_do_not_count(text: str) -> None:
    assert similarity(text, f"  {text}\n\n") == 1


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("", "", 1),
        ("", "word", 0),
        ("Hello, World!", "hello ,world !", 1),
        ("yes", "no", 0),
        ("a b c d", "a x c d", 0.75),
        ("one two", "two one", 0.5),
        ("你好世界", "你好", 4 / 6),
        ("3.14", "3.15", 2 / 3),
    ],
)
def test_examples(one: str, other: str, alike: float) -> None:
    assert similarity(one, other) == pytest.approx(alike)


def test_only_the_beginning_of_a_long_text_is_compared() -> None:
    same = "word " * MOST_TOKENS
    assert similarity(same + "one", same + "other") == 1
    assert is_cut(same + "one")
    assert not is_cut(same)
    assert is_cut("x" * (MOST_CHARS + 1))
    assert not is_cut("x" * MOST_CHARS)


@pytest.mark.parametrize("unit", ["word ", "你", "x", "\n", "a,", "İ"])
def test_no_step_holds_the_loop(unit: str) -> None:
    """Five megabytes of anything: the longest step in CPU time. 20 ms is some twenty times what it takes alone."""
    text, other = unit * (5_000_000 // len(unit)), (unit + "z ") * 100_000
    longest = []
    for _ in range(3):
        measure, worst, began = Similarity(text, other), 0.0, time.thread_time()
        for _ in measure.steps():
            worst, began = max(worst, time.thread_time() - began), time.thread_time()
        longest.append(max(worst, time.thread_time() - began))
    assert min(longest) < 0.02
