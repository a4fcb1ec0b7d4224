"""Making tensors: from data, filled with a number, in ranges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad import backend, dtypes
from tensorgrad.errors import DtypeError, GradientError, ShapeError
from tensorgrad.observers import current_mode
from tensorgrad.ops.numbers import number
from tensorgrad.ops.shaping import broadcast_to, reshape, shape_of
from tensorgrad.ops.table import operation
from tensorgrad.tape import wrap

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = [
    "arange", "asarray", "empty", "empty_like", "eye", "from_dlpack", "full", "full_like",
    "linspace", "meshgrid", "ones", "ones_like", "zeros", "zeros_like",
]  # fmt: skip


Shape = int | Sequence[int]


# --- from data ------------------------------------------------------------------------------------


def asarray(
    obj: Any, /, *, dtype: Any = None, device: str | None = None, copy: bool | None = None
) -> Tensor:
    """``obj`` as a tensor: a number, nested sequences, a NumPy or CuPy array, or a tensor.

    Python floats get the default real dtype and Python integers int64; arrays keep their dtype.
    Sequences may hold tensors: these are stacked, and gradients flow back to them.
    copy: True always copies, False never (and raises ValueError if that is impossible), ``None``
        only where needed. A tensor that needs no change is returned itself.
    """
    from tensorgrad.tensor import Tensor

    if isinstance(obj, Tensor):
        out = obj.to(device=device, dtype=dtype)
        if out is not obj and copy is False:
            raise ValueError(
                f"asarray: copy=False, but {obj.dtype} on {obj.device} has to be copied to become "
                f"{out.dtype} on {out.device}"
            )
        return out.clone() if copy and out is obj else out
    if isinstance(obj, list | tuple) and copy is not False:
        wanted = None if dtype is None else dtypes.as_dtype(dtype)
        return Tensor._joined(obj, backend.normalize(device) if device else None, wanted)
    return Tensor(obj, dtype=dtype, device=device, copy=copy)


def from_dlpack(x: Any, /, *, device: str | None = None, copy: bool | None = None) -> Tensor:
    """The array of another library that speaks DLPack, as a tensor; shares memory if it can.

    Raises DtypeError for an element type that tensorgrad lacks.
    """
    from tensorgrad.tensor import Tensor

    kind, _ = x.__dlpack_device__()
    # DLPack's numbers: 1 is the CPU, 3 host memory pinned for a GPU, 2 and 13 are CUDA.
    xp = backend.cuda_backend().xp if int(kind) in (2, 13) else np
    return Tensor(xp.from_dlpack(x), device=device, copy=copy)


# --- filled with a number -------------------------------------------------------------------------


def sizes_of(name: str, shape: Any) -> tuple[int, ...]:
    """A shape as a tuple. Raises ShapeError, in the name of a function, for what is none."""
    try:
        sizes = (
            (int(shape.__index__()),)
            if hasattr(shape, "__index__")
            else tuple(int(n.__index__()) for n in shape)
        )
    except (AttributeError, TypeError):
        raise ShapeError(
            f"{name}: a shape is an integer or a sequence of integers; got {shape!r}"
        ) from None
    if any(n < 0 for n in sizes):
        raise ShapeError(f"{name}: sizes must not be negative; got {sizes}")
    return sizes


def _made(array: Any, device: str | None, requires_grad: bool) -> Tensor:
    """A tensor around a new array of the host, on the device asked for."""
    place = backend.normalize(device)
    if place != "cpu":
        array = backend.backend_for(place).asarray(array, None, place, None)
    return _announced(wrap(array, None), requires_grad)


def _announced(out: Tensor, requires_grad: bool) -> Tensor:
    for observer in current_mode().observers:
        observer.created(out, None)
    if requires_grad:
        out.requires_grad = True
    return out


def _filled(
    shape: tuple[int, ...], value: Any, dtype: Any, device: str | None, requires_grad: bool
) -> Tensor:
    """A tensor of one value, made where it will be; of any values if ``value`` is ``None``."""
    wanted = dtypes.get_default_dtype() if dtype is None else dtypes.as_dtype(dtype)
    if isinstance(value, complex) and wanted not in dtypes.COMPLEX:
        raise DtypeError(f"a tensor of {wanted} cannot hold the complex number {value}")
    place = backend.normalize(device)
    of = backend.backend_for(place)
    if place == "cpu":
        array = _fill(np, shape, value, wanted)
    else:
        with of.xp.cuda.Device(int(place.partition(":")[2])):
            array = _fill(of.xp, shape, value, wanted)
    return _announced(wrap(array, None), requires_grad)


def _fill(xp: Any, shape: tuple[int, ...], value: Any, dtype: np.dtype[Any]) -> Any:
    if value is None:
        return xp.empty(shape, dtype)
    if isinstance(value, int | float) and value == 0 and math.copysign(1, value) > 0:
        return xp.zeros(shape, dtype)  # the system hands out zeroed memory
    return xp.full(shape, value, dtype)


def _dtype_of_number(name: str, value: Any) -> Any:
    """The dtype of a tensor of this number: default, int64, bool, or its own."""
    if hasattr(value, "dtype") and not isinstance(value, float):
        return value.dtype
    kind = type(number(name, "fill_value", value, True))
    return dtypes.promote([], [kind()])


def _spread(
    name: str, shape: tuple[int, ...], x: Tensor, dtype: Any, device: str | None, leaf: bool
) -> Tensor:
    """The one element of ``x`` at every place of ``shape``, in memory of its own."""
    if x.size != 1:
        raise ShapeError(f"{name}: fill_value must be one number; got a tensor of shape {x.shape}")
    if leaf and x.node is not None:
        raise GradientError(
            f"{name}: with requires_grad=True the result is a new beginning, while fill_value "
            "requires a gradient itself; leave one of the two out, or .detach() fill_value"
        )
    x = x.to(device=device, dtype=dtype)
    return _announced(broadcast_to(reshape(x, ()), shape).clone(), leaf)


@operation(
    cases=[lambda s: s((2, 3)), lambda s: s(4), lambda s: s(()), lambda s: s((0, 2))],
    gradient=False,
    method=False,
    numpy="shape dtype= !order=C device=",
)
def zeros(
    shape: Shape, *, dtype: Any = None, device: str | None = None, requires_grad: bool = False
) -> Tensor:
    """A tensor of zeros, of the default real dtype unless another is given."""
    return _filled(sizes_of("zeros", shape), 0, dtype, device, requires_grad)


@operation(
    cases=[lambda s: s((2, 3)), lambda s: s(4), lambda s: s(())],
    gradient=False,
    method=False,
    numpy="shape dtype= !order=C device=",
)
def ones(
    shape: Shape, *, dtype: Any = None, device: str | None = None, requires_grad: bool = False
) -> Tensor:
    """A tensor of ones, of the default real dtype unless another is given."""
    return _filled(sizes_of("ones", shape), 1, dtype, device, requires_grad)


def empty(
    shape: Shape, *, dtype: Any = None, device: str | None = None, requires_grad: bool = False
) -> Tensor:
    """A tensor whose elements are whatever the memory held."""
    return _filled(sizes_of("empty", shape), None, dtype, device, requires_grad)


@operation(
    cases=[lambda s: s((2, 3), 1.5), lambda s: s(4, -2), lambda s: s((), True)],
    gradient=False,
    method=False,
    torch=None,
    numpy="shape fill_value dtype= !order=C device=",
)
def full(
    shape: Shape,
    fill_value: Any,
    *,
    dtype: Any = None,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """A tensor of one number; its dtype is that of the number unless another is given.

    fill_value: a number, or a tensor of one element, to which a gradient flows back.

    Raises DtypeError for what is no number.
    """
    sizes = sizes_of("full", shape)
    if hasattr(fill_value, "node"):
        return _spread("full", sizes, fill_value, dtype, device, requires_grad)
    if dtype is None:
        dtype = _dtype_of_number("full", fill_value)
    fill_value = number("full", "fill_value", fill_value, True)
    return _filled(sizes, fill_value, dtype, device, requires_grad)


def _like(x: Any, value: Any, dtype: Any, device: str | None, requires_grad: bool) -> Tensor:
    if not hasattr(x, "dtype"):
        x = asarray(x)
    if device is None and not isinstance(x, np.ndarray):
        device = getattr(x, "device", None) if hasattr(x, "node") else asarray(x).device
    return _filled(shape_of(x), value, x.dtype if dtype is None else dtype, device, requires_grad)


@operation(
    cases=[lambda s: s(s.real(2, 3)), lambda s: s(s.ints(3, high=3))],
    gradient=False,
    numpy="a dtype= !order=K ~subok !shape device=",
    complex=True,
)
def zeros_like(
    x: Any, /, *, dtype: Any = None, device: str | None = None, requires_grad: bool = False
) -> Tensor:
    """Zeros with the shape, dtype and device of ``x``."""
    return _like(x, 0, dtype, device, requires_grad)


@operation(
    cases=[lambda s: s(s.real(2, 3)), lambda s: s(s.ints(3, high=3))],
    gradient=False,
    numpy="a dtype= !order=K ~subok !shape device=",
    complex=True,
)
def ones_like(
    x: Any, /, *, dtype: Any = None, device: str | None = None, requires_grad: bool = False
) -> Tensor:
    """Ones with the shape, dtype and device of ``x``."""
    return _like(x, 1, dtype, device, requires_grad)


def empty_like(
    x: Any, /, *, dtype: Any = None, device: str | None = None, requires_grad: bool = False
) -> Tensor:
    """A tensor with the shape, dtype and device of ``x``, whose elements are arbitrary."""
    return _like(x, None, dtype, device, requires_grad)


@operation(
    cases=[lambda s: s(s.real(2, 3), 1.5)],
    gradient=False,
    numpy="a fill_value dtype= !order=K ~subok !shape device=",
    complex=True,
)
def full_like(
    x: Any,
    /,
    fill_value: Any,
    *,
    dtype: Any = None,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """One number with the shape, dtype and device of ``x``; see ``full``."""
    if hasattr(fill_value, "node"):
        of = _like(x, None, dtype, device, False)
        return _spread("full_like", of.shape, fill_value, of.dtype, of.device, requires_grad)
    fill_value = number("full_like", "fill_value", fill_value, True)
    return _like(x, fill_value, dtype, device, requires_grad)


# --- matrices, ranges and grids -------------------------------------------------------------------


@operation(
    cases=[lambda s: s(3), lambda s: s(2, 4), lambda s: s(3, 3, k=1), lambda s: s(0)],
    gradient=False,
    method=False,
    reference=lambda n_rows, n_cols=None, k=0: np.eye(n_rows, n_cols, k),
    torch=None,
)
def eye(
    n_rows: int,
    n_cols: int | None = None,
    /,
    *,
    k: int = 0,
    dtype: Any = None,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """A matrix with ones on diagonal ``k`` and zeros elsewhere."""
    wanted = dtypes.get_default_dtype() if dtype is None else dtypes.as_dtype(dtype)
    return _made(np.eye(n_rows, n_cols, k, wanted), device, requires_grad)


@operation(
    cases=[
        lambda s: s(5),
        lambda s: s(2, 5),
        lambda s: s(0.0, 1.0, 0.25),
        lambda s: s(5, 1, -2),
        lambda s: s(3, 1),
    ],
    gradient=False,
    method=False,
    numpy="start_or_stop stop= step= dtype= device=",
)
def arange(
    start: float,
    /,
    stop: float | None = None,
    step: float = 1,
    *,
    dtype: Any = None,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """Numbers from ``start`` (0 if it is the only argument) up to but not including ``stop``.

    Integers give int64, real numbers the default real dtype. Raises ValueError for ``step`` 0.
    """
    start, step = number("arange", "start", start), number("arange", "step", step)
    start, stop = (0, start) if stop is None else (start, number("arange", "stop", stop))
    if step == 0:
        raise ValueError("arange: step must not be 0")
    real = any(isinstance(n, float) for n in (start, stop, step))
    wanted = dtypes.as_dtype(dtype) if dtype is not None else dtypes.int64
    if dtype is None and real:
        wanted = dtypes.get_default_dtype()
    # Made in double precision or int64 and rounded once: in 16 bits the sums would drift.
    numbers: Any = (start, stop, step, np.float64 if real else np.int64)
    found = np.arange(*numbers)
    return _made(found.astype(wanted), device, requires_grad)


@operation(
    cases=[
        lambda s: s(0.0, 1.0, 5),
        lambda s: s(0, 1, 4, endpoint=False),
        lambda s: s(2.0, -1.0, 1),
        lambda s: s(0.0, 1.0, 0),
    ],
    gradient=False,
    method=False,
    torch=None,
    numpy="start stop num=50 endpoint= !retstep dtype= !axis=0 device=",
)
def linspace(
    start: complex,
    stop: complex,
    /,
    num: int,
    *,
    dtype: Any = None,
    device: str | None = None,
    endpoint: bool = True,
    requires_grad: bool = False,
) -> Tensor:
    """``num`` equally spaced numbers from ``start`` to ``stop``.

    Without the latter if ``endpoint`` is False; rounded down for an integer dtype."""
    start = number("linspace", "start", start, True)
    stop = number("linspace", "stop", stop, True)
    if not hasattr(num, "__index__") or num < 0:
        raise ValueError(f"linspace: num must be an integer from 0; got {num!r}")
    kind = complex if complex in (type(start), type(stop)) else float
    wanted = dtypes.promote([], [kind()]) if dtype is None else dtypes.as_dtype(dtype)
    if kind is complex and wanted not in dtypes.COMPLEX:
        raise DtypeError(f"linspace: complex numbers do not go into {wanted}")
    found = np.linspace(start, stop, num, endpoint=endpoint, dtype=kind)
    if wanted in dtypes.INTEGERS:
        found = np.floor(found)
    return _made(found.astype(wanted), device, requires_grad)


@operation(
    cases=[
        lambda s: s(s.real(3), s.real(4)),
        lambda s: s(s.real(3), s.real(4), indexing="ij"),
        lambda s: s(s.real(2), s.real(3), s.real(4)),
        lambda s: s(s.real(2)),
    ],
    method=False,
    torch=None,
    numpy="*xi ~copy sparse= indexing=",
    complex=True,
)
def meshgrid(*arrays: Any, indexing: str = "xy", sparse: bool = False) -> tuple[Tensor, ...]:
    """The coordinates of a grid, from a vector for each of its axes.

    indexing: "ij" gives each shape (len(a0), len(a1), ...); "xy" has the first two interchanged.
    sparse: leave size 1 on all axes but the vector's own, so that they broadcast to that.
    """
    if indexing not in ("xy", "ij"):
        raise ValueError(f'meshgrid: indexing must be "xy" or "ij"; got {indexing!r}')
    n = len(arrays)
    places = list(range(n))
    if indexing == "xy" and n > 1:
        places[0], places[1] = 1, 0
    shape = [0] * n
    vectors = []
    for x, place in zip(arrays, places, strict=True):
        size = math.prod(shape_of(x))
        if len(shape_of(x)) > 1:
            raise ShapeError(f"meshgrid: vectors are needed; got shape {shape_of(x)}")
        shape[place] = size
        vectors.append(reshape(x, tuple(size if i == place else 1 for i in range(n))))
    return tuple(vectors if sparse else [broadcast_to(x, shape) for x in vectors])
