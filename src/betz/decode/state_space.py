"""Linear-Gaussian models of behavior and signals: fitted from moments, their converged covariance, their gain.

The state is behavior at a few moments around the present, newest first: ``lead`` steps ahead (cortex leads movement, so
the signals of now tell of behavior to come), and the steps before that. Behavior of the present is a part of the
state, so what arrives after it still corrects it (a fixed-lag smoother within the filter). With two moments or more,
the model is one of behavior and its rate of change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from betz.decode.closed_form import Segments

Float = NDArray[np.float64]

STABLE = 0.9999
"""Largest modulus of an eigenvalue of the transition: in lost bins the state must not run away."""
TRANSITION_RIDGE, TUNING_RIDGE = 1e-3, 1e-2
NOISE_FLOOR = 0.3
"""Least variance of a channel's noise, as a share of the median one."""


@dataclass(frozen=True, eq=False)
class Model:
    """s(t + 1) = A s(t) + noise of covariance Q, z(t) = H s(t) + noise of covariance R; s has mean 0, covariance P.

    Args:
        transition: (S, S) A.
        process: (S, S) Q.
        tuning: (C, S) H.
        noise: (C, C) R.
        prior: (S, S) P, of the state in the calibration; the covariance before any signal.
    """

    transition: Float
    process: Float
    tuning: Float
    noise: Float
    prior: Float


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over bins from which a :class:`Model` is fitted; they add up over disjoint bins.

    Args:
        ss, sz, zz: (S, S), (S, C), (C, C) of states and the signals of the same bin.
        number: bins in them.
        before, across, after: (S, S), (K, S), (K, K) of states one step apart; of the later one its newest part.
        pairs: pairs in them.
    """

    ss: Float
    sz: Float
    zz: Float
    number: int
    before: Float
    across: Float
    after: Float
    pairs: int

    def __add__(self, other: Moments) -> Moments:
        return Moments(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __sub__(self, other: Moments) -> Moments:
        return Moments(*(getattr(self, f.name) - getattr(other, f.name) for f in fields(self)))


def states(x_NK: Float, segments: Segments, *, lead: int, order: int, stride: int) -> Float:
    """(N, order · K) state of each bin; NaN where a part of it is unlabelled or outside the bin's segment.

    Args:
        x_NK: behavior, NaN where unknown.
        segments: (first bin, end bin) stretches; nothing crosses them.
        lead: steps from the present to the newest part.
        order: parts, one step apart.
        stride: bins of a step.
    """
    bins, width = x_NK.shape
    out_NS = np.full((bins, order * width), np.nan)
    for start, stop in segments:
        for part in range(order):
            ahead = (lead - part) * stride
            low, high = max(start, start - ahead), min(stop, stop - ahead)
            if low < high:
                out_NS[low:high, part * width : (part + 1) * width] = x_NK[low + ahead : high + ahead]
    return out_NS


def moments(state_NS: Float, z_NC: Float, segments: Segments, *, width: int, stride: int) -> Moments:
    """Moments over all bins of the segments that have a state and whole windows of signals.

    Args:
        state_NS: of :func:`states` on the same segments.
        z_NC: signals, NaN where a window is not whole.
        segments: (first bin, end bin) stretches.
        width: K, size of a part of the state.
        stride: bins of a step.
    """
    known = np.asarray(np.isfinite(state_NS).all(axis=1))
    seen = np.asarray(known & np.isfinite(z_NC[:, 0]))
    same = [np.arange(start, stop)[seen[start:stop]] for start, stop in segments]
    first = [np.arange(a, b - stride)[known[a : b - stride] & known[a + stride : b]] for a, b in segments]
    now, early = np.concatenate(same), np.concatenate(first)
    s, z = state_NS[now], z_NC[now]
    old, new = state_NS[early], state_NS[early + stride][:, :width]
    return Moments(s.T @ s, s.T @ z, z.T @ z, len(now), old.T @ old, new.T @ old, new.T @ new, len(early))


def fit(m: Moments, *, shrink: float, inflate: float) -> Model:
    """The model that fits the moments best, made fit for little data.

    Args:
        m: moments of z-scored signals and behavior.
        shrink: share of the noise covariance's diagonal target; the correlations are multiplied by 1 − shrink.
        inflate: factor of the noise covariance: what the model takes for independent noise of every bin is partly
            noise that lasts, and error of the fit; 1 = as fitted.
    """
    size, width = len(m.ss), len(m.after)
    transition, process = np.zeros((size, size)), np.zeros((size, size))
    transition[width:, : size - width] = np.eye(size - width)
    ridge = m.before + TRANSITION_RIDGE * m.pairs * np.eye(size)
    top = np.linalg.solve(ridge, m.across.T).T
    mixed = top @ m.across.T
    transition[:width] = top
    process[:width, :width] = (m.after - mixed - mixed.T + top @ m.before @ top.T) / m.pairs
    tuning = np.linalg.solve(m.ss + TUNING_RIDGE * m.number * np.eye(size), m.sz).T
    mixed = tuning @ m.sz
    noise = (m.zz - mixed - mixed.T + tuning @ m.ss @ tuning.T) / m.number
    noise = inflate * shrunk(noise, shrink, floor=NOISE_FLOOR)
    return Model(
        _stable(transition, width),
        symmetric(process),
        np.asarray(tuning, dtype=np.float64),
        symmetric(noise),
        symmetric(m.ss / m.number),
    )


def shrunk(noise: Float, shrink: float, *, floor: float) -> Float:
    """A noise covariance with its covariances multiplied by 1 − shrink and its small variances raised.

    A channel that was near-dead in the calibration looks as if it had hardly any noise; it must not be trusted the more
    when it wakes up.

    Args:
        noise: (C, C).
        shrink: 0 … 1.
        floor: least variance, as a share of the channels' median one.
    """
    variance = np.diag(noise)
    raised = np.maximum(variance, floor * np.median(variance))
    return (1 - shrink) * noise + np.diag(raised - (1 - shrink) * variance)


def _stable(transition: Float, width: int) -> Float:
    """The transition, if need be with all eigenvalues drawn towards zero so that none exceeds :data:`STABLE`.

    In a companion matrix the block that weighs j steps back, times cʲ, gives eigenvalues times c.
    """
    radius = float(np.abs(np.linalg.eigvals(transition)).max())
    if radius <= STABLE:
        return transition
    out = transition.copy()
    back = 1 + np.arange(len(out)) // width
    out[:width] *= (STABLE / radius) ** back
    return out


def converged(transition: Float, process: Float, information: Float) -> Float:
    """(S, S) covariance of the filtered state after many bins: the solution of the discrete Riccati equation.

    By structure-preserving doubling (Anderson 1978; Chu, Fan and Lin 2005), which squares the convergence each turn.

    Args:
        transition, process: A and Q; A is stable.
        information: (S, S) Hᵀ R⁻¹ H of one step.
    """
    a, g, p = transition.T, information, process
    eye = np.eye(len(a))
    for _ in range(60):
        w = np.linalg.solve((eye + g @ p).T, a.T).T  # a (I + g p)⁻¹
        step = a.T @ p @ np.linalg.solve(eye + g @ p, a)
        g = symmetric(g + w @ g @ a.T)
        a = w @ a
        p = symmetric(p + step)
        if np.abs(step).max() <= 1e-13 * np.abs(p).max():
            break
    return symmetric(np.linalg.solve((eye + information @ p).T, p.T).T)


def symmetric(a: NDArray[Any]) -> Float:
    """The symmetric part of a matrix (or of a stack of them)."""
    return np.asarray((a + np.swapaxes(a, -1, -2)) / 2)


def projection(model: Model) -> tuple[Float, Float]:
    """(C, S) R⁻¹ H, through which signals enter, and (S, S) the information Hᵀ R⁻¹ H of one bin."""
    from scipy.linalg import cho_factor, cho_solve

    weights_CS = np.asarray(cho_solve(cho_factor(model.noise), model.tuning))
    return weights_CS, symmetric(model.tuning.T @ weights_CS)


class Step:
    """One bin of the filter: predict, then correct with what was seen, for stacks of streams.

    Args:
        model: the model.
        steady: correct with the converged gain, instead of the one that the covariance of the moment asks for.

    Attributes:
        weights_CS: z-scored signals times these are what the filter is given.
        start: (S, S) covariance before the first bin.
    """

    def __init__(self, model: Model, *, steady: bool) -> None:
        self.model = model
        self.weights_CS, self.information = projection(model)
        self._eye = np.eye(len(model.transition))
        self._gain = converged(model.transition, model.process, self.information) if steady else None
        self.start = model.prior if self._gain is None else self._gain

    def __call__(self, mean_BS: Float, p_BSS: Float, pushed_BS: Float, share_B: Float) -> tuple[Float, Float]:
        """Mean and covariance after the bin.

        Args:
            mean_BS, p_BSS: mean and covariance before it.
            pushed_BS: projected signals of the bin, times the share of it that was seen.
            share_B: 1 = all of the bin was seen, 0 = it was lost: behavior is predicted, and the covariance grows.
        """
        a, share = self.model.transition, share_B[:, None, None]
        mean = mean_BS @ a.T
        p = a @ p_BSS @ a.T + self.model.process
        if self._gain is None:
            p = symmetric(np.linalg.solve(self._eye + share * (p @ self.information), p))
            gain = p
        else:
            left = self._eye - share * (self._gain @ self.information)
            noise = self._gain @ self.information @ self._gain
            p = symmetric(left @ p @ np.swapaxes(left, 1, 2) + share * noise)
            gain = np.broadcast_to(self._gain, p.shape)
        missed = pushed_BS - share_B[:, None] * (mean @ self.information)
        return mean + (gain @ missed[:, :, None])[:, :, 0], p


def run_steady(model: Model, z_NC: Float, segments: Sequence[tuple[int, int]], *, stride: int) -> Float:
    """(N, S) filtered states with the converged gain, from the mean at the start of each segment; 0 outside.

    Args:
        model: the model.
        z_NC: means of the last ``stride`` bins' signals.
        segments: (first bin, end bin) stretches.
        stride: bins of a step: bins that many apart follow on each other, the others are streams of their own.
    """
    weights_CS, information = projection(model)
    covariance = converged(model.transition, model.process, information)
    keep = model.transition - covariance @ information @ model.transition
    push_NS = z_NC @ (weights_CS @ covariance)
    out_NS = np.zeros((len(z_NC), len(keep)))
    for start, stop in segments:
        last = np.zeros((stride, len(keep)))
        for at in range(start, stop, stride):
            part = push_NS[at : min(at + stride, stop)]
            last = last[: len(part)] @ keep.T + part
            out_NS[at : at + len(part)] = last
    return out_NS
