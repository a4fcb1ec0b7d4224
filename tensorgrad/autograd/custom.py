"""Operations of the user's own, defined as the library's are: a value and gradient rules."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from tensorgrad import dtypes
from tensorgrad.backend.base import Value
from tensorgrad.backend.namespace import Namespace
from tensorgrad.tape import Primitive, apply, cast, parameters_of, real_part


def custom_operation(
    value: Callable[..., Any] | None = None, /, **rules: Callable[..., Any] | None
) -> Callable[..., Any]:
    """Make an operation from its value and one gradient rule per tensor input.

    value: computes the result from arrays (NumPy on the CPU, CuPy on a GPU). If its first
        parameter is called ``xp`` it is given the array module. Parameters without a rule are
        options: numbers, strings or tuples.
    rules: by the name of the input, how the gradient of the result becomes that of the input;
        ``None`` for an input that has none (integer labels, a mask). A rule's first parameter is
        the gradient of the result. By their names the others are given the inputs, the result
        ``y``, an input's shape (``x_shape``), or an option. Written with operators and tensorgrad
        functions it can be differentiated again, to any order.

    Of complex numbers a rule pairs gradients without conjugation, ``real(g * d)`` being what a
    change ``d`` makes: where the function has a complex derivative it is that of real numbers.

    Returns the operation, to be called like ``value`` without ``xp``. Usable as a decorator::

        @custom_operation(x=lambda g, x: g * 3 * x**2)
        def cube(x):
            return x**3

    ``cube.cuda(function)``, also a decorator, makes ``function`` compute the value on CUDA, from
    CuPy arrays in the place of ``value``: there a kernel of one's own can be launched. A rule gets
    a kernel by calling another custom operation. The dtypes and strides are those of the caller's
    arrays, so a kernel that wants others has to convert.

    Raises TypeError if a rule names something that is not there.
    """
    if value is None:
        return lambda function: custom_operation(function, **rules)
    import inspect  # 10 ms, which a program without custom operations need not spend

    parameters = list(inspect.signature(value).parameters)
    takes_xp = parameters[:1] == ["xp"]
    names = parameters[1:] if takes_xp else parameters
    name = getattr(value, "__name__", "custom")
    inputs = [n for n in names if n in rules]
    options = [n for n in names if n not in rules]
    _check(name, rules, names, options)

    def called(function: Callable[..., Any], arrays: Any, attrs: Any) -> Any:
        arguments = dict(zip(inputs, arrays)) | attrs
        positional = [arguments[n] for n in names if n not in keyword_only]
        return function(*positional, **{n: arguments[n] for n in keyword_only})

    kernels: list[Callable[..., Any]] = []

    def compute(xp: Any, *arrays: Any, **attrs: Any) -> Any:
        if kernels and isinstance(xp, Namespace) and not xp.on_host:
            xp.refuse("it has a kernel of its own")
        if kernels and xp is not np and not isinstance(xp, Namespace):
            return called(kernels[-1], arrays, attrs)
        return called(functools.partial(value, xp) if takes_xp else value, arrays, attrs)

    signature = inspect.signature(value)
    keyword_only = [
        n for n in names if signature.parameters[n].kind is inspect.Parameter.KEYWORD_ONLY
    ]
    if takes_xp:
        signature = signature.replace(parameters=list(signature.parameters.values())[1:])
    function: Value = compute
    given = {n: rules[n] for n in inputs}
    op = Primitive(
        name,
        function,
        {n: None if rule is None else _careful(name, n, rule) for n, rule in given.items()},
        source=value,
        complex=Primitive(
            name,
            function,
            {n: None if rule is None else _of_complex(name, n, rule) for n, rule in given.items()},
            source=value,
            complex=True,
        ),
    )

    @functools.wraps(value)
    def call(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments
        return apply(op, [given[n] for n in inputs], {n: given[n] for n in options})

    def cuda(kernel: Callable[..., Any]) -> Callable[..., Any]:
        kernels.append(kernel)
        return kernel

    call.primitive = op  # type: ignore[attr-defined]
    call.cuda = cuda  # type: ignore[attr-defined]
    call.__signature__ = signature  # type: ignore[attr-defined]
    return call


def _check(name: str, rules: Any, names: list[str], options: list[str]) -> None:
    unknown = [n for n in rules if n not in names]
    if unknown or not rules:
        raise TypeError(
            f"custom_operation {name}: rules must be given for inputs of {name}({', '.join(names)})"
            f"; got rules for {', '.join(unknown) or 'none of them'}"
        )
    known = {"y", *names} | {f"{n}_shape" for n in rules} | {f"{n}_dtype" for n in rules}
    for n, rule in rules.items():
        if rule is None:
            continue
        wanted = parameters_of(rule)[1:]
        missing = [w for w in wanted if w not in known]
        if missing:
            raise TypeError(
                f"custom_operation {name}: the rule for {n!r} asks for {', '.join(missing)}; it "
                f"can have the gradient first, then any of {', '.join(sorted(known))}"
            )


def _careful(name: str, n: str, rule: Callable[..., Any]) -> Callable[..., Any]:
    """The rule, with a result of the incoming gradient's dtype: no silent float64."""

    @functools.wraps(rule)
    def checked(g: Any, *args: Any) -> Any:
        d = _checked(name, n, rule(g, *args))
        if d.dtype == g.dtype and d.dtype not in dtypes.COMPLEX:
            return d
        return cast(real_part(d), dtypes.real_of(g.dtype))  # complex if the result is

    return checked


def _of_complex(name: str, n: str, rule: Callable[..., Any]) -> Callable[..., Any]:
    """The rule where inputs are complex: the gradient of those that are is, of others real."""

    @functools.wraps(rule)
    def checked(g: Any, *args: Any) -> Any:
        *args, dtype = args  # type: ignore[assignment]
        d = _checked(name, n, rule(g, *args))
        if dtype in dtypes.COMPLEX:
            return cast(d, dtypes.complex_of(g.dtype))
        return cast(real_part(d), dtypes.real_of(g.dtype))

    from inspect import Parameter, Signature

    names = [*parameters_of(rule), f"{n}_dtype"]
    kind = Parameter.POSITIONAL_ONLY
    checked.__signature__ = Signature(  # type: ignore[attr-defined]
        [Parameter(name, kind) for name in names]
    )
    return checked


def _checked(name: str, n: str, d: Any) -> Any:
    """What the rule for input ``n`` returned. Raises TypeError if it is no gradient."""
    if getattr(d, "dtype", None) not in dtypes.INEXACT:
        raise TypeError(
            f"custom_operation {name}: the rule for {n!r} must return a floating array or "
            f"tensor, got {getattr(d, 'dtype', type(d))}"
        )
    return d
