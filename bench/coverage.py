"""How much of PyTorch's operations is here: the samples that it tests them with as the judge.

``python -m bench.coverage`` runs those of ``nn.functional``, ``--all`` those of its whole table of
operations, in float64 (integers where there is none, and complex128 besides with ``--complex``):
values, first gradients, with ``--second`` second ones, and what is overwritten, of ours against
PyTorch's. How each is called here, and which have no meaning here, ``bench.op_names`` says.
"""

from __future__ import annotations

import argparse
import math
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import tensorgrad
from bench import matrix_names, op_names
from tensorgrad.nn import functional

#: Asked for names that may not be there.
tg: Any = tensorgrad

PREFIX = "nn.functional."
#: Operations that ``torch.nn.functional`` has too, though PyTorch lists them elsewhere.
KIN = ("cdist", "log_softmax", "sigmoid", "softmax", "tanh")
#: Names of arguments that differ everywhere.
RENAMED = {"dim": "axis", "keepdim": "keepdims"}
#: Of float64, but for constants that PyTorch rounds to float32 (the 1 / 6 of hardsigmoid).
RTOL, ATOL = 1e-7, 1e-10
#: The variant of norms of zeros.
AT_ZERO = "subgradients_at_zero"
ALPHA = 1.7580993408473766  # of SELU, which alpha dropout goes with


@dataclass
class Outcome:
    """What came of the samples of one operation.

    status: "passes"; "missing", if there is no such function; "refuses", if it raises on a sample;
        "wrong", if a value or a gradient differs.
    reasons: what was found wrong, each with its sample.
    """

    name: str
    variant: str = ""
    samples: int = 0
    passed: int = 0
    status: str = "passes"
    reasons: list[str] = field(default_factory=list)

    @property
    def key(self) -> str:
        """Name and variant."""
        return f"{self.name} {self.variant}".rstrip()


def operations(everything: bool = False) -> list[Any]:
    """PyTorch's entries of its table of operations, as far as they have samples here.

    everything: whether those outside ``nn.functional`` come too, if they mean something here.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal.common_methods_invocations import op_db
    return [
        op for op in op_db
        if _dtype(op) is not None
        and (
            op.name not in op_names.WITHOUT if everything
            else (op.name.startswith(PREFIX) or op.name in KIN) and not _dtype(op).is_complex
        )
    ]  # fmt: skip


def name_of(op: Any) -> str:
    """The name in ``nn.functional``."""
    return str(op.name).removeprefix(PREFIX)


def judge(
    op: Any, most: int | None = None, second: bool = False, dtype: Any = None
) -> Outcome:  # fmt: skip
    """Compare one operation on its samples; ``most`` of them, spread over the list.

    second: whether gradients of gradients are compared too, where PyTorch has them.
    dtype: of the samples; by default float64, or else what there is.
    """
    import torch

    outcome = Outcome(name_of(op), op.variant_test_name)
    ours = _function(op)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        dtype = _dtype(op) if dtype is None else dtype
        needs = op.supports_autograd and (dtype.is_floating_point or dtype.is_complex)
        # Not ``op.sample_inputs``: that looks for the test it is called in, through all frames.
        samples = list(op.sample_inputs_func(op, "cpu", dtype, needs))
        outcome.samples = len(samples)
        if most is not None and len(samples) > most:
            samples = [samples[round(k * (len(samples) - 1) / (most - 1))] for k in range(most)]
            outcome.samples = most
        if ours is None:
            outcome.status = "missing"
            return outcome
        # PyTorch leaves these gradients out too: where indices meet, it depends on who writes last.
        # Those of its variant "grad" are different everywhere.
        values_only = outcome.name.startswith("max_unpool") and outcome.variant != "grad"
        for number, sample in enumerate(samples):
            call, here = _Call(outcome.name, sample), ours
            if not op.name.startswith(PREFIX) and op.name not in KIN:
                call.function = op.get_op()
                if op.name.startswith("linalg.") or op.name in matrix_names.CALLS:
                    call.function, here = matrix_names.judged(op, sample, ours)
            # In pieces PyTorch's has other second gradients than cross_entropy of the product.
            # Of norms at 0 there are no second ones.
            right = outcome.name != "linear_cross_entropy" and outcome.variant != AT_ZERO
            call.second = second and needs and right and op.supports_gradgrad
            _judge_sample(outcome, here, number, call, values_only)
    return outcome


def score(outcomes: Iterable[Outcome]) -> tuple[int, int]:
    """How many functions pass all samples of all variants, and how many there are."""
    fine: dict[str, bool] = {}
    for outcome in outcomes:
        fine[outcome.name] = fine.get(outcome.name, True) and outcome.status == "passes"
    return sum(fine.values()), len(fine)


def _dtype(op: Any) -> Any:
    import torch

    kinds = torch.float64, torch.int64, torch.complex128
    return next((d for d in kinds if d in op.dtypes), None)


def _function(op: Any) -> Callable[..., Any] | None:
    """Ours."""
    if op.name.startswith(PREFIX) or op.name in KIN:
        return getattr(functional, name_of(op), None)
    return op_names.ours(op.name, op.variant_test_name)


def _judge_sample(
    outcome: Outcome, ours: Callable[..., Any], number: int, call: _Call, values_only: bool
) -> None:
    if values_only:
        call.args = [x.detach() if hasattr(x, "detach") else x for x in call.args]
    told = f"sample {number}, {call}: "
    try:
        found = call.ours(ours)
    except Exception as error:  # whatever it is, the sample is not computed
        if call.function and any(t in str(error) for t in UNFIT):
            outcome.samples -= 1
            return
        outcome.reasons.append(f"{told}{type(error).__name__}: {str(error)[:200]}")
        if outcome.status == "passes":
            outcome.status = "refuses"
        return
    if call.random:
        wrong = RANDOM[outcome.name](call, found)
    else:
        wrong = _difference(_theirs(call), found, outcome.name)
    if wrong:
        outcome.reasons.append(told + wrong)
        outcome.status = "wrong"
    else:
        outcome.passed += 1


def _theirs(call: _Call) -> _Found:
    """PyTorch's results; without second gradients where it has none of this sample."""
    try:
        return call.torch()
    except RuntimeError as error:
        if not call.second or "derivative" not in str(error):
            raise
        call.second = False
        return call.torch()


@dataclass(frozen=True)
class _Found:
    """Outputs, gradients (zeros where there is none), and the arguments as the call left them."""

    outputs: list[Any]
    gradients: list[Any]
    left: list[Any]
    seconds: list[Any] = field(default_factory=list)


class _Call:
    """A sample as a call of either library."""

    def __init__(self, name: str, sample: Any) -> None:
        import torch

        args, kwargs = [sample.input, *sample.args], dict(sample.kwargs)
        if name in ("embedding", "embedding_bag"):
            args[:2] = args[1::-1]  # PyTorch's samples give the weight first
        if name.startswith("fractional") and kwargs.get("_random_samples") is None:
            n = int(name[-2])
            lead = args[0].shape[:-n] if args[0].ndim > n + 1 else (1, *args[0].shape[:-n])
            generator = torch.Generator().manual_seed(0)
            kwargs["_random_samples"] = torch.rand(
                *lead, n, dtype=torch.float64, generator=generator
            )
        if kwargs.get("dropout_p"):  # which values are left out is nobody's promise
            kwargs["dropout_p"] = 0.0
        if name == "multi_head_attention_forward":
            args[10] = 0.0
        self.name, self.args, self.kwargs = name, args, kwargs
        self.function: Any = None
        self.second = False
        p, training = kwargs.get("p", 0.5), kwargs.get("training", "dropout" in name)
        self.random = name in RANDOM and bool(training) and p not in (0, 1)

    def __str__(self) -> str:
        kwargs = [f"{k}={_shown(v)}" for k, v in self.kwargs.items()]
        return f"({', '.join([*map(_shown, self.args), *kwargs])})"

    def torch(self) -> _Found:
        """PyTorch's results."""
        import torch

        function = self.function or getattr(torch.nn.functional, self.name, None)
        function = function or getattr(torch, self.name)
        args, kwargs, given = self._copied(lambda t: t.detach().clone(), lambda x: x)
        leaves = [t.requires_grad_() for t, needed in given if needed]
        if self.name == "ctc_loss":
            args[0] = torch.nn.functional.log_softmax(args[0], -1)
        outputs = _flat(function(*args, **kwargs), torch.Tensor)
        ends = [y for y in outputs if y.requires_grad]

        def summed(tensors: list[Any]) -> Any:
            parts = [(y * torch.from_numpy(_weights(y))).sum() for y in tensors]
            return sum(p.real + p.imag if p.is_complex() else p for p in parts)

        def slopes(tensors: list[Any], again: bool) -> list[Any]:
            tensors = [y for y in tensors if y.requires_grad]
            if not tensors or not leaves:
                return [torch.zeros_like(t) for t in leaves]
            found = torch.autograd.grad(
                summed(tensors), leaves, create_graph=again, allow_unused=True
            )
            return [torch.zeros_like(t) if g is None else g for t, g in zip(leaves, found)]

        firsts = slopes(ends, self.second)
        seconds = slopes(firsts, False) if self.second else []
        return _Found(*map(_arrays, (outputs, firsts, [t for t, _ in given], seconds)))

    def ours(self, function: Callable[..., Any]) -> _Found:
        """Ours."""
        args, kwargs, given = self._copied(
            lambda t: tg.Tensor(t.detach().clone().numpy()), self._translated
        )
        leaves = [t.requires_grad_() for t, needed in given if needed]
        if self.name == "ctc_loss":  # PyTorch's gradient is right behind it alone (issue 67462)
            args[0] = functional.log_softmax(args[0], -1)
        pieces = kwargs.pop("options", None)  # of a linear layer's cross-entropy
        if pieces is not None:
            kwargs["rows"] = pieces.batch_chunk_size
        names = {key: key if self.function else RENAMED.get(key, key) for key in kwargs}
        result = function(*args, **{names[key]: value for key, value in kwargs.items()})
        outputs = _flat(result, tg.Tensor)
        ends = [y for y in outputs if y.requires_grad]

        def summed(tensors: list[Any]) -> Any:
            parts = [(y * tg.Tensor(_weights(y))).sum() for y in tensors]
            kinds = [y.dtype.kind for y in tensors]
            return sum(tg.real(p) + tg.imag(p) if k == "c" else p for k, p in zip(kinds, parts))

        def slopes(tensors: list[Any], again: bool) -> list[Any]:
            tensors = [y for y in tensors if y.requires_grad]
            if not tensors or not leaves:
                return [tg.zeros_like(t) for t in leaves]
            return list(tg.autograd.grad(summed(tensors), leaves, create_graph=again))

        firsts = slopes(ends, self.second)
        seconds = slopes(firsts, False) if self.second else []
        return _Found(*map(_arrays, (outputs, firsts, [t for t, _ in given], seconds)))

    def _copied(self, tensor: Any, other: Any) -> tuple[list[Any], dict[str, Any], list[Any]]:
        import torch

        given: list[tuple[Any, bool]] = []

        def copied(x: Any) -> Any:
            if isinstance(x, torch.Tensor):
                given.append((tensor(x), x.requires_grad))
                return given[-1][0]
            if type(x) in (tuple, list):
                return type(x)(copied(i) for i in x)
            return other(x)

        args = [copied(x) for x in self.args]
        return args, {key: copied(value) for key, value in self.kwargs.items()}, given

    @staticmethod
    def _translated(x: Any) -> Any:
        import torch

        if isinstance(x, torch.dtype):
            return getattr(tg, str(x).removeprefix("torch."))
        if isinstance(x, (torch.device, torch.memory_format, torch.layout)):
            return str(x)
        if isinstance(x, torch.Size):
            return tuple(x)
        if isinstance(x, torch.nn.PairwiseDistance):
            p, eps, keepdim = x.norm, x.eps, x.keepdim
            return lambda a, b: tg.norm(a - b + eps, p, axis=-1, keepdims=keepdim)
        return x


def _flat(result: Any, kind: type) -> list[Any]:
    if isinstance(result, kind):
        return [result]
    if isinstance(result, (bool, int, float, complex)):
        return [_scalar(kind, result)]
    return [one for part in result for one in _flat(part, kind)] if result is not None else []


def _scalar(kind: type, number: complex) -> Any:
    import torch

    return tg.Tensor(number) if kind is tg.Tensor else torch.tensor(number)


def _arrays(tensors: Iterable[Any]) -> list[Any]:
    # Copied first: PyTorch has zeros without memory and conjugates that NumPy does not know.
    return [np.array(_plain(t.detach())) for t in tensors]


def _plain(tensor: Any) -> Any:
    if str(tensor.dtype).endswith("bfloat16"):
        tensor = tensor.float() if not isinstance(tensor, tg.Tensor) else tensor.astype(tg.float32)
    return tensor.numpy() if isinstance(tensor, tg.Tensor) else tensor.numpy(force=True)


def _weights(like: Any) -> Any:
    """What an output is weighted with before it is summed: other numbers at each place."""
    shape = tuple(like.shape)
    return np.cos(1.0 + np.arange(math.prod(shape), dtype=np.float64)).reshape(shape)


def _shown(x: Any) -> str:
    import torch

    if isinstance(x, torch.Tensor):
        kind = str(x.dtype).removeprefix("torch.")
        return kind + str(tuple(x.shape)).replace(" ", "")
    if type(x) in (tuple, list):
        return f"[{', '.join(map(_shown, x))}]"
    return repr(x)


def _difference(wanted: _Found, found: _Found, name: str) -> str:
    drawn, loose = name in DRAWN, name.removeprefix("special.") in LOOSE
    whats = ("outputs", "gradients", "left", *(("seconds",) if wanted.seconds else ()))
    for what in whats:
        ours, theirs = getattr(found, what), getattr(wanted, what)
        if len(ours) != len(theirs):
            return f"{len(ours)} {what}, not {len(theirs)}"
        for number, (a, b) in enumerate(zip(ours, theirs)):
            if a.shape != b.shape:
                return f"{what} {number} of shape {a.shape}, not {b.shape}"
            # weights of float32 beside numbers of float64, as of cov, leave their mark in all
            small = any(x.dtype == np.float32 for x in wanted.left)
            rtol, atol = (1e-5, 1e-5) if loose or small else (RTOL, ATOL)
            off = ~np.isclose(a, b, rtol, atol, equal_nan=True)
            if what == "seconds":  # where PyTorch has none, as of logaddexp of two -inf, ours may
                off &= ~np.isnan(b)
            if not drawn and off.any():
                return (
                    f"{what} {number} differ in {off.sum()} of {off.size} places: "
                    f"{a[off][0]!r}, not {b[off][0]!r}"
                )
    return ""


# --- random functions: what is drawn is free, what is made of it is not -----------------------


def _dropped(call: _Call, found: _Found) -> str:
    (x,), (y,), (g,) = found.left, found.outputs, found.gradients
    if y.shape != x.shape:
        return f"output of shape {y.shape}, not {x.shape}"
    if not call.kwargs.get("training", "alpha" not in call.name):
        return "" if np.array_equal(x, y) else "outside training it is not the input"
    p = call.kwargs.get("p", 0.5)
    scale, shift, gone = 1 / (1 - p), 0.0, 0.0
    if "alpha" in call.name:
        scale = ((1 - p) * (1 + p * ALPHA**2)) ** -0.5
        shift = scale * ALPHA * p
        gone = shift - scale * ALPHA
    kept = g != 0
    wanted = np.where(kept, scale * x + shift, gone)
    if not np.allclose(y, wanted, RTOL, ATOL):
        return "kept elements are not scaled, or others not left out"
    if not np.allclose(g, kept * scale * _weights(y), RTOL, ATOL):
        return "the gradient is not that of the mask"
    axes = {"dropout2d": x.ndim - 2, "dropout3d": min(3, x.ndim - 1)}.get(call.name, 0)
    if call.name == "feature_alpha_dropout":
        axes = x.ndim - 2
    if axes > 0 and (np.ptp(kept * 1, axis=tuple(range(-axes, 0))) != 0).any():
        return "channels are left out in part"
    units = x.size // max(math.prod(x.shape[-axes:]) if axes else 1, 1)
    if units >= 20 and kept.mean() in (0, 1):  # by chance once in a million samples
        return "all elements or none are left out"
    return ""


def _leaked(call: _Call, found: _Found) -> str:
    (x,), (y,), (g,) = found.left, found.outputs, found.gradients
    low, high = call.kwargs.get("lower", 1 / 8), call.kwargs.get("upper", 1 / 3)
    slopes = g / _weights(y)
    below = slopes[x < 0]
    if not np.allclose(y, slopes * x, RTOL, ATOL):
        return "output and gradient have different slopes"
    if not np.allclose(slopes[x > 0], 1, RTOL, ATOL):
        return "positive numbers are changed"
    inside = (below >= low).all() and (below <= high).all()
    return "" if inside and np.unique(below).size == below.size else "slopes are not drawn"


#: Samples that break NumPy's rules, and are refused with these words.
UNFIT = (
    "absent: the tensor has no axes", "too many indices; got 1 for shape ()",
    "list assignment index out of range", "concat: axis must be between -1 and 0",
    "tensordot: the axes that meet", "indices must have as many axes as the tensor",
)  # fmt: skip
#: Functions that PyTorch computes to 6 digits, by rational functions of another range than theirs.
LOOSE = frozenset({"airy_ai", "bessel_j0", "bessel_j1", "bessel_y0", "bessel_y1"})
#: Of these shapes can be compared, and nothing else.
DRAWN = frozenset({
    "bernoulli", "empty", "empty_like", "multinomial", "new_empty", "normal", "rand_like",
    "randint", "randint_like", "randn", "randn_like",
})  # fmt: skip

RANDOM: dict[str, Callable[[_Call, _Found], str]] = {
    "alpha_dropout": _dropped,
    "dropout": _dropped,
    "dropout2d": _dropped,
    "dropout3d": _dropped,
    "feature_alpha_dropout": _dropped,
    "rrelu": _leaked,
}


# --- the command ----------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what came of each operation, and the score. Returns 1 if a value is wrong."""
    parser = argparse.ArgumentParser(prog="python -m bench.coverage", description=__doc__)
    parser.add_argument("--samples", type=int, metavar="N", help="at most N of each operation")
    parser.add_argument("--name", default="", metavar="TEXT", help="operations with TEXT in them")
    parser.add_argument("--reasons", type=int, default=2, metavar="N", help="shown of each")
    parser.add_argument("--all", action="store_true", help="not nn.functional alone")
    parser.add_argument("--second", action="store_true", help="gradients of gradients too")
    parser.add_argument("--complex", action="store_true", help="samples of complex128")
    options = parser.parse_args(arguments)
    import torch

    dtype = torch.complex128 if options.complex else None
    outcomes = []
    for op in operations(options.all):
        if options.name in op.name and (dtype is None or dtype in op.dtypes):
            outcome = judge(op, options.samples, options.second, dtype)
            outcomes.append(outcome)
            print(f"{outcome.status:8}  {outcome.passed:4} of {outcome.samples:4}  {outcome.key}")
            for reason in outcome.reasons[: options.reasons]:
                print(f"          {reason}")
    count = dict.fromkeys(("passes", "missing", "refuses", "wrong"), 0)
    for outcome in outcomes:
        count[outcome.status] += 1
    passed, total = score(outcomes)
    variants = ", ".join(f"{number} {status}" for status, number in count.items())
    print(f"\n{passed} of {total} functions pass all their samples; with variants: {variants}")
    return 1 if count["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
