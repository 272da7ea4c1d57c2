"""The sequence head (text from bins, CTC) and its decoding, the same offline and bin by bin.

The classes of a bin are symbols and a blank (class 0). A text's probability is that of all ways to spread it over the
bins with blanks and repetitions (Graves et al. 2006). Decoding is a fold over bins: a state is a value, ``advance``
gives the next one, so a text does not depend on how its bins were cut into pushes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from betz.core.errors import ConfigError, StreamError

BLANK = 0
"""Class of a bin in which no symbol is written."""
Float = NDArray[np.float64]
Labels = tuple[int, ...]
S = TypeVar("S")


class SequenceHead(nn.Module):
    """Class scores of each bin from its features.

    Args:
        width: H, length of a bin's features.
        classes: V, the blank (class 0) included.
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        if classes < 2:
            raise ConfigError(
                f"{classes} classes leave no symbol beside the blank.", where="sequence head", remedy="give at least 2"
            )
        self.out = nn.Linear(width, classes)

    def forward(self, features_BNH: torch.Tensor) -> torch.Tensor:
        """(B, N, V) unnormalised log-probabilities of (B, N, H) features."""
        scores: torch.Tensor = self.out(features_BNH)
        return scores


def pool_bins(features_BTH: torch.Tensor, bin_BT: torch.Tensor, num_bins: int) -> torch.Tensor:
    """Mean of the tokens of each bin.

    Args:
        features_BTH: features of tokens.
        bin_BT: int64 bin of each token, 0 … num_bins − 1; −1: the token belongs to none (padding).
        num_bins: N.

    Returns:
        (B, N, H); zeros where a bin has no token.
    """
    B, _, H = features_BTH.shape
    slot_BT = torch.where(bin_BT < 0, num_bins, bin_BT)  # one slot more for what belongs to no bin
    kept_BTH = torch.where((bin_BT < 0)[..., None], 0.0, features_BTH)  # NaN in padding must not survive
    total = features_BTH.new_zeros(B, num_bins + 1, H)
    total.scatter_add_(1, slot_BT[..., None].expand(-1, -1, H), kept_BTH)
    number = features_BTH.new_zeros(B, num_bins + 1).scatter_add_(1, slot_BT, torch.ones_like(kept_BTH[..., 0]))
    return total[:, :num_bins] / number[:, :num_bins].clamp(min=1)[..., None]


def sequence_loss(
    logits_BNV: torch.Tensor, bins_B: torch.Tensor, labels_BL: torch.Tensor, length_B: torch.Tensor
) -> torch.Tensor:
    """CTC loss, nats a symbol, mean over rows; a text too long for its bins counts 0.

    Args:
        logits_BNV: from :class:`SequenceHead`.
        bins_B: int64 real bins of each row.
        labels_BL: int64 symbols, 1 … V − 1, padded with anything.
        length_B: int64 symbols of each row.
    """
    log_p_NBV = logits_BNV.float().log_softmax(-1).transpose(0, 1)
    return nn.functional.ctc_loss(log_p_NBV, labels_BL, bins_B, length_B, blank=BLANK, zero_infinity=True)


@dataclass(frozen=True)
class Alphabet:
    """What the classes 1 … V − 1 stand for.

    Args:
        symbols: texts of the classes after the blank, in order.

    >>> Alphabet(("a", "b")).text((2, 1, 1))
    'baa'
    """

    symbols: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.symbols or len(set(self.symbols)) != len(self.symbols):
            raise ConfigError(
                "the symbols must be different, and at least one.", where="Alphabet", remedy="name each class once"
            )

    @property
    def classes(self) -> int:
        """V, the blank included."""
        return len(self.symbols) + 1

    def text(self, labels: Labels) -> str:
        """The text of class numbers."""
        return "".join(self.symbols[label - 1] for label in labels)

    def labels(self, text: str) -> Labels:
        """Class numbers of a text, character by character.

        Raises:
            ConfigError: a character is no symbol.
        """
        place = {symbol: i + 1 for i, symbol in enumerate(self.symbols)}
        missing = sorted({c for c in text if c not in place})
        if missing:
            raise ConfigError(
                f"the characters {missing} are no symbols.", where="Alphabet", remedy="add them, or leave them out"
            )
        return tuple(place[c] for c in text)


class SequenceDecoder(Protocol[S]):
    """Labels from scores, bin by bin."""

    def start(self) -> S:
        """The state before the first bin."""
        ...

    def advance(self, state: S, logits_NV: NDArray[Any]) -> S:
        """The state after further bins; the old one stays as it is. A lost bin is left out."""
        ...

    def labels(self, state: S) -> Labels:
        """The best labels so far."""
        ...


@dataclass(frozen=True)
class GreedyState:
    """Labels so far, and the class of the last bin."""

    labels: Labels = ()
    last: int = BLANK


@dataclass(frozen=True)
class Greedy:
    """The best class of each bin; repetitions count once, blanks not."""

    def start(self) -> GreedyState:
        """Nothing decoded."""
        return GreedyState()

    def advance(self, state: GreedyState, logits_NV: NDArray[Any]) -> GreedyState:
        """The state after further bins (N, V)."""
        best_N = _log_softmax(logits_NV).argmax(axis=1)
        before_N = np.concatenate(([state.last], best_N[:-1])) if len(best_N) else best_N
        new = best_N[(best_N != before_N) & (best_N != BLANK)]
        last = int(best_N[-1]) if len(best_N) else state.last
        return GreedyState((*state.labels, *new.tolist()), last)

    def labels(self, state: GreedyState) -> Labels:
        """The labels so far."""
        return state.labels


Scores = dict[Labels, tuple[float, float]]


@dataclass(frozen=True)
class BeamState:
    """Labels on which all beams agree, and the beams' different ends.

    Args:
        agreed: labels that no later bin can change.
        beams: end of the labels → log-probability, beyond ``scale``, of all ways that end in a blank, and in the
            last label; best first.
        scale: log-probability of the best beam: kept apart, so that hour-long streams round like fresh ones.
    """

    agreed: Labels = ()
    beams: Mapping[Labels, tuple[float, float]] = field(default_factory=lambda: {(): (0.0, -math.inf)})
    scale: float = 0.0


@dataclass(frozen=True)
class Beam:
    """Prefix beam search: the most probable labels, summed over all ways to write them.

    Args:
        width: prefixes that are kept after each bin. With all of them kept the result is exact.
        pending: labels that later bins may still change; of a longer end, the oldest label of the best beam is agreed
            on, and beams that differ in it are given up. It bounds the state.

    Source: Graves & Jaitly 2014, Hannun et al. 2014; without a language model.
    """

    width: int = 16
    pending: int = 100

    def __post_init__(self) -> None:
        if self.width < 1 or self.pending < 1:
            raise ConfigError(
                f"a width of {self.width} and {self.pending} pending labels keep nothing.",
                where="Beam",
                remedy="give at least 1",
            )

    def start(self) -> BeamState:
        """One beam: nothing written."""
        return BeamState()

    def advance(self, state: BeamState, logits_NV: NDArray[Any]) -> BeamState:
        """The state after further bins (N, V)."""
        agreed, beams, scale = state.agreed, dict(state.beams), state.scale
        for log_p_V in _log_softmax(logits_NV):
            beams, gain = _extend(beams, agreed[-1] if agreed else BLANK, log_p_V, self.width)
            scale += gain
            common = _common(list(beams))
            late = len(next(iter(beams))) - self.pending
            if late > len(common):
                common = next(iter(beams))[:late]
            if common:
                agreed += common
                beams = {end[len(common) :]: p for end, p in beams.items() if end[: len(common)] == common}
        return BeamState(agreed, beams, scale)

    def labels(self, state: BeamState) -> Labels:
        """The best labels so far: those agreed on, and the end of the best beam."""
        return state.agreed + next(iter(state.beams))

    def log_probabilities(self, state: BeamState) -> dict[Labels, float]:
        """Log-probability of each kept text, best first."""
        return {state.agreed + end: state.scale + float(np.logaddexp(*p)) for end, p in state.beams.items()}


def _extend(beams: Scores, before: int, log_p_V: Float, width: int) -> tuple[Scores, float]:
    """The best prefixes one bin later, best first, and by how much the first one gained.

    Args:
        beams: as in :class:`BeamState`.
        before: the label before the ends.
        log_p_V: log-probabilities of the bin's classes.
        width: how many are kept.
    """
    ends = list(beams)
    place = {end: b for b, end in enumerate(ends)}
    in_blank, in_label = np.array(list(beams.values())).T
    total = np.logaddexp(in_blank, in_label)
    last = np.array([end[-1] if end else before for end in ends])
    stay_blank = total + log_p_V[BLANK]
    stay_label = np.where(last == BLANK, -math.inf, in_label + log_p_V[last])
    grow_BV = total[:, None] + log_p_V
    grow_BV[:, BLANK] = -math.inf
    # A label is written twice only with a blank between.
    again = np.flatnonzero(last != BLANK)
    grow_BV[again, last[again]] = in_blank[again] + log_p_V[last[again]]
    for end, b in place.items():  # a shorter beam grows into one that is there already
        parent = place.get(end[:-1]) if end else None
        if parent is not None:
            stay_label[b] = np.logaddexp(stay_label[b], grow_BV[parent, end[-1]])
            grow_BV[parent, end[-1]] = -math.inf
    score = np.concatenate((np.logaddexp(stay_blank, stay_label), grow_BV.ravel()))
    best = [int(i) for i in np.argsort(-score, kind="stable")[:width] if score[i] > -math.inf]
    top, found = float(score[best[0]]), Scores()
    for i in best:
        if i < len(ends):
            found[ends[i]] = (float(stay_blank[i]) - top, float(stay_label[i]) - top)
        else:
            b, label = divmod(i - len(ends), len(log_p_V))
            found[(*ends[b], label)] = (-math.inf, float(score[i]) - top)
    return found, top


def _common(ends: list[Labels]) -> Labels:
    """The labels with which all ends begin."""
    first, last = min(ends), max(ends)
    same = next((i for i, label in enumerate(first) if i >= len(last) or last[i] != label), len(first))
    return first[:same]


def _log_softmax(logits_NV: NDArray[Any]) -> Float:
    """(N, V) float64 log-probabilities."""
    logits = np.asarray(logits_NV, dtype=np.float64)
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise StreamError(
            f"scores {logits.shape} are not (bins, classes).",
            where="sequence decoding",
            remedy="decode one row at a time, with a state of its own",
        )
    if not np.isfinite(logits).all():
        raise StreamError(
            "scores have NaN or infinite values.", where="sequence decoding", remedy="leave lost bins out"
        )
    with np.errstate(over="ignore"):
        shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
