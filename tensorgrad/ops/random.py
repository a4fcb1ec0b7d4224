"""Random numbers: generators with a visible state, the distributions, and dropout.

A generator is a 64-bit key and a position. Every draw is a pure function of the two
(backend/philox.py), so CPU and GPU draw the same numbers, and a saved state resumes exactly.
"""

from __future__ import annotations

import builtins
import math
import os
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad import backend, dtypes
from tensorgrad.backend import philox
from tensorgrad.dtypes import COMPLEX, FLOATS, HALVES, real_of
from tensorgrad.errors import DtypeError, ShapeError
from tensorgrad.hints import unknown_names as _unknown_names
from tensorgrad.observers import current_mode
from tensorgrad.ops.complex_parts import complex as complex_of_parts
from tensorgrad.ops.creation import Shape, asarray, sizes_of
from tensorgrad.ops.elementwise import log1p, minimum, where
from tensorgrad.ops.indexing import take
from tensorgrad.ops.numbers import number
from tensorgrad.ops.numpy_forms import at_hand
from tensorgrad.ops.scans import cumulative_sum
from tensorgrad.ops.shaping import shape_of
from tensorgrad.ops.sign_bits import nextafter
from tensorgrad.ops.sorting import argsort, searchsorted
from tensorgrad.ops.table import operation
from tensorgrad.tape import Primitive, apply, cast, wrap

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = [
    "Generator", "bernoulli", "default_generator", "dropout", "multinomial", "normal",
    "permutation", "randint", "seed", "uniform",
]  # fmt: skip

if not TYPE_CHECKING:
    __getattr__ = _unknown_names(__name__)


# --- the draws ------------------------------------------------------------------------------------
# Each takes a tensor `like` first, which says on which device to draw.


def _on_device_of(xp: Any, like: Any, draw: Any, *args: Any) -> Any:
    if xp is np:
        return draw(np, *args)
    with like.device:
        return draw(xp, *args)


def _uniform_value(
    xp: Any,
    like: Any,
    key: int,
    position: int,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    low: float,
    high: float,
) -> Any:
    wide = dtypes.float32 if dtype in HALVES else dtype
    u = _on_device_of(xp, like, philox.uniform, key, position, math.prod(shape), wide)
    if dtype in HALVES:
        # Rounding to 16 bits could give 1: the bits that do not fit are cut off instead.
        steps = 2.0**11 if dtype == dtypes.float16 else 2.0**8
        u = xp.floor(u * steps) / steps
    if (low, high) != (0.0, 1.0):
        u *= high - low
        u += low
    return u.reshape(shape).astype(dtype, copy=False)


def _uniform_loops(
    xp: Any,
    like: Any,
    key: int,
    position: int,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    low: float,
    high: float,
) -> Any:
    if low != 0.0:  # a product and a sum, which C rounds once
        xp.refuse("uniform numbers are the same bits everywhere")
    if dtype == dtypes.float32:
        u = (xp.random_words(key, position, shape) >> np.uint32(8)).astype(dtype) * 2.0**-24
    else:
        u = (_words_64(xp, key, position, shape) >> np.uint64(11)).astype(dtype) * 2.0**-53
    return u if high == 1.0 else u * high


def _words_64(xp: Any, key: int, position: int, shape: tuple[int, ...]) -> Any:
    """Pairs of words, the lower one first, as numbers of 64 bits."""
    lower = xp.random_words(key, position, shape, 2).astype(np.uint64)
    upper = xp.random_words(key, position + 1, shape, 2).astype(np.uint64)
    return (upper << np.uint64(32)) | lower


def _normal_value(
    xp: Any,
    like: Any,
    key: int,
    position: int,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    mean: float,
    std: float,
) -> Any:
    wide = dtypes.float32 if dtype in HALVES else dtype
    z = _on_device_of(xp, like, philox.normal, key, position, math.prod(shape), wide)
    if std != 1.0:
        z *= std
    if mean != 0.0:
        z += mean
    return z.reshape(shape).astype(dtype, copy=False)


def _randint_value(
    xp: Any,
    like: Any,
    key: int,
    position: int,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    low: int,
    high: int,
) -> Any:
    # The integer part of (a 64-bit number / 2**64) * count, from 32-bit halves.
    words = _on_device_of(xp, like, philox.bits, key, position, 2 * math.prod(shape))
    words = words.astype(np.uint64)
    count, shift = np.uint64(high - low), np.uint64(32)
    found = (words[1::2] * count + ((words[0::2] * count) >> shift)) >> shift
    return (found.astype(np.int64) + low).astype(dtype).reshape(shape)


def _randint_loops(
    xp: Any,
    like: Any,
    key: int,
    position: int,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    low: int,
    high: int,
) -> Any:
    words, count, shift = _words_64(xp, key, position, shape), np.uint64(high - low), np.uint64(32)
    found = (
        (words >> shift) * count + (((words & np.uint64(2**32 - 1)) * count) >> shift)
    ) >> shift
    return (found.astype(np.int64) + low).astype(dtype)


def _permutation_value(xp: Any, like: Any, key: int, position: int, n: int) -> Any:
    words = _on_device_of(xp, like, philox.bits, key, position, 2 * n).astype(np.uint64)
    keys = (words[1::2] << np.uint64(32)) | words[0::2]
    if xp is np:  # a stable sort takes six times as long, and is needed only for equal keys
        order = np.argsort(keys)
        ranked = keys[order]
        if not (ranked[1:] == ranked[:-1]).any():
            return order
    # A stable sort of 64-bit numbers: one right order, whatever the device.
    return xp.argsort(keys, kind="stable")


def _mask_value(xp: Any, x: Any, key: int, position: int, p: float) -> Any:
    words = _on_device_of(xp, x, philox.words, key, position, x.shape)
    scale = 0.0 if p == 1.0 else 1.0 / (1.0 - p)
    kept = words >= np.uint32(min(round(p * 2.0**32), 2**32 - 1))
    return kept.astype(x.dtype) * x.dtype.type(scale)


def _draw(name: str, value: Any, loops: Any = None) -> Primitive:
    return Primitive(name, value, {"like": None}, kernel=name, random=True, loops=loops)


_UNIFORM = _draw("random.uniform", _uniform_value, _uniform_loops)
_NORMAL = _draw("random.normal", _normal_value)
_RANDINT = _draw("random.randint", _randint_value, _randint_loops)
_PERMUTATION = _draw("random.permutation", _permutation_value)
_MASK: Primitive = Primitive(
    "random.dropout_mask", _mask_value, {"x": None}, random=True, complex=True
)


@cache
def _place(device: str) -> Tensor:
    """A tensor without elements on ``device``, to say where to draw."""
    of = backend.backend_for(device)
    return wrap(of.asarray(np.empty(0, np.float32), None, device, None), None)


# --- generators -----------------------------------------------------------------------------------

#: Where it is set: the state of every generator before the first draw from it, for doing it again.
DRAWN: ContextVar[dict[Generator, tuple[int, int]] | None] = ContextVar("drawn", default=None)


class Generator:
    """A source of random numbers, which a seed determines. Not shared between threads.

    seed: an integer in [0, 2**64); fresh entropy of the system if ``None``.

    Every draw begins at a new block of four 32-bit words of the stream, so that no two draws ever
    use the same word.
    """

    def __init__(self, seed: int | None = None) -> None:
        self.seed(seed)

    def seed(self, seed: int | None = None) -> Generator:
        """Start again from ``seed``. Returns the generator."""
        for observer in current_mode().observers:
            observer.seeded(self)
        if seed is None:
            seed = int.from_bytes(os.urandom(8), "little")
        key = int(seed)
        if not 0 <= key < 2**64:
            raise ValueError(f"a seed is an integer in [0, 2**64); got {seed}")
        self._key = key
        self._position = 0
        return self

    def state(self) -> tuple[int, int]:
        """The key and the position: what ``set_state`` needs to continue from here."""
        return self._key, self._position

    def set_state(self, state: tuple[int, int]) -> None:
        """Continue from a ``state()``."""
        key, position = (int(n) for n in state)
        if not (0 <= key < 2**64 and 0 <= position < 2**64):
            raise ValueError(f"a generator's state is two integers in [0, 2**64); got {state}")
        self._key, self._position = key, position

    def __repr__(self) -> str:
        return f"Generator(seed={self._key}, position={self._position})"

    def advance(self, words: int) -> dict[str, int]:
        """Use up ``words`` 32-bit words of the stream; the key and position where they begin."""
        for observer in current_mode().observers:
            observer.drew(self, words)
        drawn = DRAWN.get()
        if drawn is not None:
            drawn.setdefault(self, self.state())
        attrs = {"key": self._key, "position": self._position}
        self._position += -(-words // 4) * 4
        return attrs

    def _real(
        self,
        op: Primitive,
        shape: Shape,
        dtype: Any,
        device: str | None,
        requires_grad: bool,
        **parameters: Any,
    ) -> Tensor:
        wanted = dtypes.get_default_dtype() if dtype is None else dtypes.as_dtype(dtype)
        sizes = sizes_of(op.name, shape)
        if wanted in COMPLEX:
            re, im = self._real(op, (2, *sizes), real_of(wanted), device, False, **parameters)
            both = complex_of_parts(re, im)
            both.requires_grad = requires_grad
            return both
        if wanted not in FLOATS:
            raise DtypeError(f"{op.name}: a floating dtype is needed; got {wanted}")
        words = 2 if wanted == dtypes.float64 else 1
        attrs = {
            **self.advance(math.prod(sizes) * words),
            "shape": sizes,
            "dtype": wanted,
            **parameters,
        }
        out: Tensor = apply(op, (_place(backend.normalize(device)),), attrs)
        if requires_grad:
            out.requires_grad = True
        return out

    def uniform(
        self,
        shape: Shape = (),
        low: float = 0.0,
        high: float = 1.0,
        *,
        dtype: Any = None,
        device: str | None = None,
        requires_grad: bool = False,
    ) -> Tensor:
        """Numbers spread evenly over [low, high); rounding may give ``high`` itself.

        Of complex ones both parts are.
        """
        limits = {k: float(number("uniform", k, v)) for k, v in (("low", low), ("high", high))}
        return self._real(_UNIFORM, shape, dtype, device, requires_grad, **limits)

    def normal(
        self,
        shape: Shape = (),
        mean: complex = 0.0,
        std: float = 1.0,
        *,
        dtype: Any = None,
        device: str | None = None,
        requires_grad: bool = False,
    ) -> Tensor:
        """Numbers of a normal distribution.

        Of complex ones the mean square distance from the mean, which may be complex, is ``std**2``:
        half of it falls to either part, as in PyTorch.
        """
        if dtype is not None and dtypes.as_dtype(dtype) in COMPLEX:
            std = float(number("normal", "std", std)) / math.sqrt(2.0)
            drawn = self._real(_NORMAL, shape, dtype, device, False, mean=0.0, std=std)
            drawn = drawn + number("normal", "mean", mean, True)
            drawn.requires_grad = requires_grad
            return drawn
        given = ("mean", mean), ("std", std)
        parameters = {k: float(number("normal", k, v)) for k, v in given}
        return self._real(_NORMAL, shape, dtype, device, requires_grad, **parameters)

    def randint(
        self,
        low: int,
        high: int | None = None,
        shape: Shape = (),
        *,
        dtype: Any = None,
        device: str | None = None,
    ) -> Tensor:
        """Integers in [low, high), or in [0, low) if ``high`` is ``None``; int64 by default.

        No integer is likelier than another by more than 2**-32 of its probability. Raises
        ValueError unless 0 < high - low <= 2**32.
        """
        if isinstance(high, tuple | list):
            raise ShapeError(
                f"randint: the second number is where to stop, and the shape follows; write "
                f"randint({low}, shape={high}) or randint(0, {low}, {high})"
            )
        if high is None:
            low, high = 0, low
        low, high = number("randint", "low", low), number("randint", "high", high)
        if low != int(low) or high != int(high):
            raise ValueError(f"randint: low and high must be integers; got {low} and {high}")
        if not 0 < high - low <= 2**32:
            raise ValueError(
                f"randint: high - low must be between 1 and 2**32; got low={low}, high={high}"
            )
        sizes = sizes_of("randint", shape)
        attrs = {
            **self.advance(2 * math.prod(sizes)),
            "shape": sizes,
            "dtype": dtypes.int64 if dtype is None else dtypes.as_dtype(dtype),
            "low": int(low),
            "high": int(high),
        }
        return apply(_RANDINT, (_place(backend.normalize(device)),), attrs)

    def permutation(self, x: Any, *, device: str | None = None) -> Tensor:
        """The integers from 0 to ``x - 1`` in random order; or a tensor's slices along axis 0."""
        whole = not isinstance(x, int)
        n = shape_of(x)[0] if whole else x
        if whole and device is None:
            device = getattr(x, "device", None) if hasattr(x, "node") else None
        attrs = {**self.advance(2 * n), "n": n}
        order = apply(_PERMUTATION, (_place(backend.normalize(device)),), attrs)
        return take(x, order, axis=0) if whole else order

    def bernoulli(
        self,
        p: Any = 0.5,
        shape: Shape | None = None,
        *,
        dtype: Any = None,
        device: str | None = None,
    ) -> Tensor:
        """1 with probability ``p`` and else 0, of the default real dtype unless another is given.

        p: a number, or a tensor of probabilities, whose shape the result has by default.
        """
        if shape is None:
            shape = shape_of(p)
        if device is None and hasattr(p, "node"):
            device = p.device
        drawn = self.uniform(shape, dtype=dtypes.float32, device=device) < p
        return cast(drawn, dtypes.get_default_dtype() if dtype is None else dtypes.as_dtype(dtype))


#: The generator of the functions of this module.
default_generator = Generator()

uniform = default_generator.uniform
normal = default_generator.normal
randint = default_generator.randint
permutation = default_generator.permutation
bernoulli = default_generator.bernoulli


def seed(seed: int | None = None) -> Generator:
    """Start the default generator again from ``seed``; fresh entropy if ``None``."""
    return default_generator.seed(seed)


def multinomial(
    weights: Any, n: int, replacement: bool = False, *, generator: Generator | None = None
) -> Tensor:
    """``n`` integers for each row of ``weights``, each with a probability in proportion to its one.

    weights: shape (k,) or (..., k), not negative. replacement: whether an integer may come again.
    Gives int64 of shape (n,) or (..., n).

    Raises ValueError for a row with too few weights that are not 0.
    """
    given = generator or default_generator
    w = cast(asarray(weights).detach(), np.dtype(np.float64))
    shape = shape_of(w)
    numbers = at_hand(w)
    if numbers is not None:
        needed = builtins.min(n, 1) if replacement else n
        enough = (numbers > 0).sum(-1).min(initial=needed) >= needed
        if not (enough and np.isfinite(numbers).all() and (numbers >= 0).all()):
            raise ValueError(
                f"multinomial: weights must be finite, not negative, and at least {needed} in each "
                "row not 0"
            )
    if not replacement:  # the first in a race of exponential variables (Efraimidis, Spirakis 2006)
        u = given.uniform(shape, dtype=np.float64, device=w.device)
        times = where(w > 0.0, -log1p(-u) / where(w > 0.0, w, 1.0), math.inf)
        return argsort(times, axis=-1)[..., :n]
    sums = cumulative_sum(w, axis=-1)
    u = given.uniform((*shape[:-1], n), dtype=np.float64, device=w.device)
    total = sums[..., -1:]
    return searchsorted(sums, minimum(u * total, nextafter(total, 0.0)), side="right")


# --- dropout --------------------------------------------------------------------------------------


def _dropout_value(xp: Any, x: Any, key: int, position: int, p: float) -> Any:
    mask = _mask_value(xp, x, key, position, p)
    return x * mask, mask


def _dropout_rule(g: Any, r: Any, key: int, position: int, p: float) -> Any:
    # A kernel keeps no mask, and under create_graph none is at hand: it is drawn once more.
    mask = r
    if mask is None:
        mask = apply(_MASK, (g,), {"key": key, "position": position, "p": p})
    return g * mask


_DROPOUT = Primitive(
    "dropout",
    _dropout_value,
    {"x": _dropout_rule},
    half_in_float32=True,
    residual=lambda key, position, p: None,
    kernel="dropout",
    random=True,
    complex=True,
)


@operation(
    cases=[
        lambda s: s(s.real(3, 4), 0.0),
        lambda s: s(s.real(3, 4), 0.5, training=False),
        lambda s: s(s.real(3, 4), 1.0),
        lambda s: s(s.real(0, 4), 0.5),
    ],
    reference=lambda x, p=0.5, training=True: x * 0.0 if training and p == 1 else x,
    torch="nn.functional.dropout",
    elementwise=True,
    primitive=_DROPOUT,
    complex=True,
)
def dropout(
    x: Any, /, p: float = 0.5, training: bool = True, *, generator: Generator | None = None
) -> Tensor:
    """``x`` with each element set to 0 with probability ``p``, at random.

    The others are scaled by ``1 / (1 - p)``, so that the mean stays (Srivastava et al., 2014).

    Returns ``x`` itself if not ``training`` or ``p`` is 0. Raises ValueError for p outside [0, 1].
    """
    p = number("dropout", "p", p)
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout: p must be between 0 and 1; got {p}")
    if not training or p == 0.0:
        return x
    source = default_generator if generator is None else generator
    attrs = {**source.advance(math.prod(shape_of(x))), "p": float(p)}
    return apply(_DROPOUT, (x,), attrs)
