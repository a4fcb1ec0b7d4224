"""Every kernel compiles without spills or warnings; no GPU is needed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kernels import compile_all
from tensorgrad.backend import kernels

ARCHITECTURES = compile_all.ARCHITECTURES

needs_nvrtc = pytest.mark.skipif(
    compile_all.missing() is not None, reason=str(compile_all.missing())
)

# 40 sums that all stay in use until the end, so that few registers cannot hold them.
MANY_VALUES = """
extern "C" __global__ void many_values(const float* x, float* y) {
  float sums[40];
#pragma unroll
  for (int i = 0; i < 40; ++i) sums[i] = x[threadIdx.x + 64 * i];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 40; ++i) y[threadIdx.x + 64 * i] = sums[i] * sums[(i * 7 + 3) % 40];
}
"""

LOG = """
ptxas info    : 8 bytes gmem
ptxas info    : Compiling entry function 'tile' for 'sm_90'
ptxas info    : Function properties for tile
ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 64 registers, used 1 barriers, 16896 bytes smem, 400 bytes cmem[0]
ptxas info    : Compile time = 17.197 ms
ptxas info    : Compiling entry function 'wide' for 'sm_90'
ptxas info    : Function properties for wide
ptxas         .     104 bytes stack frame, 108 bytes spill stores, 112 bytes spill loads
ptxas info    : Used 255 registers, used 0 barriers, 104 bytes cumulative stack size
ptxas info    : Function properties for called
ptxas         .     8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads
"""


@needs_nvrtc
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("family", kernels.families())
def test_family_compiles_without_spills_or_warnings(family: str, dtype: str) -> None:
    """For one architecture; compile_all.py, which .ci/run calls besides, does it for all."""
    assert kernels.kernel_names(family)
    result = compile_all.compile_family((family, dtype, 90))
    assert result.failures() == [], result.title
    assert set(kernels.kernel_names(family)) <= set(result.usage)


@pytest.mark.parametrize("family", kernels.families())
def test_macros_of_kernels_are_put_in(family: str) -> None:
    """As the preprocessor would do it: no part of them is left, and each name is there once."""
    text, names = kernels.source(family), kernels.kernel_names(family)
    assert "##" not in text
    assert names
    assert len(set(names)) == len(names) == text.count("__global__")
    for name in names:
        assert text.count(f" {name}(") + text.count(f"\n{name}(") == 1


def test_what_a_macro_makes() -> None:
    assert {"gelu_tanh_forward", "gelu_backward"} <= set(kernels.kernel_names("activation"))
    assert "forward(GeluTanh<A>{parameter}, x, y, n);" in kernels.source("activation")
    assert "take_rows_32(const T* x, const int* index," in kernels.source("indexing")


def test_the_log_is_read() -> None:
    assert compile_all.parse(LOG) == {
        "tile": compile_all.Usage(64, 16896, 0, 0, 0),
        "wide": compile_all.Usage(255, 0, 104, 108, 112),
        "called": compile_all.Usage(0, 0, 8, 4, 12),
    }
    assert compile_all.parse("") == {}


@pytest.mark.parametrize("lost", ["Used 255", "Function properties for wide", "104 bytes stack"])
def test_a_log_of_another_form_is_refused(lost: str) -> None:
    log = "\n".join(line for line in LOG.splitlines() if lost not in line)
    with pytest.raises(ValueError, match=r"255 registers|how many registers wide|104 bytes"):
        compile_all.parse(log)


@needs_nvrtc
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_spill_is_a_failure(arch: int) -> None:
    assert compile_all.compile_source(MANY_VALUES, "float32", arch).failures() == []
    result = compile_all.compile_source(MANY_VALUES, "float32", arch, ["--maxrregcount=24"])
    (failure,) = result.failures()
    use = result.usage["many_values"]
    assert use.spill_stores > 0
    assert use.spill_loads > 0
    assert f"many_values spills registers: {use.spill_stores} bytes of stores" in failure


@needs_nvrtc
def test_a_frame_without_spills_is_a_note() -> None:
    result = compile_all.compile_source(
        """
        extern "C" __global__ void indexed(const int* where, float* y) {
          float table[32];
          for (int i = 0; i < 32; ++i) table[i] = y[i * where[i]];
          for (int i = 0; i < 32; ++i) y[i] = table[where[i] & 31];
        }
        """,
        "float32",
        90,
    )
    assert result.failures() == []
    assert result.notes() == ["indexed has a stack frame of 128 bytes"]


PACKS = """
struct alignas(16) Pack { float at[4]; };
extern "C" __global__ void doubled(const Pack* __restrict__ x, Pack* __restrict__ y, int n) {
  for (int i = threadIdx.x; i < n; i += blockDim.x) {
    const Pack in = x[i];
    Pack out;
    for (int k = 0; k < 4; ++k) out.at[k] = in.at[k] * 2.0f;
    WRITE
  }
}
"""


@needs_nvrtc
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_pack_that_is_written_by_elements_is_a_failure(arch: int) -> None:
    whole = compile_all.compile_source(PACKS.replace("WRITE", "y[i] = out;"), "float32", arch)
    assert whole.failures() == []
    assert whole.accesses["doubled"].loads == whole.accesses["doubled"].stores > 0
    parts = "for (int k = 0; k < 4; ++k) *(volatile float*)&y[i].at[k] = out.at[k];"
    torn = compile_all.compile_source(PACKS.replace("WRITE", parts), "float32", arch)
    (failure,) = torn.failures()
    count = torn.accesses["doubled"].torn
    assert count >= 4
    assert failure == f"doubled writes packs of elements by {count} single stores"


def test_ptx_is_read() -> None:
    found = compile_all.accesses(
        ".visible .entry f(\n\t.param .u64 f_param_0\n)\n{\n"
        "\tld.param.u64 %rd1, [f_param_0];\n\tld.global.nc.v4.f32 {%f1}, [%rd1];\n"
        "\tst.shared.f32 [%r1], %f1;\n\tld.v2.f64 {%d1, %d2}, [%rd2];\n"
        "\t@%p1 bra \t$L__BB0_2;\n\tst.global.f32 [%rd1], %f1;\n"
        "$L__BB0_2:\n\tst.global.v4.b32 [%rd1], {%r1};\n\tst.u16 [%rd3], %rs1;\n\tret;\n}\n"
    )
    assert found == {"f": compile_all.Accesses(2, 1, 1)}


@needs_nvrtc
def test_functions_that_are_called_are_read_too() -> None:
    result = compile_all.compile_source(
        'extern "C" __global__ void f(double* y) { y[threadIdx.x] = sin(y[threadIdx.x]); }',
        "float64",
        75,
        expected=("f",),
    )
    assert result.failures() == []
    assert len(result.usage) > 1
    assert result.usage["f"].registers > 0


@needs_nvrtc
@pytest.mark.parametrize(
    ("source", "message"),
    [
        ('extern "C" __global__ void f(float* y) { y[0] = undeclared; }', "undeclared"),
        ('#include <cuda_fp16.h>\nextern "C" __global__ void f() {}', "cuda_fp16"),
        ('extern "C" __global__ void f(float* y) { int unused; y[0] = 0; }', "unused"),
        ('extern "C" __global__ void f() { __shared__ float tile[20000]; tile[0] = 1; }', ""),
    ],
    ids=["error", "header", "warning", "shared-memory"],
)
def test_errors_and_warnings_are_failures(source: str, message: str) -> None:
    result = compile_all.compile_source(source, "float32", 75)
    assert message in "\n".join(result.failures())
    assert len(result.failures()) == 1


@needs_nvrtc
def test_a_kernel_that_is_not_in_the_cubin_is_a_failure() -> None:
    result = compile_all.compile_source(
        MANY_VALUES, "float32", 75, expected=("many_values", "many")
    )
    assert list(compile_all.machine_code(result.cubin)) == ["many_values"]
    assert result.failures() == ["many has no code in the result"]
    other = compile_all.compile_source(MANY_VALUES.replace("many", "more"), "float32", 75)
    swapped = replace(result, cubin=other.cubin, expected=("many_values",))
    assert swapped.failures() == ["many_values has no code in the result"]


@needs_nvrtc
def test_the_script_says_what_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["--maxrregcount=24"]
    names = ("many_values",)
    results = [
        compile_all.compile_source(MANY_VALUES, "float32", arch, few, family="many", expected=names)
        for arch in (75, 80)
    ]

    class Pool:
        def __init__(self, *_: object) -> None: ...

        def __enter__(self) -> Pool:
            return self

        def __exit__(self, *_: object) -> None: ...

        def map(self, *_: object) -> list[compile_all.Result]:
            return results

    monkeypatch.setattr(compile_all, "ProcessPoolExecutor", Pool)
    assert compile_all.main(["--arch", "75", "80"]) == 1
    out, err = capsys.readouterr()
    assert "FAILED: many.cu, float32, sm_75" in err
    row = next(line for line in out.splitlines() if line.startswith("many_values"))
    assert row.split() == ["many_values", "float32", "24/0", "0+0", "24/0", "0+0", "2", "0"]


@needs_nvrtc
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_cupy_compiles_a_family_to_the_same_code(
    dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is checked here is what a RawModule loads: CuPy adds options of its own."""
    from cupy.cuda import compiler

    loaded: list[bytes] = []

    class Module:
        def load(self, cubin: bytes) -> None:
            loaded.append(cubin)

        def _set_mapping(self, mapping: Any) -> None: ...

    class Cache:
        def load(self, name: str) -> None: ...

        def save(self, name: str, cubin: bytes, source: str) -> None: ...

    # Loading asks for a driver, and so does the choice of an option by device.
    monkeypatch.setattr(compiler.function, "Module", Module)
    monkeypatch.setattr(compiler, "_kernel_cache_backend", Cache())
    monkeypatch.setattr(
        compiler,
        "_get_arch_for_options_for_nvrtc",
        lambda arch: (f"-arch=sm_{arch}", "cubin"),
    )
    family = kernels.families()[0]
    compiler._compile_module_with_cache(
        kernels.source(family), kernels.options(dtype), arch="90", backend="nvrtc"
    )
    ours = compile_all.compile_family((family, dtype, 90)).cubin
    (theirs,) = loaded
    # The rest of the file names the options and the file that was compiled.
    assert compile_all.machine_code(theirs) == compile_all.machine_code(ours)
