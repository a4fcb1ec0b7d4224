"""The Tensor: an array, and its node on the tape.

The operators are written out below; the named methods (``x.exp()``, ``x.sum(axis=0)``) come from
the table of operations, where each row says whether it is one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np
from numpy import ndarray

from tensorgrad import backend, dtypes, ops, tape
from tensorgrad.backend import BACKENDS, is_array
from tensorgrad.backend.base import Array
from tensorgrad.backward import conjugate, run_backward
from tensorgrad.errors import DeviceError, DtypeError, GradientError, ShapeError
from tensorgrad.hints import UnknownNameError
from tensorgrad.observers import RECORDING, current_mode
from tensorgrad.ops import fast_paths, numpy_names, ufunc_calls, views
from tensorgrad.ops.indexing import assign_at
from tensorgrad.ops.numbers import constant
from tensorgrad.ops.table import OPERATIONS
from tensorgrad.ops.transfer import to_device
from tensorgrad.tape import Leaf, Node, wrap

Scalar = bool | int | float | complex

_API_VERSIONS = ("2021.12", "2022.12", "2023.12", "2024.12", "2025.12")
_COMPARISONS = frozenset(
    (np.equal, np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal)
)


def _never_writes(node: Node) -> bool:
    """Whether the gradient that ``node`` is given goes to a kernel of ours, and to nobody else.

    Elementwise and moving operations may hand the very array on, to a rule of the user's perhaps.
    """
    op = node.op
    makes_anew = op.kernel is not None and not op.elementwise and not op.moves
    return makes_anew and not node.hooks and not current_mode().observers


def _reflected(function: Callable[[Any, Any], Tensor]) -> Callable[[Any, Any], Tensor]:
    """The method for an operator whose left operand is no tensor."""

    def operator(self: Tensor, other: Any) -> Tensor:
        return function(other, self)

    return operator


class Tensor:
    """An n-dimensional array on a device, which remembers how it was computed.

    data: a number, nested sequences, a NumPy or CuPy array, or a tensor, whose history is left
        behind. It is copied unless ``copy`` is False (never copy) or None (only if needed).
    dtype: the element type. Left out, it is that of the data; Python floats get the default real
        dtype (float32), complex numbers that of such parts (complex64), Python integers int64.
    device: "cpu", "cuda", "cuda:1" or "auto". Left out, it is that of the data, or the default
        device for data of the host.
    requires_grad: record what is computed from this tensor, so that ``backward()`` can put the
        gradient into ``.grad``. Only for floating and complex dtypes.

    Raises DtypeError, DeviceError, or ValueError for ragged data.
    """

    __slots__ = ("__weakref__", "data", "node", "origin")

    data: Array  #: of NumPy or CuPy
    node: Node | None  #: the node on the tape, or None if no gradient is wanted
    origin: views.Origin | None  #: of what it is a view; only set where it may be one

    def __init__(
        self,
        data: Any,
        dtype: Any = None,
        device: str | None = None,
        requires_grad: bool = False,
        *,
        copy: bool | None = True,
    ) -> None:
        source = data
        if (
            type(data) is ndarray
            and dtype is None
            and device is None
            and dtypes.is_single(data.dtype)
            and backend.default_device() == "cpu"
        ):  # what most tensors are made of in a loop over batches; as below, in half the time
            self.data = np.array(data, copy=True, order="K") if copy else data
        else:
            self.data = _array_of(data, dtype, device, copy)
        self.node = None
        for observer in current_mode().observers:
            observer.created(self, source)
        if requires_grad:
            self.requires_grad = True

    # --- what it is ---------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """The size along each axis."""
        return self.data.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The element type."""
        return self.data.dtype

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self.data.ndim

    @property
    def size(self) -> int:
        """The number of elements."""
        return int(self.data.size)

    @property
    def nbytes(self) -> int:
        """The bytes that the elements take."""
        return int(self.data.nbytes)

    @property
    def itemsize(self) -> int:
        """The bytes that one element takes."""
        return int(self.data.itemsize)

    @property
    def device(self) -> str:
        """The device that holds the elements: "cpu" or "cuda:N"."""
        return "cpu" if type(self.data) is ndarray else backend.of(self.data).device_of(self.data)

    @property
    def real(self) -> Tensor:
        """The real parts, a view of complex numbers."""
        return ops.real(self)

    @property
    def imag(self) -> Tensor:
        """The imaginary parts, a view of complex numbers; those of real ones are 0."""
        return ops.imag(self)

    @property
    def T(self) -> Tensor:
        """The tensor with its axes in reverse order."""
        return ops.transpose(self)

    @property
    def mT(self) -> Tensor:
        """The tensor with its last two axes swapped."""
        return ops.matrix_transpose(self)

    def __len__(self) -> int:
        if not self.data.ndim:
            raise TypeError("len() of a 0-d tensor; it holds one number, read it with .item()")
        return int(self.data.shape[0])

    def __repr__(self) -> str:
        text = np.array2string(
            self._host("repr()"), separator=", ", prefix="Tensor(", precision=4, threshold=200
        )
        parts = [text]
        if not self.size:
            parts.append(f"shape={self.shape}")
        default = dtypes.get_default_dtype()
        if self.dtype not in (default, dtypes.complex_of(default), dtypes.int64, dtypes.bool):
            parts.append(f"dtype={self.dtype}")
        if self.device != "cpu":
            parts.append(f"device={self.device!r}")
        if type(self.node) is Leaf:
            parts.append("requires_grad=True")
        elif self.node is not None:
            parts.append(f"from={self.node.op.name}")
        return f"Tensor({', '.join(parts)})"

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec and not self.ndim else str(self)

    # --- gradients ----------------------------------------------------------------------------

    @property
    def requires_grad(self) -> bool:
        """Whether what is computed from this tensor is recorded for gradients."""
        return self.node is not None

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if not value:
            if self.node is not None and type(self.node) is not Leaf:
                raise GradientError(
                    f"this tensor was computed by {self.node.op.name}; only a tensor made by the "
                    "user can stop requiring a gradient. Use .detach()"
                )
            self.node = None
        elif self.node is None:
            if self.dtype not in dtypes.INEXACT:
                raise DtypeError(
                    f"only floating tensors can require a gradient, not {self.dtype}; convert "
                    "with .astype(tg.float32) first"
                )
            self.node = Leaf(self.shape, self.dtype)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Set ``requires_grad`` and return the tensor itself."""
        self.requires_grad = requires_grad
        return self

    @property
    def is_leaf(self) -> bool:
        """Whether the tensor was made by the user and not by a recorded operation."""
        return self.node is None or type(self.node) is Leaf

    @property
    def grad(self) -> Tensor | None:
        """The gradient accumulated by ``backward()``, or None."""
        if RECORDING and type(self.node) is Leaf:
            for observer in current_mode().observers:
                observer.looked_at_gradient(self.node)
        return None if self.node is None else getattr(self.node, "grad", None)

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if self.node is None:
            if value is None:
                return
            raise GradientError("this tensor does not require a gradient, so it cannot hold one")
        if value is not None and (value.shape, value.dtype) != (self.shape, self.dtype):
            raise ShapeError(
                f"a gradient must have the shape and dtype of its tensor, {self.shape} "
                f"{self.dtype}; got {value.shape} {value.dtype}"
            )
        if type(self.node) is Leaf:
            for observer in current_mode().observers:
                observer.changed_gradient(self.node, True)
        self.node.grad = value

    def retain_grad(self) -> Tensor:
        """Keep the gradient of this computed tensor in ``.grad`` too. Returns the tensor."""
        node = self._recorded("retain_grad")
        if type(node) is not Leaf:
            node.keeps_grad = True
            node.hooks = node.hooks or []  # keeps it off the fast path of the backward pass
        return self

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> Callable[[], None]:
        """Call ``hook(gradient)`` in every backward pass that reaches this tensor.

        What it returns, unless ``None``, takes the gradient's place. Returns a function that
        removes the hook.
        """
        node = self._recorded("register_hook")
        hooks = node.hooks = [] if node.hooks is None else node.hooks
        hooks.append(hook)

        def remove() -> None:
            if hook in hooks:
                hooks.remove(hook)

        return remove

    @staticmethod
    def _joined(data: Any, device: str | None = None, dtype: Any = None) -> Tensor:
        """Nested sequences as a tensor; the tensors in them stay connected to it.

        dtype: the common one of the tensors and arrays in them unless given.
        """
        if dtype is None:
            kinds = _kinds(data)
            if kinds is None:
                return Tensor(data, device=device, copy=None)
            dtype = dtypes.promote(*kinds)

        def joined(part: Any) -> Tensor:
            if isinstance(part, Tensor):
                return part.to(device, dtype=dtype) if device else part.astype(dtype)
            if isinstance(part, list | tuple) and _kinds(part) is not None:
                return ops.stack([joined(x) for x in part])
            return Tensor(part, dtype, device, copy=None)

        return joined(data)

    def _recorded(self, what: str) -> Node:
        if self.node is None:
            raise GradientError(f"{what}: this tensor does not require a gradient")
        return self.node

    def backward(
        self,
        gradient: Tensor | ndarray[Any, Any] | None = None,
        retain_graph: bool = False,
        create_graph: bool = False,
    ) -> None:
        """Add the gradient of this tensor to the ``.grad`` of all leaves it was computed from.

        That of a complex leaf is the derivative by its real part plus ``1j`` times that by its
        imaginary part: the direction of steepest ascent.

        gradient: the gradient with respect to this tensor, of its shape; needed unless it holds
            one real number, where it is 1.
        retain_graph: keep the saved values, so that another backward pass can follow.
        create_graph: record the backward pass itself, for gradients of gradients.

        Raises GradientError if nothing was recorded, or was freed, or a saved value overwritten.
        """
        node = self._recorded_for_backward() if self.node is None else self.node
        data = self.data
        if create_graph:
            run_backward([(node, self._seed(gradient))], create_graph=True, retain_graph=True)
            return
        alone = gradient is None and not data.ndim and data.dtype.kind != "c"
        if alone and type(data) is ndarray:
            seed = constant(1.0, data.dtype)
        elif alone and _never_writes(node):
            seed = BACKENDS[type(data)].one(data)  # type: ignore[attr-defined]
        else:
            seed = self._seed(gradient).data
        run_backward([(node, seed)], create_graph=False, retain_graph=retain_graph)

    def _recorded_for_backward(self) -> Node:
        if self.node is None:
            raise GradientError(
                "backward: nothing was recorded for this tensor. Make a tensor it is computed "
                "from with requires_grad=True, outside no_grad(), and not through .detach(). (What "
                "a compiled function returns has no history: call backward() inside it)"
            )
        return self.node

    def _seed(self, gradient: Any) -> Tensor:
        """The gradient that the pass starts from: ``gradient`` checked, or 1."""
        if gradient is None:
            data = self.data
            if data.dtype.kind == "c":
                raise GradientError(
                    "backward: a complex tensor needs a gradient, since no direction in which it "
                    "changes is the steepest; differentiate a real number, as abs(y) or "
                    "tg.real(y), or say which direction is meant, as in y.backward(tg.ones_like(y))"
                )
            if type(data) is ndarray and not data.ndim:
                return wrap(constant(1.0, data.dtype), None)
            if self.size != 1:
                raise GradientError(
                    f"backward: a tensor of shape {self.shape} needs a gradient of that shape, as "
                    "in y.backward(tg.ones_like(y)); only of a single number it is 1"
                )
            return ops.ones_like(self)
        if isinstance(gradient, list | tuple):
            gradient = Tensor._joined(gradient, self.device, self.dtype)
        if not isinstance(gradient, Tensor):
            gradient = Tensor(gradient, device=self.device, copy=None)
        if gradient.shape != self.shape:
            raise ShapeError(
                f"backward: the gradient must have the tensor's shape {self.shape}; got "
                f"{gradient.shape}"
            )
        if gradient.device != self.device:
            raise DeviceError(
                f"backward: the tensor is on {self.device} and the gradient on {gradient.device}"
            )
        if gradient.dtype != self.dtype:
            gradient = gradient.astype(self.dtype)
        return conjugate(gradient)

    def detach(self) -> Tensor:
        """The same values without history; shares memory."""
        return wrap(self.data, None)

    # --- to other places ------------------------------------------------------------------------

    def _host(self, how: str = "numpy()") -> ndarray[Any, Any]:
        self._read(how)
        return backend.of(self.data).to_host(self.data)

    def _read(self, how: str) -> None:
        for observer in current_mode().observers:
            observer.read(self, how)

    def numpy(self) -> ndarray[Any, Any]:
        """The values as a NumPy array; shares memory on the CPU, copies from a GPU.

        Raises GradientError for a tensor with a history: say ``.detach().numpy()``.
        """
        if self.node is not None and current_mode().grad:
            raise GradientError(
                "numpy() would lose the history of a tensor that requires a gradient; write "
                "x.detach().numpy()"
            )
        return self._host()

    def item(self) -> Any:
        """The value of a tensor of one element as a Python number."""
        if self.size != 1:
            raise ValueError(
                f"item() needs exactly one element; shape {self.shape} has {self.size}"
            )
        self._read("item()")
        return self.data.item()

    def tolist(self) -> Any:
        """The values as nested Python lists."""
        return self._host("tolist()").tolist()

    def to(self, target: Any = None, *, device: str | None = None, dtype: Any = None) -> Tensor:
        """The tensor on another device and/or with another dtype; itself if nothing changes.

        ``target`` may be a device name or a dtype: ``x.to("cuda")``, ``x.to(tg.float64)``.
        Gradients flow back to the tensor where it is.
        """
        if isinstance(target, str) and target.partition(":")[0] in ("cpu", "cuda", "auto"):
            device = target
        elif target is not None:
            dtype = target
        out = self
        if device is not None:
            place = backend.normalize(device)
            if place != self.device:
                out = to_device(out, place)
        return out if dtype is None else out.astype(dtype)

    def to_device(self, device: str, /, *, stream: None = None) -> Tensor:
        """The tensor on another device, as ``to``; work is queued on the current stream.

        Raises ValueError for another ``stream``.
        """
        if stream is not None:
            raise ValueError(
                "to_device: a tensor moves on CuPy's current stream; make that the one that is "
                "meant, as in `with stream:`, and leave the argument out"
            )
        return self.to(device=device)

    def cpu(self) -> Tensor:
        """The tensor in the host's memory."""
        return self.to(device="cpu")

    def cuda(self, number: int | None = None) -> Tensor:
        """The tensor on a GPU: the current one, or the one with this ``number``."""
        return self.to(device="cuda" if number is None else f"cuda:{number}")

    def astype(self, dtype: Any) -> Tensor:
        """The tensor with another dtype; itself if it has it already."""
        wanted = dtypes.as_dtype(dtype)
        return self if wanted == self.dtype else tape.cast(self, wanted)

    def float(self) -> Tensor:
        """The tensor as float32."""
        return self.astype(dtypes.float32)

    def double(self) -> Tensor:
        """The tensor as float64."""
        return self.astype(dtypes.float64)

    def half(self) -> Tensor:
        """The tensor as float16."""
        return self.astype(dtypes.float16)

    def long(self) -> Tensor:
        """The tensor as int64."""
        return self.astype(dtypes.int64)

    def clone(self) -> Tensor:
        """A copy in memory of its own; gradients flow through."""
        return tape.cast(self, self.dtype) if self.dtype == dtypes.bool else ops.positive(self)

    def __reduce__(self) -> Any:
        """For ``copy`` and ``pickle``: the values in memory of their own, with a new node."""
        self._check_copied()
        return _rebuild, (type(self), self._host(), self.device, self.requires_grad)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        """As by ``copy``, and its gradient is copied along, without a history."""
        self._check_copied()
        new = object.__new__(type(self))
        new.data, new.node = self.detach().clone().data, None
        new.requires_grad = self.requires_grad
        grad = self.grad
        if grad is not None:
            new.grad = grad.detach().clone()
        return new

    def _check_copied(self) -> None:
        if not self.is_leaf:
            raise GradientError(
                "a computed tensor cannot be copied together with its history; .detach() it, or "
                ".clone() it to stay connected"
            )

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> ndarray[Any, Any]:
        if self.device != "cpu":
            raise DeviceError(
                f"this tensor is on {self.device}; copy it to the host with .cpu() or .numpy()"
            )
        return np.array(self.numpy(), dtype, copy=copy)

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[Any, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        if self.node is not None and current_mode().grad:
            raise GradientError("a tensor that requires a gradient must be exported .detach()ed")
        self._read("__dlpack__()")
        given = {
            "stream": stream, "max_version": max_version, "dl_device": dl_device, "copy": copy,
        }  # fmt: skip
        return self.data.__dlpack__(**{k: v for k, v in given.items() if v is not None})

    def __dlpack_device__(self) -> Any:
        return self.data.__dlpack_device__()

    def __array_namespace__(self, *, api_version: str | None = None) -> Any:
        if api_version not in (None, *_API_VERSIONS):
            raise ValueError(
                f"array API version {api_version!r} is not known; {_API_VERSIONS[-1]} is"
            )
        import tensorgrad

        return tensorgrad

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        """NumPy's ufuncs called on tensors: ``np.exp(x)`` is ``tg.exp(x)``, with gradients."""
        function = numpy_names.ufuncs().get(ufunc)
        if method == "__call__" and function is not None and not options:
            if ufunc in _COMPARISONS and self.device != "cpu":
                # NumPy made an array of the scalar in ``scalar < tensor``, which has no device.
                inputs = tuple(
                    [x.item() if isinstance(x, ndarray) and not x.ndim else x for x in inputs]
                )
            return function(*inputs)
        out = options.get("out", ())
        if any(_has_ufuncs_of_its_own(x) for x in (*inputs, *out)):
            return NotImplemented
        if function is None or (out and all(isinstance(x, ndarray) for x in out)):
            return self._into_arrays(ufunc, method, inputs, options)
        if method == "__call__":
            return ufunc_calls.call(ufunc, function, inputs, options)
        return ufunc_calls.method(ufunc, function, method, inputs, options)

    def _into_arrays(
        self, ufunc: np.ufunc, method: str, inputs: tuple[Any, ...], options: dict[str, Any]
    ) -> Any:
        """``array += tensor``: numbers are put into an array, which has no gradient."""
        out = options.get("out", ())
        if not out or not all(isinstance(x, ndarray) for x in out):
            call = "" if method == "__call__" else f".{method}"
            raise TypeError(numpy_names.no_counterpart(f"np.{ufunc.__name__}{call}"))
        inputs = tuple([x.numpy() if isinstance(x, Tensor) else x for x in inputs])
        options = {k: x.numpy() if isinstance(x, Tensor) else x for k, x in options.items()}
        return getattr(ufunc, method)(*inputs, **options)

    def __array_function__(
        self, function: Callable[..., Any], types: Any, args: Any, kwargs: Any
    ) -> Any:
        """NumPy's other functions called on tensors, as ``np.sum(x)`` or ``np.where(c, x, y)``."""
        return numpy_names.call(function, args, kwargs)

    __cuda_array_interface__: ClassVar[Any]

    def __getattr__(self, name: str) -> Any:
        # Reached only for names that are not there. The interface must look absent for host data.
        if name == "__cuda_array_interface__" and type(self.data) is not ndarray:
            return self.data.__cuda_array_interface__
        raise UnknownNameError(Tensor, name)

    # --- operators ------------------------------------------------------------------------------

    __add__ = ops.add
    __radd__ = _reflected(ops.add)
    __sub__ = ops.subtract
    __rsub__ = _reflected(ops.subtract)
    __mul__ = ops.multiply
    __rmul__ = _reflected(ops.multiply)
    __truediv__ = ops.divide
    __rtruediv__ = _reflected(ops.divide)
    __floordiv__ = ops.floor_divide
    __rfloordiv__ = _reflected(ops.floor_divide)
    __mod__ = ops.remainder
    __rmod__ = _reflected(ops.remainder)
    __pow__ = ops.pow
    __rpow__ = _reflected(ops.pow)
    __matmul__ = ops.matmul
    __rmatmul__ = _reflected(ops.matmul)
    __neg__ = ops.negative
    __pos__ = ops.positive
    __abs__ = ops.abs
    __invert__ = ops.bitwise_invert
    __and__ = ops.bitwise_and
    __rand__ = _reflected(ops.bitwise_and)
    __or__ = ops.bitwise_or
    __ror__ = _reflected(ops.bitwise_or)
    __xor__ = ops.bitwise_xor
    __rxor__ = _reflected(ops.bitwise_xor)
    __lshift__ = ops.bitwise_left_shift
    __rshift__ = ops.bitwise_right_shift
    __eq__ = ops.equal  # type: ignore[assignment]
    __ne__ = ops.not_equal  # type: ignore[assignment]
    __lt__ = ops.less
    __le__ = ops.less_equal
    __gt__ = ops.greater
    __ge__ = ops.greater_equal
    __hash__ = object.__hash__

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ValueError(
                f"the truth value of a tensor of shape {self.shape} is ambiguous; say .any() or "
                ".all()"
            )
        self._read("bool()")
        return bool(self.data.item())

    def __int__(self) -> int:
        return int(self.item())

    def __float__(self) -> Any:
        found = self.item()
        if isinstance(found, complex):
            raise TypeError("a complex number is no float; take x.real or abs(x) first")
        return found.__float__()

    def __complex__(self) -> complex:
        return complex(self.item())

    def __index__(self) -> int:
        if self.dtype not in dtypes.INTEGERS or self.ndim:
            raise TypeError(
                f"only a 0-d integer tensor can be an index; this is {self.dtype} of shape "
                f"{self.shape}"
            )
        self._read("int()")
        return int(self.data.item())

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __contains__(self, value: Any) -> bool:
        return bool(ops.any(self.detach() == value))

    def __getitem__(self, index: Any) -> Tensor:
        return ops.getitem(self, index)

    def __setitem__(self, index: Any, value: Any) -> None:
        """Overwrite the elements at ``index``.

        Where a gradient is being recorded this tensor becomes a new value on the tape, and so do
        the tensor that it is a view of and all other views of that; detached ones keep the old.
        """
        if isinstance(value, list | tuple):
            value = Tensor._joined(value, self.device, self.dtype)
        if self._is_recorded_with(value) and self.dtype in dtypes.INEXACT:
            self._refuse_leaf("x[index] = value")
            shared = isinstance(value, Tensor) and views.origin_of(value) is not None
            if shared and views.are_same(value, ops.getitem(self, index)):
                return  # after ``x[index] += y``, which has written to the view already
            views.rewritten(self, ops.index_put(self, index, value))
        else:
            assign_at(self, index, value)

    def fill(self, value: Any) -> None:
        """Overwrite all elements with one number."""
        self[...] = value

    def compress(self, condition: Any, axis: int | None = None) -> Tensor:
        """The slices along ``axis`` where a vector of conditions is true; see ``tg.compress``."""
        return ops.compress(condition, self, axis)

    def copy_(self, source: Any) -> Tensor:
        """Overwrite all elements with those of ``source``, which broadcasts; returns the tensor.

        A tensor that requires a gradient can be overwritten only under ``no_grad()``.
        """
        if isinstance(source, list | tuple):
            source = Tensor._joined(source, self.device, self.dtype)
        if self._is_recorded_with(source):
            raise GradientError(
                "copy_ would overwrite a value without recording it, while this tensor or the "
                "source requires a gradient; do it under tg.no_grad(), .detach() the source, or "
                "write x[...] = source"
            )
        if not isinstance(source, Tensor):
            source = Tensor(source, device=self.device, copy=None)
        _check_parts(source.data, self.dtype)
        tape.apply(_COPY, (self, source.to(self.device).detach()))
        return self

    # ``x += y`` overwrites x where nothing is recorded (an update under no_grad), or where x is a
    # view or there are views of it. Otherwise it means ``x = x + y``: the name gets a new tensor,
    # and the old one stays as it was.

    def __iadd__(self, other: Any) -> Tensor:
        return self._in_place(add, other, "+=")

    def __isub__(self, other: Any) -> Tensor:
        return self._in_place(subtract, other, "-=")

    def __imul__(self, other: Any) -> Tensor:
        return self._in_place(multiply, other, "*=")

    def __itruediv__(self, other: Any) -> Tensor:
        return self._in_place(divide, other, "/=")

    def _in_place(self, function: Callable[[Any, Any], Tensor], other: Any, sign: str) -> Tensor:
        if self._is_recorded_with(other):
            self._refuse_leaf(f"x {sign} y")
            if not views.is_shared(self):
                return function(self, other)
        out = function(self, other)
        if (out.shape, out.dtype) != (self.shape, self.dtype):
            raise ShapeError(
                f"x {sign} y: the result {out.shape} {out.dtype} does not fit into x, "
                f"{self.shape} {self.dtype}; write x = x {sign[0]} y"
            )
        if self._is_recorded_with(out):
            self[...] = out
            return self
        return self.copy_(out)

    def _is_recorded_with(self, value: Any) -> bool:
        if not current_mode().grad:
            return False
        if self.node is not None or (isinstance(value, Tensor) and value.node is not None):
            return True
        return views.is_view_of_recorded(self)

    def _refuse_leaf(self, what: str) -> None:
        if type(self.node) is Leaf:
            raise GradientError(
                f"{what}: a leaf that requires a gradient cannot be overwritten while gradients "
                "are recorded; update it under tg.no_grad()"
            )


def _from_python(data: Any, dtype: np.dtype[Any] | None) -> tuple[Any, np.dtype[Any]]:
    """Numbers and nested sequences, which may hold tensors, as an array; and the dtype meant."""
    strong = hasattr(data, "__array__") or hasattr(data, "__dlpack__")  # PyTorch's, say
    if isinstance(data, list | tuple):
        kinds = _kinds(data)
        if kinds is not None:
            data, dtype = _without_tensors(data), dtypes.promote(*kinds) if dtype is None else dtype
    try:
        found = np.asarray(data)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"a tensor needs numbers in a regular shape: {error}") from error
    if found.dtype == np.float64 and dtype == dtypes.uint64:
        # NumPy makes floats of integers of which some need 64 bits without a sign.
        with contextlib.suppress(OverflowError, TypeError, ValueError):
            found = np.asarray(data, dtype)
    if found.dtype.kind not in "biufc" and found.dtype not in dtypes.ALL:
        raise _no_number(data, found)
    if dtype is None:
        if found.dtype == np.float64 and not strong:
            dtype = dtypes.get_default_dtype()
        elif found.dtype == np.complex128 and not strong:
            dtype = dtypes.complex_of(dtypes.get_default_dtype())
        else:
            dtype = dtypes.as_dtype(found.dtype)
    return found, dtype


def _array_of(data: Any, dtype: Any, device: str | None, copy: bool | None) -> Array:
    """The array of a tensor that is made of ``data``; see ``Tensor``."""
    if isinstance(data, Tensor):
        data = data.data
    elif not is_array(data) and hasattr(data, "__cuda_array_interface__"):
        # PyTorch's, Numba's, or the first array of CuPy that we meet: shared, as asarray does.
        data = backend.cuda_backend().xp.asarray(data)
    wanted = None if dtype is None else dtypes.as_dtype(dtype)
    if device is None:
        on_gpu = is_array(data) and type(data) is not ndarray
        place = backend.of(data).device_of(data) if on_gpu else backend.default_device()
    else:
        place = backend.normalize(device)
    if type(data) is not ndarray and not isinstance(getattr(data, "dtype", None), np.dtype):
        data, wanted = _from_python(data, wanted)
        _check_parts(data, wanted)
    else:
        _refuse_masked(data)
        if data.dtype.kind in "SU" or (data.dtype.kind == "O" and wanted is None):
            raise _no_number(data.reshape(-1).tolist(), data)
        if wanted is None:
            wanted = dtypes.as_dtype(data.dtype)
        _check_parts(data, wanted)
    return backend.backend_for(place).asarray(data, wanted, place, copy)


def _check_parts(data: Array, wanted: np.dtype[Any]) -> None:
    """Raise DtypeError for complex numbers that are to become real ones."""
    if data.dtype.kind == "c" and wanted.kind != "c":
        raise DtypeError(
            f"a tensor of {wanted} cannot hold complex numbers; give their x.real, x.imag or abs(x)"
        )


def _refuse_masked(data: Any) -> None:
    """Raise ValueError for a masked array in which something is masked."""
    if type(data) is not ndarray:
        mask = getattr(data, "mask", None)
        if isinstance(mask, ndarray | np.bool_) and mask.any():
            raise ValueError(
                "a tensor has no mask, and what is masked would become a number; say what to put "
                "there, as in tg.tensor(x.filled(float('nan')))"
            )


def _no_number(data: Any, found: ndarray[Any, Any]) -> Exception:
    """The error for ``data``, of which NumPy makes no numbers that are known here."""
    bad, outer = data, data
    while isinstance(bad, list | tuple) and bad:
        parts = [np.asarray(x) for x in bad]
        outer, at = bad, [k for k, x in enumerate(parts) if x.dtype.kind not in "biufc"]
        if not at:
            break
        bad = bad[at[0]]
    if isinstance(bad, ndarray) and bad.dtype == object and bad.size:
        bad = bad.reshape(-1)[0]
    kind, inside = type(bad).__name__, "" if bad is outer else f" in a {type(outer).__name__}"
    where = f"{kind}{inside}"
    if isinstance(bad, int):
        return DtypeError(
            f"a tensor needs numbers: {bad} is too large for 64 bits; make it a float, or split it"
        )
    if bad is None:
        text = f"got None{inside}; where a number is missing, write float('nan')"
    elif isinstance(bad, set | frozenset):
        text = f"a {where} has no order; give a list, as in sorted(x)"
    elif isinstance(bad, dict):
        text = f"got a {where}; give a list of its numbers, as in list(x.values())"
    elif isinstance(bad, str | bytes):
        text = f"got the text {bad!r}{inside}; convert it with float(x) or int(x)"
    elif hasattr(bad, "__next__") or hasattr(bad, "__iter__"):
        text = f"got a {where}; give a list, as in list(x)"
    elif hasattr(bad, "__float__"):
        text = f"got a {where}; convert it with float(x)"
    elif found.dtype != object:
        text = f"{found.dtype} is not supported; known are {dtypes.names()}"
    else:
        text = f"got a {where}; known are {dtypes.names()}"
    return DtypeError(f"a tensor needs numbers: {text}")


def _rebuild(kind: type[Tensor], array: Array, device: str, requires_grad: bool) -> Tensor:
    out = object.__new__(kind)
    Tensor.__init__(out, array, device=device, requires_grad=requires_grad)
    return out


def _kinds(data: Any) -> tuple[list[np.dtype[Any]], list[Any]] | None:
    """Of the tensors and arrays in nested sequences the dtypes, of the numbers beside them one of
    each type; ``None`` where there is neither tensor nor array."""
    arrays: set[np.dtype[Any]] = set()
    numbers: dict[type, Any] = {}
    waiting = [data]
    while waiting:
        x = waiting.pop()
        if type(x) in tape.NUMBERS:
            numbers[type(x)] = x
        elif isinstance(x, list | tuple):
            waiting += x
        elif isinstance(x, Tensor | ndarray) and x.dtype in dtypes.ALL:
            _refuse_masked(x)
            arrays.add(x.dtype)
        elif isinstance(x, np.generic):
            x = x.item()
            numbers[type(x)] = x
    return (list(arrays), list(numbers.values())) if arrays else None


def _without_tensors(data: Any) -> Any:
    """Nested sequences with the tensors in them as arrays."""
    if isinstance(data, Tensor):
        if data.node is not None and current_mode().grad:
            raise GradientError(
                "a new tensor would lose the history of the tensors in this sequence, one of which "
                "requires a gradient; join them with tg.stack(...) or tg.asarray(...), which keep "
                "it, or .detach() them"
            )
        data = data._host()
    if isinstance(data, ndarray) and data.dtype == dtypes.bfloat16:  # NumPy cannot join it
        return data.astype(np.float32)
    return [_without_tensors(x) for x in data] if isinstance(data, list | tuple) else data


def _has_ufuncs_of_its_own(x: Any) -> bool:
    """Whether NumPy may ask an operand of another library instead."""
    known = Tensor | ndarray | np.generic
    return not isinstance(x, known) and hasattr(x, "__array_ufunc__")


def _copy_value(xp: Any, target: Array, source: Array) -> Array:
    target[...] = source
    return target


_COPY = tape.Primitive(
    "copy_", _copy_value, {"target": None, "source": None}, mutates=(0,), moves=True
)

#: Functions that NumPy's arrays have as methods with the same arguments.
_METHODS = ("argpartition", "choose", "copy", "partition", "put", "ravel", "searchsorted")
for _name in _METHODS:
    setattr(Tensor, _name, getattr(ops, _name))

add, subtract, multiply, divide = ops.add, ops.subtract, ops.multiply, ops.divide

# The methods, one for each row of the table that asks for it, and for its other names.
for _row in OPERATIONS.values():
    if _row.method:
        for _name in (_row.name, *_row.aliases):
            if not hasattr(Tensor, _name):
                setattr(Tensor, _name, _row.function)

tape.Tensor = fast_paths.Tensor = views.Tensor = Tensor  # type: ignore[attr-defined]
