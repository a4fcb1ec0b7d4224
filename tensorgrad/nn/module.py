"""Parameter and Module: what a model is made of, and how it is walked, moved, saved and loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple, TypeVar

from tensorgrad import dtypes
from tensorgrad.autograd.modes import no_grad
from tensorgrad.errors import DtypeError, ShapeError
from tensorgrad.nn import hooks
from tensorgrad.nn.check import check_shapes
from tensorgrad.nn.fit import Misfit
from tensorgrad.nn.summary import Summary, summarize
from tensorgrad.observers import RECORDING, current_mode
from tensorgrad.tensor import Tensor

__all__ = ["Module", "Parameter"]

M = TypeVar("M", bound="Module")
T = TypeVar("T")


# copy and pickle go so many modules deep by recursion, and are shown so many before they begin.
_FAR, _FARTHEST = 20, 200


class _Changes:
    """How often an attribute of any module was assigned: whoever keeps something looks again."""

    count = 0


changes = _Changes()


class Parameter(Tensor):
    """A tensor that a module trains: assigned to an attribute, it is one of its parameters.

    data: a tensor, whose memory is shared, or anything else a tensor is made from, which is copied.
    requires_grad: False for a frozen parameter.

    Raises DtypeError for integer data with ``requires_grad``.
    """

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        if isinstance(data, Tensor):
            self.data = data.data
            self.node = None
            self.requires_grad = requires_grad
        else:
            super().__init__(data, requires_grad=requires_grad)

    def __repr__(self) -> str:
        return "Parameter" + super().__repr__().removeprefix("Tensor")


class IncompatibleKeys(NamedTuple):
    """What ``load_state_dict(state, strict=False)`` passed over."""

    missing_keys: list[str]
    unexpected_keys: list[str]


def check_sizes(name: str, **sizes: Any) -> None:
    """Raise ValueError unless all sizes, given by what they are, are positive integers."""
    for what, size in sizes.items():
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"{name}: {what} must be a positive integer, got {size!r}")


class Module:
    """Base class of models and their layers.

    A subclass defines ``forward``; the module is then called like a function. Its parameters,
    buffers and submodules are those of its attributes that hold one, in the order in which they
    were first assigned. ``super().__init__()`` need not be called.
    """

    training: bool = True  #: whether dropout and the like behave as in training
    _shown: ClassVar[tuple[str, ...]] = ()  # the attributes that repr() shows
    _output_argument: ClassVar[str] = ""  # the one that sets how many features the output has
    _hooks: tuple[hooks.Hook, ...] | None = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The output; to be defined by the subclass."""
        raise NotImplementedError(
            f"{type(self).__name__} does not define forward(); a module needs one to be called"
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """``forward(...)``; a ShapeError raised inside gets the path of the module it arose in."""
        try:
            if RECORDING or self._hooks is not None:
                return self._observed(args, kwargs)
            return self.forward(*args, **kwargs)
        except ShapeError as error:
            self._add_path(error)
            raise

    def _observed(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """``forward`` with hooks around it, and told to those who want to know."""
        watchers = current_mode().observers if RECORDING else ()
        for observer in watchers:
            observer.entered(self)
        try:
            if self._hooks is not None:
                return hooks.call(self, args, kwargs)
            return self.forward(*args, **kwargs)
        finally:
            for observer in watchers:
                observer.left(self)

    def _add_path(self, error: ShapeError) -> None:
        # A module does not know its name: the one above it, which the error passes next, does.
        notes = vars(error)
        inner = notes.get("module")
        for name, module in self.named_modules():
            if module is inner and inner is not self:
                error.add_module(name)
                break
        notes["module"] = self

    def __setattr__(self, name: str, value: Any) -> None:
        if (
            isinstance(value, Tensor)
            and not isinstance(value, Parameter)
            and isinstance(vars(self).get(name), Parameter)
        ):
            raise TypeError(
                f"{type(self).__name__}.{name} is a parameter, and a plain tensor in its place "
                "would not be trained; assign nn.Parameter(x), or None first"
            )
        object.__setattr__(self, name, value)
        changes.count += 1

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)
        changes.count += 1

    # --- parts --------------------------------------------------------------------------------

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Keep ``tensor`` as attribute ``name``: state that is moved and saved, but not trained.

        persistent: whether ``state_dict()`` contains it.

        Raises ValueError for a name that is taken, TypeError for what is no tensor.
        """
        _check_name(self, name, "buffer")
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(
                f"buffer {name!r} must be a Tensor or None, not {type(tensor).__name__}"
            )
        vars(self).setdefault("_persistent", {})[name] = persistent
        setattr(self, name, tensor)

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Keep ``param`` as attribute ``name``; the same as assigning it, but the name is checked.

        Raises ValueError for a name that is taken, TypeError for what is no parameter.
        """
        _check_name(self, name, "parameter")
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(
                f"parameter {name!r} must be an nn.Parameter or None, not {type(param).__name__}"
            )
        setattr(self, name, param)

    def add_module(self, name: str, module: Module | None) -> None:
        """Keep ``module`` as attribute ``name``, which may be any text without a dot.

        Raises ValueError for a name that is taken, TypeError for what is no module.
        """
        _check_name(self, name, "module")
        if module is not None and not isinstance(module, Module):
            raise TypeError(
                f"module {name!r} must be a Module or None, not {type(module).__name__}"
            )
        setattr(self, name, module)

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules held by this one directly, with their names; a shared one once."""
        seen: set[int] = set()
        for name, value in vars(self).items():
            if isinstance(value, Module) and id(value) not in seen:
                seen.add(id(value))
                yield name, value

    def children(self) -> Iterator[Module]:
        """The modules held by this one directly."""
        return (module for _, module in self.named_children())

    def named_modules(
        self, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """This module (under the name ``prefix``) and all inside it, in order of definition.

        remove_duplicate: give a module that has several names only once; else it is left out only
            inside itself, where it holds one that holds it.
        """
        seen: set[int] = set()  # those that were given; or those around the place that this is at
        stack: list[tuple[str, Module | int]] = [(prefix, self)]
        while stack:
            path, module = stack.pop()
            if isinstance(module, int):
                seen.remove(module)
            elif id(module) not in seen:
                seen.add(id(module))
                yield path, module
                if not remove_duplicate:
                    stack.append((path, id(module)))
                stack.extend((_join(path, n), m) for n, m in reversed(_inner(module)))

    def modules(self) -> Iterator[Module]:
        """This module and all inside it."""
        return (module for _, module in self.named_modules())

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """The parameters with their paths, in order of definition, a module's own ones first.

        recurse: those of the modules inside, too.
        remove_duplicate: give a parameter that has several names only once.
        """

        def own(module: Module) -> Iterator[tuple[str, Parameter]]:
            """Of one module, by name."""
            return ((n, p) for n, p in vars(module).items() if isinstance(p, Parameter))

        return self._walk(own, prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """The parameters, each one once."""
        return (p for _, p in self.named_parameters(recurse=recurse))

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """The buffers with their paths; see named_parameters."""

        def own(module: Module) -> Iterator[tuple[str, Tensor]]:
            """Of one module, by name."""
            names = vars(module).get("_persistent", ())
            return ((n, vars(module)[n]) for n in names if vars(module).get(n) is not None)

        return self._walk(own, prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """The buffers, each one once."""
        return (b for _, b in self.named_buffers(recurse=recurse))

    def _walk(
        self,
        own: Callable[[Module], Iterator[tuple[str, T]]],
        prefix: str,
        recurse: bool,
        remove_duplicate: bool,
    ) -> Iterator[tuple[str, T]]:
        """What ``own`` gives for each module, with its path."""
        seen: set[int] = set()
        modules = self.named_modules(prefix, remove_duplicate) if recurse else [(prefix, self)]
        for path, module in modules:
            for name, value in own(module):
                if remove_duplicate:
                    if id(value) in seen:
                        continue
                    seen.add(id(value))
                yield _join(path, name), value

    def get_submodule(self, target: str) -> Module:
        """The module at a path such as ``"net.2.fc1"``. Raises AttributeError if there is none."""
        module = self
        for name in target.split(".") if target else ():
            inner = vars(module).get(name)
            if not isinstance(inner, Module):
                known = ", ".join(n for n, _ in module.named_children()) or "none"
                raise AttributeError(
                    f"{type(self).__name__} has no module {target!r}: there is no {name!r} in "
                    f"{type(module).__name__}, whose modules are: {known}"
                )
            module = inner
        return module

    # --- hooks ------------------------------------------------------------------------------------

    def register_forward_pre_hook(
        self, hook: Callable[[Module, tuple[Any, ...]], Any]
    ) -> hooks.RemovableHandle:
        """Call ``hook(module, args)`` before each ``forward``.

        What it returns, if not None, takes the place of the arguments: a tuple, or one value.
        Hooks are called in the order in which they were registered; the handle's ``remove()`` ends
        it. In a compiled function a hook is called when the function is captured, and what it
        computes with tensors is repeated.
        """
        return hooks.register(self, "before", hook)

    def register_forward_hook(
        self, hook: Callable[[Module, tuple[Any, ...], Any], Any]
    ) -> hooks.RemovableHandle:
        """Call ``hook(module, args, output)`` after each ``forward``.

        What it returns, if not None, takes the place of the output. See
        ``register_forward_pre_hook``.
        """
        return hooks.register(self, "after", hook)

    def register_full_backward_hook(
        self, hook: Callable[[Module, tuple[Any, ...], tuple[Any, ...]], Any]
    ) -> hooks.RemovableHandle:
        """Call ``hook(module, grad_input, grad_output)`` when the gradients have arrived.

        grad_input: for each positional argument its gradient, or None. grad_output: for each
        output. What the hook returns, if not None, takes the place of ``grad_input`` (of several
        inputs: of the one whose gradient is known last). Where no argument needs a gradient, it is
        called as soon as ``grad_output`` is there.
        """
        return hooks.register(self, "backward", hook)

    # --- copies -----------------------------------------------------------------------------------

    def _innermost_first(self, deepest: int | None = None) -> Iterator[tuple[Module, int]]:
        """Every module once, those inside another before it, and how deep inside this one it is."""
        seen: set[int] = set()
        stack: list[tuple[Module, int, bool]] = [(self, 0, False)]
        while stack:
            module, depth, complete = stack.pop()
            if complete:
                yield module, depth
            elif id(module) not in seen:
                seen.add(id(module))
                stack.append((module, depth, True))
                if depth != deepest:
                    stack.extend((m, depth + 1, False) for _, m in reversed(_inner(module)))

    def __getstate__(self) -> Any:
        """The attributes; before them the modules far inside, for ``copy`` and ``pickle``.

        These go from an object to its attributes by recursion, which would be as deep as the model.
        """
        state = object.__getstate__(self)
        far = [m for m, depth in self._innermost_first(_FARTHEST) if depth and not depth % _FAR]
        return {"_far": far, **state} if far and isinstance(state, dict) else state

    def __setstate__(self, state: Any) -> None:
        values, slots = state if isinstance(state, tuple) else (state, None)
        vars(self).update(values or {})
        vars(self).pop("_far", None)
        for name, value in (slots or {}).items():
            object.__setattr__(self, name, value)

    # --- changes to all of it -------------------------------------------------------------------

    def apply(self: M, fn: Callable[[Module], Any]) -> M:
        """Call ``fn`` on every module inside, once, and then on this one; returns the module."""
        for module, _ in self._innermost_first():
            fn(module)
        return self

    def train(self: M, mode: bool = True) -> M:
        """Switch to the behaviour of training (or of use, if ``mode`` is False); returns self."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self: M) -> M:
        """Switch to the behaviour of use: no dropout; returns the module."""
        return self.train(False)

    def requires_grad_(self: M, requires_grad: bool = True) -> M:
        """Freeze all parameters, or thaw them; returns the module."""
        for p in self.parameters():
            p.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters; with ``set_to_none=False``, overwrite by 0."""
        for p in self.parameters():
            if set_to_none:
                p.grad = None
            elif p.grad is not None:
                p.grad.copy_(0.0)

    def to(self: M, target: Any = None, *, device: str | None = None, dtype: Any = None) -> M:
        """Move to another device and/or give floating parameters and buffers another dtype.

        The parameters stay the same objects, so an optimizer made before goes on with them.
        ``target`` may be a device name or a dtype. Returns the module.

        Raises DeviceError for a device that is not there, DtypeError for a dtype not floating.
        """
        if isinstance(target, str) and target.partition(":")[0] in ("cpu", "cuda", "auto"):
            device = target
        elif target is not None:
            dtype = target
        if dtype is not None:
            dtype = dtypes.as_dtype(dtype)
            if dtype not in dtypes.FLOATS:
                raise DtypeError(f"a module can only be converted to a floating dtype, not {dtype}")
        for tensor in (*self.parameters(), *self.buffers()):
            _convert(tensor, device, dtype if tensor.dtype in dtypes.FLOATS else None)
        return self

    def cpu(self: M) -> M:
        """Move to the host's memory; returns the module."""
        return self.to(device="cpu")

    def cuda(self: M, device: int | None = None) -> M:
        """Move to a GPU, the one with this number if given; returns the module."""
        return self.to(device="cuda" if device is None else f"cuda:{device}")

    def float(self: M) -> M:
        """Convert to float32; returns the module."""
        return self.to(dtype=dtypes.float32)

    def double(self: M) -> M:
        """Convert to float64; returns the module."""
        return self.to(dtype=dtypes.float64)

    def half(self: M) -> M:
        """Convert to float16; returns the module."""
        return self.to(dtype=dtypes.float16)

    # --- saving and loading -----------------------------------------------------------------------

    def state_dict(self) -> dict[str, Tensor]:
        """Path -> tensor of all parameters and persistent buffers.

        The tensors share the memory of the model, so later training changes them; clone what is
        to be kept. A shared parameter appears under each of its names.
        """
        return {name: tensor.detach() for name, tensor in self._state().items()}

    def _state(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for path, module in self.named_modules(remove_duplicate=False):
            for name, value in vars(module).items():
                if isinstance(value, Parameter):
                    found[_join(path, name)] = value
            for name, persistent in vars(module).get("_persistent", {}).items():
                value = vars(module).get(name)
                if persistent and value is not None:
                    found[_join(path, name)] = value
        return found

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True
    ) -> IncompatibleKeys:
        """Overwrite parameters and buffers with ``state_dict``, path -> tensor or array.

        The values are converted to the dtype and device of the model.
        strict: whether missing and unexpected paths are errors.

        Returns the paths missing and unexpected. Raises ShapeError if a shape differs, or
        ValueError if only paths do, listing all that is wrong; nothing is loaded then.
        """
        own = self._state()
        missing = [name for name in own if name not in state_dict]
        unexpected = [name for name in state_dict if name not in own]
        values = {
            name: value if isinstance(value, Tensor) else Tensor(value, copy=None)
            for name, value in state_dict.items()
            if name in own
        }
        misfits = [
            f"{name}: the model has shape {own[name].shape}, the state {value.shape}"
            for name, value in values.items()
            if value.shape != own[name].shape
        ]
        problems = []
        if strict and missing:
            problems.append(f"missing: {', '.join(missing)}")
        if strict and unexpected:
            problems.append(f"unexpected: {', '.join(unexpected)}")
        problems += misfits
        if problems:
            text = f"{type(self).__name__}.load_state_dict: " + "; ".join(problems)
            if not misfits:
                raise ValueError(f"{text}. strict=False passes over paths that do not match")
            raise ShapeError(text)
        with no_grad():
            for name, value in values.items():
                own[name].copy_(value)
        return IncompatibleKeys(missing, unexpected)

    # --- descriptions -----------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """What ``repr`` shows between the brackets: the arguments the module was made with."""
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in self._shown)

    def __repr__(self) -> str:
        lines: list[str] = []
        around: set[int] = set()
        stack: list[tuple[str, str, Module | int]] = [("", "", self)]
        while stack:
            indent, label, module = stack.pop()
            if isinstance(module, int):
                around.remove(module)
                text = ")"
            elif id(module) in around:
                text = f"{label}{type(module).__name__}(...)"
            elif type(module).__repr__ is not Module.__repr__ and module is not self:
                text = f"{label}{module!r}"
            else:
                extra, inner = module.extra_repr(), _inner(module)
                text = f"{label}{type(module).__name__}("
                if not inner:
                    text += f"{extra})"
                else:
                    text += f"\n  {extra}" if extra else ""
                    around.add(id(module))
                    stack.append((indent, "", id(module)))
                    stack.extend((indent + "  ", f"({n}): ", m) for n, m in reversed(inner))
            lines.append(indent + text.replace("\n", "\n" + indent))
        return "\n".join(lines)

    def check(self, *inputs: Any) -> Any:
        """Run the model on zeros, without data, and find what does not fit.

        inputs: for each argument of ``forward`` a shape, batch included, as ``check((32, 784))``;
            or a tensor, of which shape and dtype count.

        Returns the shape of the output (of a tuple, a tuple of shapes). Raises ``nn.ModelError``, a
        ShapeError, that lists all problems found: the path of the module, the axis, what it got and
        wants, and the nearest change that would make it fit.
        """
        return _shapes(check_shapes(self, inputs))

    def _misfit(self, x: Tensor, *others: Any) -> Misfit | None:
        """What does not fit of the arguments of ``forward``, if a layer can tell beforehand."""
        return None

    def summary(self, input_shape: Any = None, dtype: Any = None) -> Summary:
        """A table of the modules: types, output shapes, parameters, memory, operations.

        input_shape: the shape of the input, batch included, or a list of such shapes for several
            inputs. Zeros are run through the model to see the output shapes, the bytes of what
            a training step keeps, and the floating-point operations of the forward pass; all of
            these are left out if it is ``None``.
        dtype: of the zeros; that of the first parameter by default.
        """
        return summarize(self, input_shape, dtype)


def _inner(module: Module) -> list[tuple[str, Module]]:
    """The modules that are attributes of ``module``, under all their names."""
    return [(n, m) for n, m in vars(module).items() if isinstance(m, Module)]


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _check_name(module: Module, name: str, kind: str) -> None:
    if not isinstance(name, str) or not name or "." in name:
        raise ValueError(f"the name of a {kind} must be text without a dot, got {name!r}")
    if hasattr(module, name):
        raise ValueError(f"{type(module).__name__} already has an attribute {name!r}")


def _convert(tensor: Tensor, device: str | None, dtype: Any) -> None:
    """Move or convert ``tensor`` and its gradient, keeping the object."""
    new = tensor.detach().to(device=device, dtype=dtype)
    if new.data is tensor.data:
        return
    grad, old = tensor.grad, tensor.node
    tensor.node = None  # the old entry speaks of the old dtype
    tensor.data = new.data
    if old is not None:
        tensor.requires_grad = True
        tensor.grad = None if grad is None else grad.detach().to(device=device, dtype=dtype)
        assert tensor.node is not None
        tensor.node.hooks = old.hooks


def _shapes(output: Any) -> Any:
    if isinstance(output, tuple | list):
        return tuple(_shapes(part) for part in output)
    return getattr(output, "shape", None)
