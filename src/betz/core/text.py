"""How good decoded text is: edit distance, character error rate, word error rate."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from betz.core.errors import DataError


def edit_distance(truth: Sequence[Hashable], decoded: Sequence[Hashable]) -> int:
    """Fewest insertions, deletions and substitutions that turn one sequence into the other (Levenshtein 1966).

    Args:
        truth, decoded: strings, or lists of words or class numbers.

    >>> edit_distance("kitten", "sitting")
    3
    """
    names: dict[Hashable, int] = {}
    a, b = (np.array([names.setdefault(s, len(names)) for s in text], dtype=np.int64) for text in (truth, decoded))
    place = np.arange(len(b) + 1)
    row = place.copy()
    for i, symbol in enumerate(a):
        best = row + 1  # the symbol is left out
        best[1:] = np.minimum(best[1:], row[:-1] + (b != symbol))
        best[0] = i + 1
        # Insertions run along the row: min over k ≤ j of best[k] + (j − k).
        row = np.minimum.accumulate(best - place) + place
    return int(row[-1])


def character_error_rate(truth: Sequence[str], decoded: Sequence[str]) -> float:
    """Edits of all texts over the characters of the true ones; above 1 if too much is decoded.

    Texts are pooled, as in the handwriting and speech benchmarks: long sentences count more.

    Args:
        truth, decoded: texts of the same trials, in the same order.

    Raises:
        DataError: different numbers of texts, or no true character at all.

    >>> character_error_rate(["hello", "you"], ["hallo", "you"])
    0.125
    """
    _check_lists(truth, decoded)
    return _rate(truth, decoded, "characters")


def word_error_rate(truth: Sequence[str], decoded: Sequence[str]) -> float:
    """Edits of all texts in words over the words of the true ones; words are what white space separates.

    Args:
        truth, decoded: texts of the same trials, in the same order.

    Raises:
        DataError: different numbers of texts, or no true word at all.

    >>> word_error_rate(["how are you"], ["how is you now"])
    0.6666666666666666
    """
    _check_lists(truth, decoded)
    return _rate([t.split() for t in truth], [t.split() for t in decoded], "words")


def _check_lists(truth: Sequence[str], decoded: Sequence[str]) -> None:
    if isinstance(truth, str) or isinstance(decoded, str):
        raise DataError("truth and decoded must be lists of texts.", where="error rate", remedy="pass [text]")
    if len(truth) != len(decoded):
        raise DataError(
            f"{len(truth)} true and {len(decoded)} decoded texts do not match.",
            where="error rate",
            remedy="give one decoded text for each true one, empty where nothing was decoded",
        )


def _rate(truth: Sequence[Sequence[str]], decoded: Sequence[Sequence[str]], unit: str) -> float:
    total = sum(len(t) for t in truth)
    if total == 0:
        raise DataError(
            f"the true texts have no {unit}, so a rate is not defined.",
            where="error rate",
            remedy="score texts that are not empty",
        )
    return sum(edit_distance(t, d) for t, d in zip(truth, decoded, strict=True)) / total
