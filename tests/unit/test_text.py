"""Edit distance against a recursive definition; error rates against numbers worked out by hand."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from betz.core.errors import DataError
from betz.core.text import character_error_rate, edit_distance, word_error_rate

words = st.text(alphabet="abc", max_size=7)


def by_definition(a: str, b: str) -> int:
    @cache
    def rest(i: int, j: int) -> int:
        if i == len(a) or j == len(b):
            return len(a) - i + len(b) - j
        return min(rest(i + 1, j) + 1, rest(i, j + 1) + 1, rest(i + 1, j + 1) + (a[i] != b[j]))

    return rest(0, 0)


@given(words, words)
def test_edit_distance_is_that_of_the_definition(a: str, b: str) -> None:
    assert edit_distance(a, b) == by_definition(a, b)


@given(words, words, words)
def test_edit_distance_is_a_metric(a: str, b: str, c: str) -> None:
    assert edit_distance(a, b) == edit_distance(b, a)
    assert (edit_distance(a, b) == 0) == (a == b)
    assert edit_distance(a, c) <= edit_distance(a, b) + edit_distance(b, c)


def test_edit_distance_takes_class_numbers_and_long_texts() -> None:
    assert edit_distance([3, 1, 2], (1, 2, 2)) == 2
    assert edit_distance("ab" * 3000, "ba" * 3000) == 2


def test_rates_pool_the_texts() -> None:
    truth, decoded = ["a quick fox", "no"], ["a quack fox", ""]
    assert character_error_rate(truth, decoded) == pytest.approx(3 / 13)
    assert word_error_rate(truth, decoded) == pytest.approx(2 / 4)
    assert character_error_rate(["a"], ["abc"]) == 2.0
    assert word_error_rate(["a  b\n"], ["a b"]) == 0.0


@pytest.mark.parametrize(
    ("truth", "decoded", "message"),
    [
        (["a"], [], "1 true and 0 decoded texts do not match.*one decoded text for each"),
        ("abc", ["abc"], r"must be lists of texts.*pass \[text\]"),
        (["", ""], ["a", ""], "the true texts have no"),
    ],
)
def test_what_cannot_be_scored_is_refused(truth: list[str], decoded: list[str], message: str) -> None:
    for rate in (character_error_rate, word_error_rate):
        with pytest.raises(DataError, match=message):
            rate(truth, decoded)
