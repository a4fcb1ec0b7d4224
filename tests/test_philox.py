"""Tests of the counter-based generator: known answers, splitting, ranges and distributions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorgrad.backend import philox

KEY = 0x0123456789ABCDEF
DTYPES = (np.float32, np.float64)


def reference_block(counter: tuple[int, ...], key: tuple[int, int]) -> list[int]:
    """Philox 4x32-10 of one counter in Python integers, straight from the paper."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        product_0, product_1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (
            (product_1 >> 32) ^ c1 ^ k0,
            product_1 & 0xFFFFFFFF,
            (product_0 >> 32) ^ c3 ^ k1,
            product_0 & 0xFFFFFFFF,
        )
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return [c0, c1, c2, c3]


# The philox4x32-10 vectors that the Random123 distribution publishes.
KNOWN_ANSWERS = [
    (
        (0, 0, 0, 0),
        (0, 0),
        [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8],
    ),
    (
        (0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF),
        (0xFFFFFFFF, 0xFFFFFFFF),
        [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD],
    ),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_known_answers(counter: tuple[int, ...], key: tuple[int, int], expected: list[int]) -> None:
    c0, c1, c2, c3 = (np.array([word, 0], dtype=np.uint64) for word in counter)
    out = np.empty((2, 4), dtype=np.uint32)
    philox._philox_4x32_10(np, (c0, c1, c2, c3), key[1] << 32 | key[0], out)
    assert out[0].tolist() == expected
    assert out[1].tolist() == reference_block((0, 0, 0, 0), key)


def test_known_answer_through_bits() -> None:
    assert philox.bits(np, 0, 0, 4).tolist() == KNOWN_ANSWERS[0][2]


@settings(deadline=None)
@given(
    key=st.integers(0, 2**64 - 1),
    position=st.integers(0, 2**64 - 12),
    n=st.integers(0, 12),
)
def test_bits_match_reference(key: int, position: int, n: int) -> None:
    words = []
    for block in range(position // 4, (position + n) // 4 + 1):
        words += reference_block(
            (block & 0xFFFFFFFF, block >> 32, 0, 0), (key & 0xFFFFFFFF, key >> 32)
        )
    got = philox.bits(np, key, position, n)
    assert got.dtype == np.uint32
    assert got.tolist() == words[position % 4 : position % 4 + n]


def test_counter_carries_into_its_second_word() -> None:
    position = 4 * 2**32 - 4
    got = philox.bits(np, KEY, position, 8)
    key = (KEY & 0xFFFFFFFF, KEY >> 32)
    assert got[:4].tolist() == reference_block((0xFFFFFFFF, 0, 0, 0), key)
    assert got[4:].tolist() == reference_block((0, 1, 0, 0), key)


def draw(kind: str, position: int, n: int) -> Any:
    if kind == "bits":
        return philox.bits(np, KEY, position, n)
    name, dtype = kind.split(" ")
    return getattr(philox, name)(np, KEY, position, n, dtype)


KINDS = ["bits", "uniform float32", "uniform float64", "normal float32", "normal float64"]


def words_of(kind: str) -> int:
    return 1 if kind == "bits" else philox.words_per_number(kind.split(" ")[1])


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None)
@given(
    position=st.one_of(st.integers(0, 9), st.integers(0, 2**64 - 4096)),
    sizes=st.lists(st.integers(0, 300), min_size=2, max_size=4),
)
def test_a_run_may_be_split_anywhere(kind: str, position: int, sizes: list[int]) -> None:
    whole = draw(kind, position, sum(sizes))
    parts = []
    for size in sizes:
        parts.append(draw(kind, position, size))
        position += size * words_of(kind)
    np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("position", [0, 3, 7])
@pytest.mark.parametrize("chunk", [1, 2, 5, 64])
def test_chunk_size_does_not_show(
    kind: str, position: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = draw(kind, position, 1003)
    monkeypatch.setattr(philox, "_HOST_CHUNK_BLOCKS", chunk)
    np.testing.assert_array_equal(draw(kind, position, 1003), whole)


@pytest.mark.parametrize("kind", KINDS)
def test_run_longer_than_a_chunk(kind: str) -> None:
    n = 9 * philox._HOST_CHUNK_BLOCKS + 11
    whole = draw(kind, 5, n)
    assert whole.shape == (n,)
    tail = draw(kind, 5 + (n - 50) * words_of(kind), 50)
    np.testing.assert_array_equal(tail, whole[-50:])


def test_keys_name_different_streams() -> None:
    streams = [philox.bits(np, key, 0, 8).tolist() for key in (0, 1, 2**32, 2**64 - 1)]
    assert len({tuple(stream) for stream in streams}) == 4


def test_uniform_takes_the_documented_bits() -> None:
    words = [int(word) for word in philox.bits(np, KEY, 3, 2000)]
    single = philox.uniform(np, KEY, 3, 2000, np.float32)
    assert single.dtype == np.float32
    assert single.tolist() == [(word >> 8) / 2**24 for word in words]
    double = philox.uniform(np, KEY, 3, 1000, np.float64)
    assert double.dtype == np.float64
    pairs = zip(words[0::2], words[1::2], strict=True)
    assert double.tolist() == [((high << 32 | low) >> 11) / 2**53 for low, high in pairs]


@pytest.mark.parametrize("dtype", DTYPES)
def test_extreme_words(dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for word in (0, 0xFFFFFFFF):
        monkeypatch.setattr(
            philox, "bits", lambda xp, key, position, n, word=word: np.full(n, word, np.uint32)
        )
        with np.errstate(all="raise"):
            uniform = philox.uniform(np, 0, 0, 4, dtype)
            normal = philox.normal(np, 0, 0, 4, dtype)
        assert np.all((uniform >= 0) & (uniform < 1))
        assert np.all(np.isfinite(normal))
        assert np.all(np.abs(normal) < (6.67 if dtype is np.float32 else 8.58))


def test_normal_float32_matches_its_formula() -> None:
    words = philox.bits(np, KEY, 10, 4000).tolist()
    expected = []
    for first, second in zip(words[0::2], words[1::2], strict=True):
        radius = math.sqrt(-2.0 * math.log((first + 1) * 2.0**-32))
        angle = second * (2.0 * math.pi * 2.0**-32)
        expected += [radius * math.cos(angle), radius * math.sin(angle)]
    got = philox.normal(np, KEY, 10, 4000, np.float32)
    assert got.dtype == np.float32
    np.testing.assert_array_max_ulp(got, np.array(expected, dtype=np.float32), maxulp=1)


@pytest.mark.parametrize("position", [8, 9])
def test_normal_float64_matches_its_formula(position: int) -> None:
    words = philox.bits(np, KEY, position, 4000).tolist()
    values = [(high << 32 | low) >> 11 for low, high in zip(words[0::2], words[1::2], strict=True)]
    expected = []
    for first, second in zip(values[0::2], values[1::2], strict=True):
        radius = math.sqrt(-2.0 * math.log((first + 1) * 2.0**-53))
        angle = second * (2.0 * math.pi * 2.0**-53)
        expected += [radius * math.cos(angle), radius * math.sin(angle)]
    got = philox.normal(np, KEY, position, 2000, np.float64)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, expected, rtol=2e-15, atol=0)


def kolmogorov_distance(sample: Any, cdf: Any) -> float:
    """Kolmogorov-Smirnov statistic times sqrt(n); its 0.999 quantile is 1.95."""
    levels = cdf(np.sort(sample.astype(np.float64)))
    n = levels.size
    steps = np.arange(n + 1) / n
    return float(math.sqrt(n) * max((steps[1:] - levels).max(), (levels - steps[:-1]).max()))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("key", [0, KEY])
def test_uniform_distribution(dtype: Any, key: int) -> None:
    n = 200_000
    sample = philox.uniform(np, key, 1, n, dtype).astype(np.float64)
    assert sample.min() >= 0.0
    assert sample.max() < 1.0
    # Bounds of 4 standard errors: variances 1/12 of a value, 1/180 of its squared deviation.
    assert abs(sample.mean() - 0.5) < 4 * math.sqrt(1 / 12 / n)
    assert abs(sample.var() - 1 / 12) < 4 * math.sqrt(1 / 180 / n)
    assert abs(np.corrcoef(sample[:-1], sample[1:])[0, 1]) < 4 / math.sqrt(n)
    assert kolmogorov_distance(sample, lambda x: x) < 1.95


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("key", [0, KEY])
def test_normal_distribution(dtype: Any, key: int) -> None:
    n = 200_000
    sample = philox.normal(np, key, 1, n, dtype).astype(np.float64)
    # Bounds of 4 standard errors: variances of x, x**2, x**3 and x**4 are 1, 2, 15 and 96.
    for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((sample**power).mean() - mean) < 4 * math.sqrt(variance / n)
    assert abs(np.corrcoef(sample[:-1], sample[1:])[0, 1]) < 4 / math.sqrt(n)
    erf = np.vectorize(math.erf, otypes=[np.float64])
    assert kolmogorov_distance(sample, lambda x: 0.5 * (1 + erf(x / math.sqrt(2)))) < 1.95


@pytest.mark.parametrize("kind", KINDS)
def test_empty_run(kind: str) -> None:
    for position in (0, 3, 2**64 - 1):
        got = draw(kind, position, 0)
        assert got.shape == (0,)
        assert got.dtype == (np.uint32 if kind == "bits" else np.dtype(kind.split(" ")[1]))


def test_last_word_of_the_stream() -> None:
    assert philox.bits(np, KEY, 2**64 - 4, 4)[3:] == philox.bits(np, KEY, 2**64 - 1, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_arguments_out_of_range(kind: str) -> None:
    with pytest.raises(ValueError, match="n must be at least 0, got -1"):
        draw(kind, 0, -1)
    with pytest.raises(ValueError, match="position must be in"):
        draw(kind, -1, 1)
    with pytest.raises(ValueError, match="position must be in"):
        draw(kind, 2**64, 1)
    with pytest.raises(ValueError, match="must be at most"):
        draw(kind, 2**64 - 2, 3)
    for key in (-1, 2**64):
        with pytest.raises(ValueError, match="key must be in"):
            philox.bits(np, key, 0, 1)


@pytest.mark.parametrize("dtype", [np.float16, np.int32, ">f4", "no such type", None])
def test_unsupported_dtype(dtype: Any) -> None:
    for function in (philox.uniform, philox.normal):
        with pytest.raises(ValueError, match="dtype must be float32 or float64, got"):
            function(np, 0, 0, 1, dtype)


def test_words_per_number() -> None:
    assert philox.words_per_number("float32") == 1
    assert philox.words_per_number(np.dtype(np.float64)) == 2


@pytest.mark.parametrize("position", [0, 4, 7, 2**40 + 2])
def test_rows_are_parts_of_the_stream(position: int) -> None:
    """Wherever they begin, in any order, and also where they take several passes."""
    for numbers, stride, n in (([3, 0, 3, 2**33], 12, 9), ([5], 4, 0), (range(900), 64, 61)):
        rows = philox.rows(np, 11, position, np.array(numbers, np.uint64), stride, n)
        assert rows.shape == (len(numbers), n)
        for row, number in list(zip(rows, numbers, strict=True))[:: max(1, len(numbers) // 7)]:
            np.testing.assert_array_equal(row, philox.bits(np, 11, position + number * stride, n))
