"""The emulator on small kernels: what it computes, and which errors it finds."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from emulator import emulator

pytestmark = pytest.mark.skipif(emulator.available() is not None, reason=str(emulator.available()))

Array = np.ndarray[Any, Any]
each_schedule = pytest.mark.parametrize("schedule", [*emulator.SCHEDULES, 6, 7])


def compiled(parameters: str, body: str, before: str = "", bounds: str = "") -> emulator.Kernel:
    source = f'{before}\nextern "C" __global__ void {bounds} k({parameters}) {{\n{body}\n}}\n'
    return emulator.load(source, ("--std=c++17",)).get_function("k")


def outcome(run: Callable[[int], None]) -> list[str]:
    """Under each schedule "right", "wrong" (an AssertionError) or "error"."""
    found = []
    for schedule in emulator.SCHEDULES:
        try:
            run(schedule)
        except AssertionError:
            found.append("wrong")
        except RuntimeError:
            found.append("error")
        else:
            found.append("right")
    return found


# --- values ---------------------------------------------------------------------------------------


@each_schedule
def test_every_thread_of_every_block_runs_once(schedule: int) -> None:
    kernel = compiled(
        "int* seen",
        """const int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
        const int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
        seen[block * blockDim.x * blockDim.y * blockDim.z + thread] += 1 + thread;""",
    )
    seen = np.zeros((2 * 3 * 4, 5 * 7 * 2), np.int32)
    kernel((2, 3, 4), (5, 7, 2), (seen,), schedule=schedule)
    assert (seen == 1 + np.arange(70)).all()
    assert kernel.switches == seen.size


@each_schedule
def test_shared_memory_and_barriers(schedule: int) -> None:
    kernel = compiled(
        "const float* x, float* y",
        """__shared__ float tile[96];
        for (int round = 0; round < 3; ++round) {
          tile[threadIdx.x] = x[blockIdx.x * 96 + threadIdx.x] + round;
          __syncthreads();
          y[(blockIdx.x * 3 + round) * 96 + threadIdx.x] = tile[95 - threadIdx.x];
          __syncthreads();
        }""",
    )
    x = np.random.default_rng(0).standard_normal((4, 96)).astype(np.float32)
    y = np.full((4, 3, 96), np.nan, np.float32)
    kernel((4,), (96,), (x, y), schedule=schedule)
    assert (y == x[:, None, ::-1] + np.arange(3, dtype=np.float32)[:, None]).all()


@each_schedule
@pytest.mark.parametrize(
    ("cpp", "dtype"),
    [
        ("unsigned char", np.uint8),
        ("int", np.int32),
        ("unsigned", np.uint32),
        ("long long", np.int64),
        ("float", np.float32),
        ("double", np.float64),
    ],
)
def test_shuffles(cpp: str, dtype: Any, schedule: int) -> None:
    kernel = compiled(
        f"const {cpp}* x, {cpp}* y",
        """const int i = threadIdx.x;
        y[i] = __shfl_sync(0xffffffffu, x[i], 5);
        y[64 + i] = __shfl_xor_sync(0xffffffffu, x[i], 3);
        y[128 + i] = __shfl_up_sync(0xffffffffu, x[i], 2);
        y[192 + i] = __shfl_down_sync(0xffffffffu, x[i], 7, 32);""",
    )
    x = (np.arange(64) * 3 + 1).astype(dtype)
    y = np.zeros((4, 2, 32), dtype)
    kernel((1,), (64,), (x, y), schedule=schedule)
    lane, warps = np.arange(32), x.reshape(2, 32)
    assert (y[0] == warps[:, [5] * 32]).all()
    assert (y[1] == warps[:, lane ^ 3]).all()
    assert (y[2] == warps[:, np.where(lane >= 2, lane - 2, lane)]).all()
    assert (y[3] == warps[:, np.where(lane < 25, lane + 7, lane)]).all()


@each_schedule
def test_part_of_a_warp(schedule: int) -> None:
    kernel = compiled(
        "float* y",
        """const unsigned lane = threadIdx.x;
        float v = lane;
        if (lane < 8) {
          for (int m = 4; m > 0; m /= 2) v += __shfl_xor_sync(0xffu, v, m);
          __syncwarp(0xffu);
        } else {
          v = __shfl_sync(0xffffff00u, v, 20);
        }
        y[lane] = v;""",
    )
    y = np.zeros(32, np.float32)
    kernel((1,), (32,), (y,), schedule=schedule)
    assert (y == np.where(np.arange(32) < 8, 28, 20)).all()


@each_schedule
def test_a_lane_without_part_gives_no_value(schedule: int) -> None:
    kernel = compiled(
        "float* y", "if (threadIdx.x < 8) y[threadIdx.x] = __shfl_sync(0xffu, 1.0f, 9);"
    )
    y = np.zeros(8, np.float32)
    kernel((1,), (32,), (y,), schedule=schedule)
    assert np.isnan(y).all()


@each_schedule
def test_votes(schedule: int) -> None:
    kernel = compiled(
        "unsigned* y",
        """const int odd = threadIdx.x & 1;
        const unsigned ballot = __ballot_sync(0xffffffffu, odd);
        const int any = __any_sync(0xffffffffu, threadIdx.x == 3), all = __all_sync(~0u, odd);
        const int all_less = __all_sync(~0u, threadIdx.x < 32);
        if (threadIdx.x == 0) y[0] = ballot, y[1] = any, y[2] = all, y[3] = all_less;""",
    )
    y = np.zeros(4, np.uint32)
    kernel((1,), (32,), (y,), schedule=schedule)
    assert y.tolist() == [0xAAAAAAAA, 1, 0, 1]


@each_schedule
def test_atomics(schedule: int) -> None:
    kernel = compiled(
        "int* i, unsigned* u, unsigned long long* w, float* f, double* d, int* largest",
        """atomicAdd(i, -1); atomicAdd(u, 2u); atomicAdd(w, 1ull << 33);
        atomicAdd(f, 0.5f); atomicAdd(d, 0.25);
        atomicMax(largest, int(threadIdx.x * blockIdx.x));
        __threadfence();""",
    )
    dtypes = (np.int32, np.uint32, np.uint64, np.float32, np.float64, np.int32)
    cells = [np.zeros(1, dtype) for dtype in dtypes]
    kernel((3,), (100,), cells, schedule=schedule)
    assert [cell[0] for cell in cells] == [-300, 600, 300 << 33, 150, 75, 198]


def test_float_functions_are_of_float() -> None:
    kernel = compiled(
        "const float* x, float* y, double* z",
        """static_assert(sizeof(exp(1.0f)) == 4 && sizeof(erf(1.0f)) == 4);
        static_assert(sizeof(fabs(1.0f)) == 4 && sizeof(exp(1.0)) == 8);
        static_assert(sizeof(fmax(1.0f, 2.0f)) == 4 && sizeof(pow(1.0f, 2.0f)) == 4);
        static_assert(sizeof(log1p(1.0f)) == 4 && sizeof(sqrt(1.0f)) == 4);
        static_assert(sizeof(min(1, 2ll)) == 8 && sizeof(max(1.0f, 2.0f)) == 4);
        y[0] = exp(x[0]); y[1] = rsqrt(x[0]); y[2] = max(x[0], 7.0f); y[3] = __ldg(x);
        sincosf(x[0], &y[4], &y[5]);
        sincospi(0.5f, &y[6], &y[7]);
        y[8] = __uint_as_float(__float_as_uint(x[0]) + 1);
        y[9] = __float2int_rn(2.5f);
        z[0] = exp(double(x[0])); z[1] = rsqrt(double(x[0]));
        z[2] = __umulhi(0x80000000u, 6u); z[3] = __umul64hi(1ull << 63, 10ull);
        sincospi(1.0 / 6, &z[4], &z[5]);
        z[6] = min(3, 4) + max(5u, 6u);""",
    )
    x = np.array([1.25], np.float32)
    y, z = np.zeros(10, np.float32), np.zeros(7)
    kernel((1,), (1,), (x, y, z))
    v = np.float64(1.25)
    floats = [np.exp(v), v**-0.5, 7, v, np.sin(v), np.cos(v), 1, 0, np.nextafter(x[0], x[0] + 1), 2]
    assert np.allclose(y, floats, rtol=2e-7, atol=0)
    assert y[8] == np.nextafter(x[0], np.float32(2))
    assert np.allclose(z, [np.exp(v), v**-0.5, 3, 5, 0.5, 0.75**0.5, 9], rtol=1e-15, atol=0)


def test_products_are_not_contracted() -> None:
    kernel = compiled("float* y, float a, float b, float c", "y[0] = a * b + c;")
    y, a = np.zeros(1, np.float32), np.float32(1 + 2**-12)
    kernel((1,), (1,), (y, a, a, np.float32(-1)))
    assert y[0] == a * a + np.float32(-1)


# --- errors of synchronization --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "if (threadIdx.x == 40) return;\n__syncthreads();",
            r"^k, block \(0, 0, 0\): barrier divergence: thread \(0, 0, 0\) waits at __syncthreads "
            r"in line 4, thread \(40, 0, 0\) has exited$",
        ),
        (
            "if (threadIdx.x < 32) {\n__syncthreads();\n} else {\n__syncthreads();\n}",
            r"different barriers: thread \(0, 0, 0\) waits at __syncthreads in line 4, "
            r"thread \(32, 0, 0\) waits at __syncthreads in line 6$",
        ),
        (
            "if (threadIdx.x != 3) __syncwarp();",
            r"not reached by all lanes it names: thread \(0, 0, 0\) waits at __syncwarp of lanes "
            r"0xffffffff in line 3, thread \(3, 0, 0\) has exited$",
        ),
        (
            "if (threadIdx.x < 33) __syncthreads(); else __shfl_sync(~0u, 1, 0);",
            r"thread \(33, 0, 0\) waits at a shuffle of lanes 0xffffffff in line 3, "
            r"thread \(32, 0, 0\) waits at __syncthreads in line 3$",
        ),
        (
            "if ((threadIdx.x & 31) < 16) __syncwarp(); else __syncwarp(0xffff0000u);",
            r"lanes 0xffffffff in line 3, thread \(16, 0, 0\) has exited$",
        ),
        (
            "if (threadIdx.x & 1) __any_sync(~0u, 1); else __syncwarp();",
            r"thread \(0, 0, 0\) waits at __syncwarp of .*, thread \(1, 0, 0\) waits at a vote of ",
        ),
        ("__syncwarp(0xfu);", r"its lane is not in the mask it gives in line 3$"),
        ("__shfl_xor_sync(~0u, 1, 1, 16);", r"another width than 32 is not emulated$"),
    ],
)
@each_schedule
def test_divergence(body: str, message: str, schedule: int) -> None:
    kernel = compiled("float* y", body)
    for _ in range(2):  # an error leaves nothing behind
        with pytest.raises(RuntimeError, match=message):
            kernel((1,), (64,), (np.zeros(1, np.float32),), schedule=schedule)


def test_a_warp_that_is_not_whole() -> None:
    kernel = compiled("float* y", "__shfl_xor_sync(~0u, 1, 1);")
    with pytest.raises(RuntimeError, match="the block has no lane 16 in this warp"):
        kernel((1,), (48,), (np.zeros(1, np.float32),))


def test_the_error_names_the_block() -> None:
    kernel = compiled("float* y", "if (blockIdx.y != 2 || threadIdx.x) __syncthreads();")
    with pytest.raises(RuntimeError, match=r"^k, block \(1, 2, 0\): barrier divergence: thread "):
        kernel((2, 3), (8,), (np.zeros(1, np.float32),), schedule=1)


def test_a_copied_barrier_is_the_same_one() -> None:
    """The optimizer unrolls the loop: a barrier is its line, not its machine code."""
    kernel = compiled(
        "float* y",
        """#pragma unroll
        for (int i = 0; i < 2; ++i) { if (threadIdx.x + i > 3) y[0] += 1; __syncthreads(); }""",
    )
    y = np.zeros(1, np.float32)
    kernel((1,), (8,), (y,))
    assert y[0] == 9


REVERSED = """__shared__ float tile[128];
    for (int round = 0; round < 2; ++round) {{
      tile[threadIdx.x] = x[threadIdx.x] + round;
      {first}
      y[round * 128 + threadIdx.x] = tile[(threadIdx.x + {shift}) & 127];
      {second}
    }}"""


@pytest.mark.parametrize("shift", [1, 127, 32, 96, 64, 5])
@pytest.mark.parametrize("missing", ["", "first", "second"])
def test_missing_barriers_show(missing: str, shift: int) -> None:
    barriers = {"first": "__syncthreads();", "second": "__syncthreads();"} | (
        {missing: ""} if missing else {}
    )
    kernel = compiled("const float* x, float* y", REVERSED.format(shift=shift, **barriers))
    x = np.arange(128, dtype=np.float32)
    expected = np.stack([np.roll(x, -shift), np.roll(x, -shift) + 1])

    def run(schedule: int) -> None:
        y = np.full((2, 128), np.nan, np.float32)
        kernel((1,), (128,), (x, y), schedule=schedule)
        assert (y == expected).all()

    found = outcome(run)
    assert ("wrong" in found) == bool(missing), found


@pytest.mark.parametrize("shift", [1, 31, 16])
def test_a_missing_barrier_of_a_warp_shows(shift: int) -> None:
    kernel = compiled(
        "float* y",
        f"""__shared__ float tile[32];
        tile[threadIdx.x] = threadIdx.x;
        y[threadIdx.x] = tile[(threadIdx.x + {shift}) & 31];""",
    )

    def run(schedule: int) -> None:
        y = np.zeros(32, np.float32)
        kernel((1,), (32,), (y,), schedule=schedule)
        assert (y == np.roll(np.arange(32), -shift)).all()

    assert "wrong" in outcome(run)


@each_schedule
def test_shared_memory_is_garbage_at_first(schedule: int) -> None:
    kernel = compiled(
        "double* y, int* z",
        """y[blockIdx.x * 2] = cell<double>(1); z[blockIdx.x] = int(cell<int>(0));
        y[blockIdx.x * 2 + 1] = cell<double>(1);""",
        before="""template <typename R> R cell(R value) {
          __shared__ R kept[2];
          const R old = kept[1];
          kept[1] = value;
          return old;
        }""",
    )
    for _ in range(2):
        y, z = np.zeros((3, 2)), np.zeros(3, np.int32)
        kernel((3,), (1,), (y, z), schedule=schedule)
        assert np.isnan(y[:, 0]).all()
        assert (y[:, 1] == 1).all()
        assert (z == -1).all()


def test_modules_do_not_share_variables() -> None:
    """Two sources with a template of the same name and another layout."""
    before = """using A = {A};
    template <int n> __device__ A* tile() {{ __shared__ A kept[n]; return kept; }}"""
    body = """tile<64>()[threadIdx.x] = y[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] += tile<64>()[63];"""
    for A, dtype in (("float", np.float32), ("double", np.float64), ("float", np.float32)):
        y: Array = np.arange(64, dtype=dtype)
        compiled("A* y", body, before=before.format(A=A))((1,), (64,), (y,))
        assert (y == np.arange(64) + 63).all()


# --- launches -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grid", "block", "message"),
    [
        ((0,), (1,), "the grid is empty"),
        ((1, 0), (1,), "the grid is empty"),
        ((1,), (0,), "the block is empty"),
        ((1,), (1025,), "block x or y is over 1024"),
        ((1,), (1, 1, 65), "block z is over 64"),
        ((1,), (32, 33), "over 1024 threads"),
        ((1, 65536), (1,), "grid y or z is over 65535"),
        ((1, 1, 65536), (1,), "grid y or z is over 65535"),
        ((2**31,), (1,), "grid x is over 2147483647"),
        ((2**32,), (1,), "invalid configuration"),
        ((-1,), (1,), "invalid configuration"),
    ],
)
def test_limits(grid: tuple[int, ...], block: tuple[int, ...], message: str) -> None:
    kernel = compiled("float* y", "y[0] = 1;")
    y = np.zeros(1, np.float32)
    with pytest.raises(RuntimeError, match=message):
        kernel(grid, block, (y,))
    assert y[0] == 0


def test_the_largest_block() -> None:
    kernel = compiled("int* n", "__syncthreads(); atomicAdd(n, 1); __syncthreads();")
    n = np.zeros(1, np.int32)
    kernel((2,), (64, 4, 4), (n,))
    assert n[0] == 2048


def test_launch_bounds() -> None:
    kernel = compiled(
        "int* n", "n[0] = 1;", "constexpr int MOST = 64;", bounds="__launch_bounds__(MOST, 2)"
    )
    n = np.zeros(1, np.int32)
    kernel((1,), (64,), (n,))
    with pytest.raises(RuntimeError, match="over the 64 of __launch_bounds__"):
        kernel((1,), (65,), (n,))


def test_no_dynamic_shared_memory() -> None:
    with pytest.raises(ValueError, match="dynamic shared memory"):
        compiled("int* n", "n[0] = 1;")((1,), (1,), (np.zeros(1, np.int32),), shared_mem=4)


def test_several_threads_launch() -> None:
    kernel = compiled(
        "int* y",
        """__shared__ int kept[64];
        kept[threadIdx.x] = y[threadIdx.x];
        __syncthreads();
        y[threadIdx.x] = kept[threadIdx.x ^ 1] + blockIdx.x;
        __syncthreads();""",
    )
    results = [np.arange(64, dtype=np.int32) + 100 * i for i in range(8)]
    threads = [
        threading.Thread(target=kernel, args=((500,), (64,), (y,), 0, i % 6))
        for i, y in enumerate(results)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, y in enumerate(results):
        assert (y == np.arange(64) + 100 * i + sum(range(500))).all()


def test_scheduled() -> None:
    kernel = compiled("int* y", "if (atomicAdd(y, 1) == 0) y[1] = threadIdx.x;")

    def first(schedule: int | None = None) -> int:
        y = np.zeros(2, np.int32)
        kernel((1,), (64,), (y,), schedule=schedule)
        return int(y[1])

    assert first() == 0
    with emulator.scheduled(1):
        assert first() == 63
        assert first(schedule=0) == 0
        with emulator.scheduled(4):
            assert emulator.schedule == 4
            assert first() == first()
    assert first() == 0
    assert len({first(schedule=n) for n in range(4, 20)}) > 5
    with pytest.raises(ValueError, match="no schedule -1"):
        first(schedule=-1)


# --- arguments ------------------------------------------------------------------------------------

HALVES = "struct f16 { unsigned short bits; }; struct bf16 { unsigned short bits; };"
POINTERS = [
    ("float*", np.float32),
    ("const double* __restrict__", np.float64),
    ("f16*", np.float16),
    ("f16*", np.uint16),
    ("const bf16*", ml_dtypes.bfloat16),
    ("int*", np.int32),
    ("unsigned*", np.uint32),
    ("long long*", np.int64),
    ("unsigned long long*", np.uint64),
    ("unsigned char*", np.uint8),
    ("const unsigned char*", np.bool_),
    ("bool*", np.bool_),
    ("void*", np.float32),
    ("const float* const*", np.uint64),
    ("void**", np.uint64),
]


@pytest.mark.parametrize(("cpp", "dtype"), POINTERS)
def test_arrays(cpp: str, dtype: Any) -> None:
    kernel = compiled(f"{cpp} x, unsigned long long* y", "*y = (unsigned long long)x;", HALVES)
    x, y = np.zeros(7, dtype)[3:], np.zeros((), np.uint64)
    kernel((1,), (1,), (x, y))
    assert y[()] == x.ctypes.data
    wrong = np.zeros(7, np.complex64)
    if cpp != "void*":
        with pytest.raises(TypeError, match=r"^k: argument 0 \(.*\): expected an array of "):
            kernel((1,), (1,), (wrong, y))
    with pytest.raises(TypeError, match=r"not a scalar of float32$"):
        kernel((1,), (1,), (np.float32(1), y))


def test_a_table_of_pointers() -> None:
    kernel = compiled("const float* const* x, float* y", "y[0] = x[1][2] - x[0][0];")
    a, b, y = (np.arange(3, dtype=np.float32) + n for n in (0, 10, 0))
    table = np.array([a.ctypes.data, b.ctypes.data], np.uint64)
    kernel((1,), (1,), (table, y))
    assert y[0] == 12


def test_scalars() -> None:
    kernel = compiled(
        "double* y, float f, double d, int i, long long n, unsigned u, bool b, "
        "unsigned long long w",
        "y[0] = f; y[1] = d; y[2] = i; y[3] = n; y[4] = u; y[5] = b; y[6] = w;",
    )
    y = np.zeros(7)
    typed = (np.float32(0.5), 0.25, np.int32(-3), -(2**40), np.uint32(2**32 - 1), True)
    kernel((1,), (1,), (y, *typed, np.uint64(2**63)))
    assert y.tolist() == [0.5, 0.25, -3, -(2**40), 2**32 - 1, 1, 2**63]


@pytest.mark.parametrize(
    ("cpp", "argument", "came"),
    [
        ("float", 1.0, "1.0 of type float"),
        ("float", 1, "1 of type int"),
        ("int", 1, "1 of type int"),
        ("unsigned long long", 1, "1 of type int"),
        ("long long", 1.0, "1.0 of type float"),
        ("long long", True, "True of type bool"),
        ("long long", np.int32(1), "a scalar of int32"),
        ("long long", np.uint64(1), "a scalar of uint64"),
        ("bool", 1, "1 of type int"),
        ("double", np.float32(1), "a scalar of float32"),
        ("double", np.zeros(1), "an array of float64"),
        ("float*", [1.0], r"\[1.0\] of type list"),
        ("float*", np.zeros(1), "an array of float64"),
        ("long long*", np.zeros(1, np.int32), "an array of int32"),
        ("float*", 0, "0 of type int"),
        ("double", None, "None of type NoneType"),
    ],
)
def test_wrong_arguments(cpp: str, argument: Any, came: str) -> None:
    kernel = compiled(f"int* y, {cpp} x", "y[0] = 1;")
    y = np.zeros(1, np.int32)
    with pytest.raises(TypeError, match=rf"^k: argument 1 \(.*\): expected an? .*, not {came}$"):
        kernel((1,), (1,), (y, argument))
    assert y[0] == 0


def test_wrong_counts_and_read_only_arrays() -> None:
    kernel = compiled("const float* x, float* y", "y[0] = x[0];")
    x: Array = np.ones(1, np.float32)
    x.flags.writeable = False
    y = np.zeros(1, np.float32)
    kernel((1,), (1,), (x, y))
    assert y[0] == 1
    assert kernel.num_params == 2
    assert kernel.types == ("float const*", "float*")
    with pytest.raises(TypeError, match="takes 2 arguments, 3 came"):
        kernel((1,), (1,), (x, y, y))
    with pytest.raises(TypeError, match=r"argument 1 \(float\*\): the array is read-only"):
        kernel((1,), (1,), (y, x))


# --- undefined behaviour --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "reinterpret_cast<Pack*>(y + n)[0] = reinterpret_cast<Pack*>(y + 4)[0];",
            "a misaligned access, where a multiple of 16 is needed, in line 3$",
        ),
        ("float local[4] = {}; y[0] = local[n + 3];", "index 4 is outside the array in line 3$"),
        ("__shared__ float s[2][4]; s[1][n + 3] = 0;", "index 4 is outside the array in line 3$"),
        ("y[0] = 7 / (n - 1);", "a division by zero or"),
        ("y[0] = 1 << (n + 31);", "a shift by as many bits"),
        ("y[0] = n + 2147483647;", "a signed sum overflows"),
        ("y[0] = (n + 65535) * 65536;", "a signed product overflows"),
        ("float* none = n == 1 ? nullptr : y; *none = 1;", "a null pointer is used in line 3$"),
    ],
)
@each_schedule
def test_undefined_behaviour(body: str, message: str, schedule: int) -> None:
    kernel = compiled("float* y, int n", body, "struct alignas(16) Pack { float at[4]; };")
    y: Array = np.zeros(16, np.float32)
    y = y[-y.ctypes.data % 16 // 4 :]
    if "Pack" in body:
        kernel((1,), (1,), (y, np.int32(0)), schedule=schedule)
    with pytest.raises(RuntimeError, match=r"^k, block \(0, 0, 0\): thread \(.*\): " + message):
        kernel((1,), (64,), (y, np.int32(1)), schedule=schedule)


# --- compiling ------------------------------------------------------------------------------------


def test_compiling_fails() -> None:
    with pytest.raises(RuntimeError, match=r"(?s)g\+\+ failed:.*kernels.cpp:2.*nonsense"):
        emulator.load('extern "C" __global__ void k(int* y) {\nnonsense(y); }')
    with pytest.raises(RuntimeError, match="INFINITY"):
        emulator.load('extern "C" __global__ void k(float* y) { y[0] = INFINITY; }')
    with pytest.raises(ValueError, match="does not know the option '--use_fast_math'"):
        emulator.load("", ("--use_fast_math",))
    with pytest.raises(ValueError, match="no kernel 'j', only k"):
        emulator.load('extern "C" __global__ void k(int* y) {}').get_function("j")
    passed_by_value = 'struct S { int n; }; extern "C" __global__ void k(S s) {}'
    with pytest.raises(TypeError, match="a parameter of type S is not emulated"):
        emulator.load(passed_by_value).get_function("k")


def test_signatures_over_several_lines() -> None:
    source = """
    extern "C" __global__ void __launch_bounds__(32)
    first(float* y,
          int n) {}
    extern "C" __global__ void
        second(const float* __restrict__ x,
               bool b) {}"""
    module = emulator.load(source)
    assert module.names == ("first", "second")
    assert module.get_function("first").types == ("float*", "int")
    assert module.get_function("second").types == ("float const*", "bool")


def test_definitions_and_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENSORGRAD_EMULATOR_CACHE", str(tmp_path / "cache"))
    emulator._load.cache_clear()
    source = 'extern "C" __global__ void k(int* y) { y[0] = N; }'
    for n in (5, 6, 5):
        y = np.zeros(1, np.int32)
        options = ("--std=c++17", f"-DN={n}", "--gpu-architecture=sm_90")
        emulator.load(source, options).get_function("k")((1,), (1,), (y,))
        assert y[0] == n
    assert len(list((tmp_path / "cache").glob("*.so"))) == 2


@pytest.mark.parametrize("kind", ["open", "link", "theirs"])
def test_a_cache_that_others_may_write_to(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cache"
    path.mkdir(mode=0o700)
    if kind == "open":
        path.chmod(0o770)
    elif kind == "link":
        path = path.rename(tmp_path / "elsewhere").parent / "cache"
        path.symlink_to(tmp_path / "elsewhere")
    elif os.geteuid() == 0:
        os.chown(path, 65534, -1)
    else:
        pytest.skip("only root can give files away")
    monkeypatch.setenv("TENSORGRAD_EMULATOR_CACHE", str(path))
    emulator._load.cache_clear()
    with pytest.raises(RuntimeError, match="must be a folder of the user's"):
        emulator.load('extern "C" __global__ void k(int* y) { y[0] = 7; }')


@pytest.mark.parametrize("flags", ["", "-DCUDA_ON_CPU_UCONTEXT=1"])
def test_many_switches(flags: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by the way of switching that other processors than x86-64 and aarch64 take."""
    monkeypatch.setenv("TENSORGRAD_EMULATOR_FLAGS", flags)
    source = """extern "C" __global__ void k(double* y) {
      double v = threadIdx.x;
      for (int i = 0; i < 100; ++i) {
        v += __shfl_xor_sync(~0u, v, 1) * 0.5;
        __syncthreads();
      }
      y[threadIdx.x] = v;
    }"""
    kernel = emulator.load(source).get_function("k")
    y, v = np.zeros(256), np.arange(256.0)
    kernel((1,), (256,), (y,), schedule=4)
    for _ in range(100):
        v = v + v.reshape(-1, 2)[:, ::-1].reshape(-1) * 0.5
    assert (y == v).all()
    assert kernel.switches == 256 * 201


# --- sanitizers -----------------------------------------------------------------------------------


def under_sanitizers(program: str) -> subprocess.CompletedProcess[str]:
    try:
        env = emulator.sanitizer_env()
    except RuntimeError as reason:
        pytest.skip(str(reason))
    tests = Path(__file__).parent.parent
    env["PYTHONPATH"] = os.pathsep.join([str(tests), env.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False
    )


PROGRAM = """
import numpy as np
from emulator import emulator
source = '''
struct alignas(16) Pack {{ float at[4]; }};
extern "C" __global__ void k(const float* x, float* y, int n) {{
  __shared__ float tile[64];
  tile[threadIdx.x] = 1;
  __syncthreads();
  {body}
}}'''
kernel = emulator.load(source).get_function("k")
x, y = np.ones(1000, np.float32), np.zeros(1000, np.float32)
for schedule in emulator.SCHEDULES:
    kernel((2,), (64,), (x, y, np.int32({n})), schedule=schedule)
print("sum", y.sum())
"""


@pytest.mark.parametrize(
    ("body", "good", "bad", "report"),
    [
        ("y[threadIdx.x] = x[n];", 999, 1000, "heap-buffer-overflow"),
        ("y[threadIdx.x] = x[n];", 0, -1, "heap-buffer-overflow"),
        ("y[n] = 1;", 999, 1001, "heap-buffer-overflow"),
        ("float* p = tile; asm('' : '+r'(p)); y[0] = p[n];", 63, 64, "global-buffer-overflow"),
        ("y[threadIdx.x] = tile[n];", 63, 64, "index 64 out of bounds"),
        (
            "reinterpret_cast<Pack*>(y + n)[threadIdx.x] = Pack{};", 4, 1,
            "misaligned address|which requires 16 byte alignment",
        ),
    ],
)  # fmt: skip
def test_sanitizers(body: str, good: int, bad: int, report: str) -> None:
    body = body.replace("'", '"')
    assert "sum" in (fine := under_sanitizers(PROGRAM.format(body=body, n=good))).stdout, fine
    found = under_sanitizers(PROGRAM.format(body=body, n=bad))
    assert found.returncode != 0
    assert any(part in found.stderr for part in report.split("|")), found.stderr


def test_libraries_that_are_not_in_use_keep_no_stacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process may map 65,530 pieces of memory, and the tests load some hundred libraries."""
    monkeypatch.setattr(emulator, "_MOST_WITH_STACKS", 2)
    maps = Path("/proc/self/maps")

    def pieces() -> int:
        return len(maps.read_text().splitlines())

    kernels = [
        compiled("int* seen", f"__syncthreads(); seen[threadIdx.x] = {k};") for k in range(6)
    ]
    before = pieces()
    for _ in range(2):
        for k, kernel in enumerate(kernels):
            seen = np.full(256, -1, np.int32)
            kernel((1,), (256,), (seen,))
            assert (seen == k).all()
    assert pieces() - before < 3 * 256
