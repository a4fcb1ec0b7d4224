"""Derivatives as functions: grad, vjp, jvp, jacobian, hessian, hvp (the names of PyTorch's)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tensorgrad import ops
from tensorgrad.autograd.modes import enable_grad
from tensorgrad.backward import run_backward
from tensorgrad.dtypes import COMPLEX
from tensorgrad.errors import DtypeError, GradientError, ShapeError
from tensorgrad.ops.indexing import assign_at
from tensorgrad.tape import Leaf, Node, wrap
from tensorgrad.tensor import Tensor

Tensors = Tensor | Sequence[Tensor]


def _as_tuple(name: str, value: Tensors) -> tuple[Tensor, ...]:
    found = (value,) if isinstance(value, Tensor) else tuple(value)
    for x in found:
        if not isinstance(x, Tensor):
            raise TypeError(f"{name} must be a tensor or a sequence of tensors, got {type(x)}")
    return found


def _zeros_like(x: Tensor) -> Tensor:
    return ops.zeros_like(x)


def grad(
    outputs: Tensors,
    inputs: Tensors,
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    create_graph: bool = False,
    retain_graph: bool | None = None,
) -> tuple[Tensor, ...]:
    """The gradients of ``outputs`` with respect to ``inputs``, without touching any ``.grad``.

    outputs: one or more tensors; several are differentiated as their sum, weighted by
        ``grad_outputs``.
    inputs: tensors that require a gradient, leaves or computed ones.
    grad_outputs: the gradient of each output, of its shape; needed for outputs of more than one
        element.
    create_graph: record this computation too, so that its result can be differentiated again.
    retain_graph: keep the saved values for another pass; the same as ``create_graph`` if None.
    Returns a tuple with one gradient per input, of its shape and dtype; zeros where the outputs
        do not depend on it.

    Raises GradientError if an output or an input does not require a gradient.
    """
    outs = _as_tuple("outputs", outputs)
    ins = _as_tuple("inputs", inputs)
    if grad_outputs is None or isinstance(grad_outputs, Tensor):
        weights: tuple[Tensor | None, ...] = (grad_outputs,) * len(outs)
        if grad_outputs is not None and len(outs) > 1:
            raise ShapeError("grad: several outputs need a sequence of grad_outputs")
    else:
        weights = tuple(grad_outputs)
    if len(weights) != len(outs):
        raise ShapeError(f"grad: {len(outs)} outputs need as many grad_outputs, got {len(weights)}")
    targets: list[Node] = []
    for i, x in enumerate(ins):
        if x.node is None:
            raise GradientError(
                f"grad: input number {i} does not require a gradient; make it with "
                "requires_grad=True before computing the outputs"
            )
        targets.append(x.node)
    seeds = []
    for out, weight in zip(outs, weights):
        node = out._recorded_for_backward()
        seed = out._seed(weight)
        seeds.append((node, seed if create_graph else seed.data))
    found = run_backward(
        seeds,
        create_graph=create_graph,
        retain_graph=create_graph if retain_graph is None else retain_graph,
        targets=targets,
    )
    gradients = []
    for x, target in zip(ins, targets):
        g = found.get(target)
        if g is None:
            g = _zeros_like(x)
        gradients.append(g if isinstance(g, Tensor) else wrap(g, None))
    return tuple(gradients)


def _fresh(inputs: Tensors, create_graph: bool) -> tuple[Tensor, ...]:
    """The inputs as tensors of their own; still connected to the originals if asked."""
    fresh = []
    for x in _as_tuple("inputs", inputs):
        if create_graph and x.requires_grad:
            fresh.append(ops.reshape(x, x.shape))
        else:
            fresh.append(wrap(x.data, Leaf(x.shape, x.dtype)))
    return tuple(fresh)


def _call(
    function: Callable[..., Tensors], inputs: Tensors, create_graph: bool
) -> tuple[tuple[Tensor, ...], Tensors, tuple[Tensor, ...]]:
    fresh = _fresh(inputs, create_graph)
    outputs = function(*fresh)
    return fresh, outputs, _as_tuple("what the function returns", outputs)


def _like(template: Tensors, values: Sequence[Any]) -> Any:
    return values[0] if isinstance(template, Tensor) else tuple(values)


def _detached(outputs: Tensors, create_graph: bool) -> Any:
    if create_graph:
        return outputs
    return _like(outputs, [x.detach() for x in _as_tuple("outputs", outputs)])


def _weights(v: Any, outs: Sequence[Tensor], name: str) -> list[Any]:
    if v is None:
        return [None] * len(outs)
    weights = [v] if isinstance(v, Tensor) else list(v)
    if [w.shape for w in weights] != [o.shape for o in outs]:
        raise ShapeError(
            f"{name}: v must have the shapes {[o.shape for o in outs]}; got "
            f"{[w.shape for w in weights]}"
        )
    return weights


def _grad_or_zeros(
    outs: Sequence[Tensor], ins: Sequence[Tensor], weights: Sequence[Any], create_graph: bool,
    retain_graph: bool | None = None,
) -> tuple[Tensor, ...]:  # fmt: skip
    """``grad`` where outputs that do not depend on anything count as constant."""
    used = [(o, w) for o, w in zip(outs, weights) if o.requires_grad]
    if not used:
        return tuple(_zeros_like(x) for x in ins)
    return grad([o for o, _ in used], ins, [w for _, w in used], create_graph, retain_graph)


def vjp(
    function: Callable[..., Tensors], inputs: Tensors, v: Any = None, create_graph: bool = False
) -> tuple[Any, Any]:
    """The value of ``function(*inputs)`` and the product of ``v`` with its Jacobian.

    v: as many tensors as the function returns, of the same shapes; may be left out if it returns
        a single number. The products have the shapes of the inputs.
    """
    with enable_grad():
        ins, outputs, outs = _call(function, inputs, create_graph)
        gradients = _grad_or_zeros(outs, ins, _weights(v, outs, "vjp"), create_graph)
    return _detached(outputs, create_graph), _like(inputs, gradients)


def jvp(
    function: Callable[..., Tensors], inputs: Tensors, v: Any = None, create_graph: bool = False
) -> tuple[Any, Any]:
    """The value of ``function(*inputs)`` and the product of its Jacobian with ``v``.

    v: as many tensors as there are inputs, of the same shapes; may be left out if the only input
        is a single number. The products have the shapes of the outputs. Computed by two reverse
        passes: the vector-Jacobian product is linear in its vector, and its derivative with
        respect to that vector is the Jacobian-vector product.
    """
    with enable_grad():
        ins, outputs, outs = _call(function, inputs, create_graph)
        weights = _weights(v, ins, "jvp")
        if v is None:
            if any(x.size != 1 for x in ins):
                raise ShapeError("jvp: inputs of more than one element need v, of their shapes")
            weights = [ops.zeros_like(x) + 1.0 for x in ins]
        dummies = [wrap(_zeros_like(o).data, Leaf(o.shape, o.dtype)) for o in outs]
        pulled = _grad_or_zeros(outs, ins, dummies, True)
        tangents = _grad_or_zeros(pulled, dummies, weights, create_graph)
    return _detached(outputs, create_graph), _like(outputs, tangents)


def jacobian(function: Callable[..., Tensor], inputs: Tensors, create_graph: bool = False) -> Any:
    """All derivatives of ``function(*inputs)``: output shape followed by input shape.

    One tensor for a single input, a tuple of them for a sequence of inputs. One reverse pass per
    element of the output, which must be real.
    """
    with enable_grad():
        ins, outputs, outs = _call(function, inputs, create_graph)
        if len(outs) != 1 or not isinstance(outputs, Tensor):
            raise TypeError("jacobian: the function must return one tensor")
        out = outs[0]
        if out.dtype in COMPLEX:
            raise DtypeError(
                "jacobian: a complex result changes in two directions with each number; "
                "differentiate its tg.real(y) and tg.imag(y), or use vjp and jvp"
            )
        rows: list[tuple[Tensor, ...]] = []
        for i in range(out.size):
            weight = _zeros_like(out)
            assign_at(ops.reshape(weight, (-1,)), i, 1.0)
            rows.append(_grad_or_zeros([out], ins, [weight], create_graph, True))
        parts = []
        for k, x in enumerate(ins):
            if rows:
                part = ops.reshape(ops.stack([r[k] for r in rows]), out.shape + x.shape)
            else:
                part = _zeros_like(ops.broadcast_to(ops.reshape(x, (-1,))[:0], (0,)))
                part = ops.reshape(part, out.shape + x.shape)
            parts.append(part)
    return _like(inputs, parts)


def hessian(function: Callable[..., Tensor], inputs: Tensors, create_graph: bool = False) -> Any:
    """The second derivatives of a function that returns a single number.

    For one input of shape ``s`` a tensor of shape ``s + s``; for a sequence a tuple of tuples,
    [i][j] differentiated by input i, then by input j.
    """

    def gradient_of(i: int) -> Callable[..., Tensor]:
        def gradient(*args: Tensor) -> Tensor:
            out = _single(function(*args), "hessian")
            return _grad_or_zeros([out], args, [None], True)[i]

        return gradient

    count = 1 if isinstance(inputs, Tensor) else len(inputs)
    rows = [jacobian(gradient_of(i), inputs, create_graph) for i in range(count)]
    return rows[0] if isinstance(inputs, Tensor) else tuple(rows)


def hvp(
    function: Callable[..., Tensor], inputs: Tensors, v: Any, create_graph: bool = False
) -> tuple[Any, Any]:
    """The value of a function that returns a single number, and its Hessian times ``v``.

    v: as many tensors as there are inputs, of the same shapes. Two reverse passes, whatever the
    size of the Hessian.
    """
    with enable_grad():
        ins, outputs, outs = _call(function, inputs, create_graph)
        out = _single(outs[0], "hvp")
        gradients = _grad_or_zeros([out], ins, [None], True)
        products = _grad_or_zeros(gradients, ins, _weights(v, ins, "hvp"), create_graph)
    return _detached(outputs, create_graph), _like(inputs, products)


def _single(out: Any, name: str) -> Tensor:
    if not isinstance(out, Tensor) or out.size != 1:
        shape = getattr(out, "shape", type(out))
        raise ShapeError(f"{name}: the function must return a single number, got {shape}")
    return out
