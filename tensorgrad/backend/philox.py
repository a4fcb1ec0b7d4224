"""Counter-based random numbers: the Philox 4x32-10 generator, uniforms and normals.

A stream is named by a 64-bit key and is a pure function of the index into it: word i is word
i % 4 of the block whose 128-bit counter is i // 4. There is no state to carry, so a run can be
split, resumed or drawn out of order. Every function takes the array module first (``numpy`` or
``cupy``) and uses only what both have, so that the two draw the same bits.

Source: J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as
1, 2, 3", SC 2011.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np

from tensorgrad.backend.namespace import Namespace

__all__ = ["bits", "normal", "uniform", "words_per_number"]

# Round multipliers and the Weyl increments of the key schedule, from the paper (section 3.3).
_MULTIPLIER_0 = 0xD2511F53
_MULTIPLIER_1 = 0xCD9E8D57
_WEYL_0 = 0x9E3779B9
_WEYL_1 = 0xBB67AE85
_ROUNDS = 10

_STREAM_LENGTH = 1 << 64

# On the host the seven uint64 working arrays of a chunk and its output, 72 bytes per block, are
# to stay within a level-2 cache of 1 MiB. A device has no such limit and pays per kernel launch, so
# there a chunk only bounds the scratch memory.
_HOST_CHUNK_BLOCKS = 8192
_DEVICE_CHUNK_BLOCKS = 1 << 22


def words_per_number(dtype: Any) -> int:
    """Number of 32-bit words of the stream that one random number of ``dtype`` uses up.

    1 for float32, 2 for float64, in any form ``numpy.dtype`` accepts. A caller advances its
    position by ``n * words_per_number(dtype)`` after drawing n numbers.

    Raises ValueError for another dtype.
    """
    # numpy.dtype(None) is float64, which would hide a forgotten argument.
    if dtype is not None:
        try:
            found = np.dtype(dtype)
        except TypeError as error:
            raise ValueError(f"dtype must be float32 or float64, got {dtype!r}") from error
        if found == np.float32:
            return 1
        if found == np.float64:
            return 2
    raise ValueError(f"dtype must be float32 or float64, got {dtype!r}")


def bits(xp: Any, key: int, position: int, n: int) -> Any:
    """Words ``position`` to ``position + n - 1`` of the stream named by ``key``.

    Word i is word i % 4 of the Philox 4x32-10 block with counter i // 4 (low 64 bits; the upper
    64 bits of the counter are 0), hence ``bits(xp, k, 0, 10)[3:]`` equals ``bits(xp, k, 3, 7)``.

    xp: the array module, numpy or cupy.
    key: the seed, 0 <= key < 2**64; the low 32 bits are the first key word.
    position: the index of the first word, 0 <= position < 2**64. n: the number of words, n >= 0.

    Returns a uint32 array [n].
    Raises ValueError if key, position or n is out of range, or the run passes word 2**64 - 1.
    """
    _check_range(key, position, n, words=1)
    skip = position % 4
    first_block = position // 4
    blocks = (skip + n + 3) // 4 if n else 0
    out = xp.empty((blocks, 4), dtype=xp.uint32)
    chunk = _chunk_blocks(xp)
    for start in range(0, blocks, chunk):
        part = out[start : start + chunk]
        # arange counts from 0 because its own arithmetic may pass through float64, which would
        # lose the low bits of a large first block.
        index = xp.arange(part.shape[0], dtype=xp.uint64)
        index += np.uint64(first_block + start)
        _encrypt(xp, index, key, part)
    return out.reshape(-1)[skip : skip + n]


def words(xp: Any, key: int, position: int, shape: tuple[int, ...]) -> Any:
    """The words of ``bits`` in an array of this shape; key and position may be live numbers."""
    if isinstance(xp, Namespace):
        return xp.random_words(key, position, shape)
    return bits(xp, key, position, math.prod(shape)).reshape(shape)


def rows(xp: Any, key: int, position: int, numbers: Any, stride: int, n: int) -> Any:
    """Of each of several rows of words the first ``n``: uint32 [len(numbers), n].

    numbers: uint64 [m]; row i begins at word ``position + numbers[i] * stride``. stride: a multiple
    of 4. The other arguments are those of ``bits``.
    """
    skip = position % 4
    blocks = (skip + n + 3) // 4
    counters = (numbers * np.uint64(stride // 4))[:, None] + xp.arange(blocks, dtype=xp.uint64)
    counters = counters.reshape(-1)
    counters += np.uint64(position // 4)
    out = xp.empty((counters.shape[0], 4), dtype=xp.uint32)
    chunk = _chunk_blocks(xp)
    for start in range(0, counters.shape[0], chunk):
        part = slice(start, start + chunk)
        _encrypt(xp, counters[part], key, out[part])
    return out.reshape(numbers.shape[0], 4 * blocks)[:, skip : skip + n]


def uniform(xp: Any, key: int, position: int, n: int, dtype: Any) -> Any:
    """Uniform numbers in [0, 1) from the stream named by ``key``.

    With w the words of ``bits``, number i is
      - float32: ``(w[position + i] >> 8) * 2**-24``, the upper 24 bits of one word;
      - float64: ``((w[position + 2*i + 1] * 2**32 + w[position + 2*i]) >> 11) * 2**-53``, all 32
        bits of the second word followed by the upper 21 bits of the first.
    Both are exact: every value is a multiple of 2**-24 or 2**-53.

    xp: the array module, numpy or cupy. key: the seed, 0 <= key < 2**64.
    position: the index of the first *word* used, 0 <= position < 2**64, whatever the dtype.
    n: how many numbers, n >= 0. dtype: float32 or float64.

    Returns an array [n] of ``dtype``.
    Raises ValueError if the dtype is another, key, position or n is out of range, or the run passes
    word 2**64 - 1.
    """
    words = words_per_number(dtype)
    _check_range(key, position, n, words)
    out = xp.empty(n, dtype=dtype)
    chunk = _chunk_words(xp) // words
    for start in range(0, n, chunk):
        part = out[start : start + chunk]
        drawn = bits(xp, key, position + start * words, part.shape[0] * words)
        if words == 1:
            drawn >>= np.uint32(8)
            # Values below 2**24 are the same read as int32, which converts to float faster.
            part[...] = drawn.view(xp.int32)
            part *= 2.0**-24
        else:
            part[...] = _integer_53(xp, drawn[0::2], drawn[1::2])
            part *= 2.0**-53
    return out


def normal(xp: Any, key: int, position: int, n: int, dtype: Any) -> Any:
    """Standard normal numbers from the stream named by ``key``, by the Box-Muller transform.

    A pair is r * cos(a) and r * sin(a) with r = sqrt(-2 ln u), u in (0, 1], and angle a in
    [0, 2 pi). With w the words of ``bits``:
      - float32: the numbers at positions 2k and 2k + 1 use u = (w[2k] + 1) * 2**-32 and
        a = w[2k + 1] * (2 pi * 2**-32). All of it is computed in float64 and rounded once.
      - float64: a number takes two words and a pair four. The numbers at positions s + 4k and
        s + 4k + 2, where s = position % 2, use u = (m + 1) * 2**-53 with the 53-bit m that
        ``uniform`` takes from words s + 4k and s + 4k + 1, and a = m' * (2 pi * 2**-53) with m'
        from words s + 4k + 2 and s + 4k + 3.
    The branch therefore depends on the place in the stream and not on where a call begins: a run
    may be split at any number and start at any position.

    Source: G. E. P. Box, M. E. Muller, "A note on the generation of random normal deviates",
    Ann. Math. Statist. 29 (1958).

    The arguments are those of ``uniform``.

    Returns an array [n] of ``dtype``. All values are finite; the largest magnitude possible is 6.67
    in float32 and 8.58 in float64.
    Raises ValueError as ``uniform`` does; the run is extended to whole pairs.
    """
    words = words_per_number(dtype)
    _check_range(key, position, n, words)
    # skip is 1 where the run begins with the sin branch of a pair.
    skip = (position // words) % 2
    first_word = position - skip * words
    pairs = (skip + n + 1) // 2 if n else 0
    out = xp.empty((pairs, 2), dtype=dtype)
    chunk = _chunk_words(xp) // (2 * words)
    for start in range(0, pairs, chunk):
        part = out[start : start + chunk]
        drawn = bits(xp, key, first_word + start * 2 * words, part.shape[0] * 2 * words)
        if words == 1:
            radius = drawn[0::2].astype(xp.float64)
            angle = drawn[1::2].astype(xp.float64)
            scale = 2.0**-32
        else:
            radius = _integer_53(xp, drawn[0::4], drawn[1::4])
            angle = _integer_53(xp, drawn[2::4], drawn[3::4])
            scale = 2.0**-53
        # The 1 added keeps the argument of the logarithm away from 0.
        radius += 1.0
        radius *= scale
        xp.log(radius, out=radius)
        radius *= -2.0
        xp.sqrt(radius, out=radius)
        angle *= 2.0 * math.pi * scale
        sine = xp.sin(angle)
        xp.cos(angle, out=angle)
        angle *= radius
        sine *= radius
        part[:, 0] = angle
        part[:, 1] = sine
    return out.reshape(-1)[skip : skip + n]


def _chunk_blocks(xp: Any) -> int:
    """How many blocks one pass of the generator computes."""
    return _HOST_CHUNK_BLOCKS if xp is np else _DEVICE_CHUNK_BLOCKS


def _chunk_words(xp: Any) -> int:
    """How many words to ask of ``bits`` at a time, a multiple of 4.

    One block less than a pass, because a run that begins inside a block touches one block more
    than it fills and would need a second pass for it.
    """
    return 4 * max(1, _chunk_blocks(xp) - 1)


def _encrypt(xp: Any, blocks: Any, key: int, out: Any) -> None:
    """The words of the blocks with these numbers, uint64 [m], into ``out``, uint32 [m, 4]."""
    low, high = blocks & np.uint64(0xFFFFFFFF), blocks >> np.uint64(32)
    counter = low, high, xp.zeros_like(blocks), xp.zeros_like(blocks)
    _philox_4x32_10(xp, counter, key, out)


def _philox_4x32_10(xp: Any, counter: tuple[Any, Any, Any, Any], key: int, out: Any) -> None:
    """Encrypt m 128-bit counters into ``out``, uint32 [m, 4].

    ``counter`` holds the four counter words, lowest first, as uint64 arrays [m] below 2**32; they
    are overwritten. One round is (paper, section 3.3)
        c0, c1, c2, c3 = hi(M1*c2) ^ c1 ^ k0, lo(M1*c2), hi(M0*c0) ^ c3 ^ k1, lo(M0*c0).
    Four separate flat arrays take the short path through a ufunc, which a broadcast over two rows
    does not, and that decides the time of a small run.
    """
    c0, c1, c2, c3 = counter
    product_0 = xp.empty_like(c0)
    product_1 = xp.empty_like(c0)
    constants = _constants(key, xp is np)
    for k0, k1 in constants.round_keys:
        xp.multiply(c0, constants.multiplier_0, product_0)
        xp.multiply(c2, constants.multiplier_1, product_1)
        # c1 and c3 keep the whole product: the mask on c0 and c2 removes its high half, and the
        # final cast to uint32 does so for the result.
        xp.right_shift(product_1, constants.shift_32, c0)
        xp.bitwise_xor(c0, c1, c0)
        xp.bitwise_xor(c0, k0, c0)
        xp.bitwise_and(c0, constants.low_32, c0)
        xp.right_shift(product_0, constants.shift_32, c2)
        xp.bitwise_xor(c2, c3, c2)
        xp.bitwise_xor(c2, k1, c2)
        xp.bitwise_and(c2, constants.low_32, c2)
        c1, product_1 = product_1, c1
        c3, product_0 = product_0, c3
    for column, word in enumerate((c0, c1, c2, c3)):
        out[:, column] = word


class _Constants(NamedTuple):
    """The constants of all rounds under one key, in the form that suits the array module."""

    multiplier_0: Any
    multiplier_1: Any
    shift_32: Any
    low_32: Any
    round_keys: tuple[tuple[Any, Any], ...]


@functools.lru_cache(maxsize=64)
def _constants(key: int, on_host: bool) -> _Constants:
    """Round constants, with the key words of a round advanced by the Weyl increments.

    NumPy turns a scalar operand into an array on every call, which costs more than the work on a
    small run, so it gets 0-d arrays; CuPy takes scalars only.
    """

    def word(value: int) -> Any:
        scalar = np.uint64(value)
        return np.array(scalar) if on_host else scalar

    low, high = key & 0xFFFFFFFF, key >> 32
    return _Constants(
        multiplier_0=word(_MULTIPLIER_0),
        multiplier_1=word(_MULTIPLIER_1),
        shift_32=word(32),
        low_32=word(0xFFFFFFFF),
        round_keys=tuple(
            (
                word((low + r * _WEYL_0) & 0xFFFFFFFF),
                word((high + r * _WEYL_1) & 0xFFFFFFFF),
            )
            for r in range(_ROUNDS)
        ),
    )


def _integer_53(xp: Any, low: Any, high: Any) -> Any:
    """Upper 53 bits of the 64-bit numbers high * 2**32 + low, as float64 integers, exactly.

    Built by shifts and not by viewing pairs of words as uint64, because a run that begins at an
    odd word is not aligned for that.
    """
    joined = high.astype(xp.uint64)
    joined <<= np.uint64(32)
    joined |= low
    joined >>= np.uint64(11)
    # Values below 2**53 are the same read as int64, which converts to float faster.
    return joined.view(xp.int64).astype(xp.float64)


def _check_range(key: int, position: int, n: int, words: int) -> None:
    """Raise ValueError unless n numbers of ``words`` words each fit the stream at position."""
    if not 0 <= key < _STREAM_LENGTH:
        raise ValueError(f"key must be in [0, 2**64), got {key}")
    if n < 0:
        raise ValueError(f"n must be at least 0, got {n}")
    if not 0 <= position < _STREAM_LENGTH:
        raise ValueError(f"position must be in [0, 2**64), got {position}")
    if position + n * words > _STREAM_LENGTH:
        raise ValueError(
            f"position + n * (words per number) must be at most 2**64, "
            f"got {position} + {n} * {words}"
        )
