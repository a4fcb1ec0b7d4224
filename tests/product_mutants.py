"""Mistakes in how products are given to cuBLAS and cublasLt, for mutate_engine.py."""

from __future__ import annotations

from mutation import Mutant, Selection

SELECTIONS = {
    "products on a GPU": Selection("tests/test_products_on_cuda.py", 3),
    "products with epilogues": Selection("tests/test_epilogues.py -k 'not twelve'", 4),
}

_GEMM = "tensorgrad/backend/gemm.py"
_LAUNCH = "tensorgrad/backend/launch"

MUTANTS: list[Mutant] = [
    Mutant(
        "rows that overlap taken for a matrix",
        _GEMM,
        "(c == 1 or columns == 1) and (r >= columns or rows == 1)",
        "(c == 1 or columns == 1)",
        "products on a GPU",
    ),
    Mutant(
        "matrices put together that do not follow one another",
        _GEMM,
        "if step == m * laid_a[1] or (m == 1 and step >= k):",
        "if True:",
        "products on a GPU",
    ),
    Mutant(
        "axes of a stack merged by the first factor alone",
        _GEMM,
        "if found and (step_a, step_b) == (inner[0] * inner[1], inner[0] * inner[2]):",
        "if found and step_a == inner[0] * inner[1]:",
        "products on a GPU",
    ),
    Mutant(
        "stride of an axis that broadcasts",
        _GEMM,
        "own = tuple(0 if n == 1 else s for",
        "own = tuple(s for",
        "products on a GPU",
    ),
    Mutant(
        "float64 multiplied in float32",
        _GEMM,
        "    if dtype == float64:\n        return _COMPUTE_64F\n",
        "    if dtype == float64:\n        return _COMPUTE_32F\n",
        "products on a GPU",
    ),
    Mutant(
        "second factor not copied",
        f"{_LAUNCH}/products.py",
        "xp.ascontiguousarray(b) if copies.b else b",
        "b",
        "products on a GPU",
    ),
    Mutant(
        "bias forgotten where a product is added to it",
        f"{_LAUNCH}/products.py",
        "beta = one if add else zero",
        "beta = zero",
        "products on a GPU",
    ),
    Mutant(
        "alignment left out of what plans are kept by",
        f"{_LAUNCH}/epilogues.py",
        "dtype, aligned, row, tf32\n        with",
        "dtype, (256,) * 5, row, tf32\n        with",
        "products with epilogues",
    ),
    Mutant(
        "address of an earlier bias",
        f"{_LAUNCH}/epilogues.py",
        "        if plan.vector[0] != vector:\n",
        "        if not plan.vector[0]:\n",
        "products with epilogues",
    ),
    Mutant(
        "rows of a mask too short",
        f"{_LAUNCH}/epilogues.py",
        "MASK, INPUT = 128, 8",
        "MASK, INPUT = 8, 8",
        "products with epilogues",
    ),
    Mutant(
        "precision of products with epilogues",
        f"{_LAUNCH}/epilogues.py",
        "lt.matmul_desc_create(compute_type(dtype, tf32),",
        "lt.matmul_desc_create(compute_type(dtype, False),",
        "products with epilogues",
    ),
    Mutant(
        "workspace of another stream",
        f"{_LAUNCH}/epilogues.py",
        "        found = self._workspaces.get(stream.ptr)\n        if found is None:\n",
        "        found = next(iter(self._workspaces.values()), None)\n        if found is None:\n",
        "products with epilogues",
    ),
    Mutant(
        "a product to come taken for the whole gradient",
        "tensorgrad/backward.py",
        "if type(d) is Postponed and (parent.position in self.gradients or not _takes(parent)):",
        "if type(d) is Postponed and not _takes(parent):",
        "products with epilogues",
    ),
    Mutant(
        "a product to come that hooks do not see",
        "tensorgrad/backward.py",
        'alone = not node.hooks and not getattr(node, "keeps_grad", False)',
        "alone = True",
        "products with epilogues",
    ),
    Mutant(
        "gradient of a bias summed over the other factor",
        f"{_LAUNCH}/products.py",
        'lt.multiply("BGRADB", _as_rows(g).T, _as_rows(x), db, tf32=tf32(xp))',
        'lt.multiply("BGRADA", _as_rows(g).T, _as_rows(x), db, tf32=tf32(xp))',
        "products with epilogues",
    ),
]
