"""Hooks of modules: functions that are called before and after ``forward``, and in backward."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from tensorgrad.ops import positive
from tensorgrad.tensor import Tensor

if TYPE_CHECKING:
    from tensorgrad.nn.module import Module


class Hook(NamedTuple):
    """A registered function: "before", "after" or "backward"."""

    kind: str
    function: Callable[..., Any]


class RemovableHandle:
    """What registering a hook returns: ``remove()`` ends it, and so does leaving a ``with``."""

    def __init__(self, module: Module, hook: Hook) -> None:
        self._module = module
        self._hook = hook

    def remove(self) -> None:
        """Call the hook no more. Nothing happens the second time."""
        left = tuple([h for h in self._module._hooks or () if h is not self._hook])
        self._module._hooks = left or None

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


def register(module: Module, kind: str, function: Callable[..., Any]) -> RemovableHandle:
    """Add a hook to a module."""
    hook = Hook(kind, function)
    # A new tuple, so that whoever keeps the module's attributes notices.
    module._hooks = (*(module._hooks or ()), hook)
    return RemovableHandle(module, hook)


def call(module: Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """``module.forward`` with the hooks around it."""
    hooks = module._hooks or ()
    for hook in hooks:
        if hook.kind == "before":
            found = hook.function(module, args)
            if found is not None:
                args = found if isinstance(found, tuple) else (found,)
    backward = [hook.function for hook in hooks if hook.kind == "backward"]
    watch = _Backward(module, backward) if backward else None
    if watch is not None:
        args = watch.inputs(args)
    output = module.forward(*args, **kwargs)
    for hook in hooks:
        if hook.kind == "after":
            found = hook.function(module, args, output)
            if found is not None:
                output = found
    return output if watch is None else watch.outputs(output)


class _Backward:
    """Collects the gradients by the outputs of one call, then those by its inputs."""

    def __init__(self, module: Module, functions: list[Callable[..., Any]]) -> None:
        self.module = module
        self.functions = functions
        self.grad_output: list[Any] = []
        self.grad_input: list[Any] = []
        self.awaited = 0  # inputs whose gradient is still to come

    def inputs(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments; those with a gradient by way of a node of their own."""
        own = list(args)
        self.grad_input = [None] * len(own)
        for i, x in enumerate(args):
            if isinstance(x, Tensor) and x.requires_grad:
                own[i] = positive(x)
                self.awaited += 1
                own[i].register_hook(lambda g, i=i: self._arrived(i, g))
        return tuple(own)

    def outputs(self, output: Any) -> Any:
        """The output, whose gradients are noted as they come."""
        own = list(output) if isinstance(output, tuple | list) else [output]
        self.grad_output = [None] * len(own)
        for i, y in enumerate(own):
            if isinstance(y, Tensor) and y.requires_grad:
                own[i] = positive(y)
                own[i].register_hook(lambda g, i=i: self._began(i, g))
        return type(output)(own) if isinstance(output, tuple | list) else own[0]

    def _began(self, index: int, g: Tensor) -> None:
        self.grad_output[index] = g
        if not self.awaited:
            self._finished()

    def _arrived(self, index: int, g: Tensor) -> Tensor | None:
        self.grad_input[index] = g
        self.awaited -= 1
        if self.awaited:
            return None
        self._finished()
        replaced: Tensor | None = self.grad_input[index]
        return replaced

    def _finished(self) -> None:
        for function in self.functions:
            found = function(self.module, tuple(self.grad_input), tuple(self.grad_output))
            if found is not None:
                self.grad_input = list(found) if isinstance(found, tuple | list) else [found]
