"""Short-time Fourier transforms and their inverse, in PyTorch's call form.

Made of recorded operations, so that gradients of every order follow.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorgrad.errors import ShapeError
from tensorgrad.ops.complex_parts import is_complex
from tensorgrad.ops.creation import ones, zeros
from tensorgrad.ops.fourier import fft, ifft, irfft, rfft
from tensorgrad.ops.indexing import beside, take
from tensorgrad.ops.padding import pad
from tensorgrad.ops.scattering import index_add
from tensorgrad.ops.shaping import moveaxis, reshape, swapaxes
from tensorgrad.tensor import Tensor

__all__ = ["istft", "stft"]


def _steps(
    name: str, like: Any, n_fft: int, hop_length: int | None, win_length: int | None, window: Any
) -> tuple[int, Any]:
    """The distance of two frames, and a window of ``n_fft`` points with the given in its middle."""
    width = n_fft if win_length is None else win_length
    hop = n_fft // 4 if hop_length is None else hop_length
    if not 0 < width <= n_fft or hop < 1:
        raise ValueError(
            f"{name}: win_length must be between 1 and n_fft, and hop_length above 0; got "
            f"{width}, {n_fft} and {hop}"
        )
    if window is None:
        kind = like.real.dtype if is_complex(like) else like.dtype
        window = ones((width,), dtype=kind, device=like.device)
    if window.shape != (width,):
        raise ShapeError(f"{name}: window must have shape {(width,)}; got {window.shape}")
    before = (n_fft - width) // 2
    return hop, pad(window, (before, n_fft - width - before))


def _places(count: int, hop: int, n_fft: int) -> Any:
    """Where the elements of each frame are."""
    return np.arange(count)[:, None] * hop + np.arange(n_fft)


def stft(
    x: Tensor,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Tensor | None = None,
    center: bool = True,
    pad_mode: str = "reflect",
    normalized: bool = False,
    onesided: bool | None = None,
) -> Tensor:
    """The Fourier transforms of frames of ``x``, each ``n_fft`` long and multiplied by ``window``.

    x: shape (length,) or (batch, length). hop_length: distance of two frames (default a quarter of
    ``n_fft``). win_length, window: the window (default ones) and its length, put in the middle of
    ``n_fft``. center: frame t lies around ``t * hop_length`` instead of beginning there; ``x`` is
    padded on both sides by ``pad_mode``. normalized: divide by the root of ``n_fft``. onesided: of
    real input the frequencies up to half alone (the default of real input and window).

    Returns complex numbers of shape (frequencies, frames), with the batch in front. Raises
    ShapeError for another shape or a signal shorter than ``n_fft``.
    """
    if x.ndim not in (1, 2):
        raise ShapeError(f"stft: x must have shape (length,) or (batch, length); got {x.shape}")
    hop, taper = _steps("stft", x, n_fft, hop_length, win_length, window)
    half = not (is_complex(x) or is_complex(taper))
    onesided = half if onesided is None else onesided
    if onesided and not half:
        raise ValueError("stft: onesided=True is for real x and window; give onesided=False")
    if center:
        x = pad(x, [(0, 0)] * (x.ndim - 1) + [(n_fft // 2, n_fft // 2)], pad_mode)
    length = x.shape[-1]
    if length < n_fft:
        raise ShapeError(f"stft: x must be at least n_fft = {n_fft} long; got {length}")
    count = 1 + (length - n_fft) // hop
    frames = take(x, _places(count, hop, n_fft), axis=-1) * taper
    norm = "ortho" if normalized else None
    transform = rfft if onesided else fft
    return swapaxes(transform(frames, axis=-1, norm=norm), -1, -2)


def istft(
    x: Tensor,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Tensor | None = None,
    center: bool = True,
    normalized: bool = False,
    onesided: bool | None = None,
    length: int | None = None,
    return_complex: bool = False,
) -> Tensor:
    """The signal whose ``stft`` is nearest to ``x``: windowed frames added where they overlap, and
    divided by the sum of the squares of the window.

    D. W. Griffin and J. S. Lim, Signal estimation from modified short-time Fourier transform, IEEE
    Transactions on Acoustics, Speech, and Signal Processing 32 (1984). The arguments are those of
    ``stft``. length: of the signal; what lies behind the last frame is 0. return_complex: of a
    complex signal, which needs all frequencies.

    Raises ShapeError for another shape, and ValueError where no window covers a place.
    """
    if x.ndim not in (2, 3):
        raise ShapeError(
            "istft: x must have shape (frequencies, frames) or (batch, frequencies, frames); got "
            f"{x.shape}"
        )
    hop, taper = _steps("istft", x, n_fft, hop_length, win_length, window)
    onesided = (x.shape[-2] != n_fft and not return_complex) if onesided is None else onesided
    if onesided and return_complex:
        raise ValueError("istft: a complex signal needs all frequencies; give onesided=False")
    expected = n_fft // 2 + 1 if onesided else n_fft
    if x.shape[-2] != expected:
        raise ShapeError(f"istft: x must have {expected} frequencies; got {x.shape[-2]}")
    norm = "ortho" if normalized else None
    spectra = swapaxes(x, -1, -2)
    if return_complex:
        frames = ifft(spectra, axis=-1, norm=norm)
    else:  # of all frequencies of a real signal the second half says nothing new
        frames = irfft(spectra[..., : n_fft // 2 + 1], n_fft, axis=-1, norm=norm)
    count = x.shape[-1]
    places = _places(count, hop, n_fft).reshape(-1)
    total = n_fft + hop * (count - 1)
    signal = _overlapped(frames * taper, places, total)
    squares = _overlapped(taper * taper + zeros((count, 1), dtype=taper.dtype), places, total)
    start = n_fft // 2 if center else 0
    end = start + length if length is not None else total - (n_fft // 2 if center else 0)
    kept = slice(start, min(end, total))
    squares = squares[kept]
    if squares.shape[0] and float(abs(squares.detach()).min().item()) < 1e-11:
        raise ValueError("istft: at some place no window covers the signal; give another window")
    y = signal[..., kept] / squares
    short = 0 if length is None else length - y.shape[-1]
    return pad(y, [(0, 0)] * (y.ndim - 1) + [(0, short)]) if short > 0 else y


def _overlapped(frames: Any, places: Any, total: int) -> Any:
    """The frames added at their places, along the last axis."""
    lead = frames.shape[:-2]
    flat = moveaxis(reshape(frames, (*lead, -1)), -1, 0)
    empty = zeros((total, *lead), dtype=flat.dtype, device=flat.device)
    return moveaxis(index_add(empty, beside(flat, places), flat), 0, -1)
