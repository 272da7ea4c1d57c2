"""Interleaved sequences: a network of 50 ms steps run at every narrower bin, each phase with a state of its own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from betz.decode.closed_form import Segments

Float32 = NDArray[np.float32]
Network = Callable[[Float32, Float32], tuple[Float32, Float32]]
"""Inputs (R, N, F) and states (R, …) to values (R, N, …) and states (R, N + 1, …), from before the first step on."""


def interleaved(network: Network, x_BNF: Float32, state: Float32, stride: int) -> tuple[Float32, Float32]:
    """Values (B, N, …) and states (B, stride, …) after the last bin, oldest phase first.

    Args:
        network: runs sequences of steps.
        x_BNF: inputs of every bin.
        state: (B, stride, …), oldest phase first.
        stride: bins in a step.
    """
    rows, bins, width = x_BNF.shape
    if stride == 1:
        values, states = network(x_BNF, state[:, 0])
        return values, states[:, -1:].copy()
    steps = -(-bins // stride)
    padded = np.zeros((rows, steps * stride, width), np.float32)
    padded[:, :bins] = x_BNF
    phases = padded.reshape(rows, steps, stride, width).swapaxes(1, 2).reshape(rows * stride, steps, width)
    values, states = network(phases, state.reshape(rows * stride, *state.shape[2:]))
    out = values.reshape(rows, stride, steps, *values.shape[2:]).swapaxes(1, 2)
    out = out.reshape(rows, steps * stride, *values.shape[2:])[:, :bins]
    states = states.reshape(rows, stride, *states.shape[1:])
    taken = np.array([(bins - phase + stride - 1) // stride for phase in range(stride)])  # bins of each phase
    after = states[:, np.arange(stride), taken]
    return out, np.ascontiguousarray(np.roll(after, -(bins % stride), axis=1))


def split_phases(segments: Segments, stride: int) -> tuple[NDArray[np.int64], list[tuple[int, int]]]:
    """Bins of all segments, phase after phase, and where each phase of each segment lies among them."""
    order, parts, at = [], [], 0
    for a, b in segments:
        for phase in range(min(stride, b - a)):
            bins = np.arange(a + phase, b, stride)
            order.append(bins)
            parts.append((at, at + len(bins)))
            at += len(bins)
    return np.concatenate(order), parts


def chunks(spans: Segments, segments: Segments, *, chunk: int, warm: int) -> list[tuple[int, int, int]]:
    """(start of the warm-up, first bin, end bin) of pieces that cover the spans; none crosses a segment."""
    made = []
    for low, high in segments:
        for first, stop in spans:
            a, b = max(low, first), min(high, stop)
            made += [(max(low, i - warm), i, min(i + chunk, b)) for i in range(a, b, chunk)]
    return made


def offline(
    run: Callable[[Float32, Float32], tuple[Float32, Float32]],
    x_NF: Float32,
    fresh: Float32,
    *,
    spans: Segments,
    segments: Segments,
    stride: int,
    steps: int = 300,
    warm_steps: int = 100,
) -> Float32:
    """(N, …) values in some spans of bins, decoded in chunks side by side; NaN elsewhere.

    Args:
        run: inputs (B, N, F) and states (B, stride, …) to values and states.
        x_NF: inputs of a session.
        fresh: (1, stride, …) state at the start of a segment.
        spans: (first bin, end bin) to decode.
        segments: states live inside one.
        stride: bins in a step.
        steps, warm_steps: length of a chunk and of its warm-up.
    """
    windows = chunks(spans, segments, chunk=steps * stride, warm=warm_steps * stride)
    windows.sort(key=lambda w: w[2] - w[0])
    out: Float32 | None = None
    size = max(1, 20000 // max(stop - start for start, _, stop in windows))
    for i in range(0, len(windows), size):
        some = windows[i : i + size]
        longest = max(stop - start for start, _, stop in some)
        x = np.zeros((len(some), longest, x_NF.shape[1]), np.float32)
        for r, (start, _, stop) in enumerate(some):
            x[r, : stop - start] = x_NF[start:stop]
        values, _ = run(x, np.repeat(fresh, len(some), axis=0))
        if out is None:
            out = np.full((len(x_NF), *values.shape[2:]), np.nan, np.float32)
        for r, (start, first, stop) in enumerate(some):
            out[first:stop] = values[r, first - start : stop - start]
    assert out is not None
    return out
