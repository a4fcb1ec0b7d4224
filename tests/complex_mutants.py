"""Mistakes in complex numbers and Fourier transforms, and the tests that have to find them."""

from __future__ import annotations

from mutation import Mutant, Selection

SELECTIONS: dict[str, Selection] = {
    "complex gradients": Selection(
        "tests/autograd/test_complex_gradients.py -k 'not random and not compiled'", 5
    ),
    "complex rows": Selection(
        "tests/ops/test_complex.py -k 'test_gradients and (pow or sign or abs or angle or asinh)'",
        3,
    ),
    "complex numbers": Selection("tests/ops/test_complex_numbers.py", 3),
    "transforms": Selection("tests/ops/test_fourier.py -k 'gradients or axis'", 4),
    "standard": Selection("tests/ops/test_array_api.py", 2),
}

_BACKWARD, _TAPE, _DTYPES = "tensorgrad/backward.py", "tensorgrad/tape.py", "tensorgrad/dtypes.py"
_PARTS, _ELEMENTWISE = "tensorgrad/ops/complex_parts.py", "tensorgrad/ops/elementwise.py"
_FOURIER, _TENSOR = "tensorgrad/ops/fourier.py", "tensorgrad/tensor.py"

MUTANTS: list[Mutant] = [
    Mutant(
        "gradients leave without conjugation",
        _BACKWARD,
        "        return _shown(node, conjugate(g), dispatched)\n",
        "        return _shown(node, g, dispatched)\n",
        "complex gradients",
    ),
    Mutant(
        "targets are given what the pass carries",
        _BACKWARD,
        "self.found[node] = conjugate(g)",
        "self.found[node] = g",
        "complex gradients",
    ),
    Mutant(
        "a given gradient enters without conjugation",
        _TENSOR,
        "return conjugate(gradient)",
        "return gradient",
        "complex gradients",
    ),
    Mutant(
        "what hooks put in its place is not conjugated back",
        _BACKWARD,
        "return conjugate(_shown(node, conjugate(g), dispatched))",
        "return _shown(node, conjugate(g), dispatched)",
        "complex gradients",
    ),
    Mutant(
        "the imaginary part's gradient turned the other way",
        _PARTS,
        '{"x": lambda g: complex(zero(g), -g)}',
        '{"x": lambda g: complex(zero(g), g)}',
        "complex gradients",
    ),
    Mutant(
        "conj passes gradients on",
        _PARTS,
        '{"x": lambda g: conj(g)}',
        '{"x": lambda g: g}',
        "complex gradients",
    ),
    Mutant(
        "the slope of a length not conjugated",
        _ELEMENTWISE,
        '{"x": lambda g, x: g * conj(sign(x))}',
        '{"x": lambda g, x: g * sign(x)}',
        "complex rows",
    ),
    Mutant(
        "the direction of a number turned the other way",
        _ELEMENTWISE,
        "return where(none, 0.0, turned * 1j)",
        "return where(none, 0.0, turned * -1j)",
        "complex rows",
    ),
    Mutant(
        "real numbers beside complex ones widen them",
        _DTYPES,
        "return complex_of(parts[0] if len(parts) == 1 else _pair(*parts))",
        "return complex128",
        "complex numbers",
    ),
    Mutant(
        "complex numbers become real by themselves",
        _TAPE,
        'if x.dtype.kind == "c" and dtype.kind != "c":',
        'if x.dtype.kind == "f" and dtype.kind == "c":',
        "complex numbers",
    ),
    Mutant(
        "a transform's gradient by its inverse",
        _FOURIER,
        "_transformed(g, axes, inverse, norm)}",
        "_transformed(g, axes, not inverse, norm)}",
        "transforms",
    ),
    Mutant(
        "the last of a spectrum of even length counted twice",
        _FOURIER,
        "if n % 2 == 0:",
        "if n % 2 == 1:",
        "transforms",
    ),
    Mutant(
        "the norm of a real transform's gradient",
        _FOURIER,
        '{"axis": axis, "norm": _OTHER[norm]}',
        '{"axis": axis, "norm": norm}',
        "transforms",
    ),
    Mutant(
        "quotients of infinities as NumPy has them",
        _ELEMENTWISE,
        "if xp is np and np.isfinite(x1).all() and np.isfinite(x2).all():",
        "if xp is np:",
        "standard",
    ),
]
