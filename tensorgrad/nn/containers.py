"""Modules made of modules: Sequential, ModuleList, ModuleDict, Residual."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar, overload

from numpy import ndarray

from tensorgrad.errors import ShapeError
from tensorgrad.nn.activations import fused
from tensorgrad.nn.layers import Linear
from tensorgrad.nn.module import Module
from tensorgrad.tensor import Tensor

__all__ = ["ModuleDict", "ModuleList", "Residual", "Sequential"]

L = TypeVar("L", bound="_List")


class _List(Module):
    """Modules in order, which are attributes named "0", "1", ... unless they have other names."""

    def _add(self, name: str, module: Any) -> None:
        if not isinstance(module, Module):
            raise TypeError(
                f"{type(self).__name__}: {name} must be a module, not {type(module).__name__}"
            )
        self.add_module(name, module)

    def _all(self) -> list[tuple[str, Module]]:
        # Not named_children(), which leaves out the second place of a module that has two.
        return [(n, m) for n, m in vars(self).items() if isinstance(m, Module)]

    def __len__(self) -> int:
        return len(self._all())

    def __iter__(self) -> Iterator[Module]:
        return iter([module for _, module in self._all()])

    @overload
    def __getitem__(self: L, index: slice) -> L: ...

    @overload
    def __getitem__(self, index: int) -> Module: ...

    def __getitem__(self: L, index: int | slice) -> L | Module:
        """A module by its place; of a slice, a container with those modules, which are shared."""
        if isinstance(index, slice):
            part = type(self)()
            for i, (name, module) in enumerate(self._all()[index]):
                part._add(str(i) if name.isdigit() else name, module)
            return part
        return self._at(index)[1]

    def _at(self, index: int) -> tuple[str, Module]:
        modules = self._all()
        if not -len(modules) <= index < len(modules):
            raise IndexError(
                f"{type(self).__name__} holds {len(modules)} modules; there is no number {index}"
            )
        return modules[index]

    def __setitem__(self, index: int, module: Module) -> None:
        """Put a module in the place of another. Raises TypeError for what is no module."""
        name, _ = self._at(index)
        if not isinstance(module, Module):
            raise TypeError(
                f"{type(self).__name__}: {name} must be a module, not {type(module).__name__}"
            )
        setattr(self, name, module)

    def __delitem__(self, index: int | slice) -> None:
        """Take modules out; names that are numbers count from 0 again."""
        modules = self._all()
        gone = modules[index] if isinstance(index, slice) else [self._at(index)]
        names = {name for name, _ in gone}
        for name, _ in modules:
            delattr(self, name)
        left = [(name, module) for name, module in modules if name not in names]
        for i, (name, module) in enumerate(left):
            self._add(str(i) if name.isdigit() else name, module)

    def append(self: L, module: Module) -> L:
        """Add a module at the end; returns the container. Raises TypeError for anything else."""
        self._add(str(len(self)), module)
        return self

    def extend(self: L, modules: Iterable[Module]) -> L:
        """Add several modules at the end; returns the container."""
        for module in modules:
            self.append(module)
        return self


class Sequential(_List):
    """Modules of which each is called with the output of the one before.

    modules: the modules, named "0", "1", ...; or one dict of names and modules.

    ``model[1]`` is the second module, ``model[:2]`` a Sequential of the first two. On a GPU a
    Linear layer with a bias and the activation after it are computed in one pass over the data.
    Raises TypeError for what is no module, ValueError for a name that cannot be an attribute.
    """

    def __init__(self, *modules: Module | Mapping[str, Module]) -> None:
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            for name, module in modules[0].items():
                self._add(name, module)
        else:
            for i, item in enumerate(modules):
                self._add(str(i), item)

    def forward(self, x: Any) -> Any:
        """The output of the last module."""
        if type(x) is Tensor and type(x.data) is not ndarray:
            return self._forward_on_gpu(x)
        for module in vars(self).values():
            if isinstance(module, Module):
                x = module(x)
        return x

    def _forward_on_gpu(self, x: Any) -> Any:
        modules = [m for m in vars(self).values() if isinstance(m, Module)]
        done = False
        for module, following in zip(modules, [*modules[1:], None]):
            if done:  # along with the one before
                done = False
                continue
            activation = None
            if type(module) is Linear and module.bias is not None:
                activation = fused(following)
            done = activation is not None
            x = module(x, activation=activation) if done else module(x)
        return x


class ModuleList(_List):
    """A list of modules whose parameters belong to the module that holds the list.

    In a plain Python list they would not be found. It is not called itself.
    """

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        self.extend(modules)


class ModuleDict(Module):
    """A dict of modules whose parameters belong to the module that holds the dict.

    modules: names and modules, in order. It is not called itself.

    Raises TypeError for what is no module, ValueError for a name that cannot be an attribute.
    """

    def __init__(self, modules: Mapping[str, Module] | None = None) -> None:
        self.update(modules or {})

    def __getitem__(self, name: str) -> Module:
        """The module of that name. Raises KeyError with the names that there are."""
        found = vars(self).get(name)
        if not isinstance(found, Module):
            raise KeyError(f"there is no module {name!r}; there are {', '.join(self) or 'none'}")
        return found

    def __setitem__(self, name: str, module: Module) -> None:
        if not isinstance(module, Module):
            raise TypeError(f"ModuleDict: {name} must be a module, not {type(module).__name__}")
        if isinstance(vars(self).get(name), Module):
            setattr(self, name, module)
        else:
            self.add_module(name, module)

    def __delitem__(self, name: str) -> None:
        self[name]
        delattr(self, name)

    def __len__(self) -> int:
        return len(self.keys())

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __contains__(self, name: object) -> bool:
        return name in self.keys()

    def keys(self) -> list[str]:
        """The names in order."""
        return [name for name, module in vars(self).items() if isinstance(module, Module)]

    def values(self) -> list[Module]:
        """The modules in order."""
        return [self[name] for name in self.keys()]

    def items(self) -> list[tuple[str, Module]]:
        """Names and modules in order."""
        return [(name, self[name]) for name in self.keys()]

    def update(self, modules: Mapping[str, Module]) -> None:
        """Add modules, or put them in the place of others of the same name."""
        for name, module in modules.items():
            self[name] = module


class Residual(Module):
    """``shortcut(x) + module(x)``: a module that adds to its input (He and others, 2016).

    module: gives the shape of its input, or that of the shortcut.
    shortcut: what is added to; the input itself if ``None``.

    Raises ShapeError if the two shapes differ.
    """

    def __init__(self, module: Module, shortcut: Module | None = None) -> None:
        self.module = module
        self.shortcut = shortcut

    def forward(self, x: Any) -> Any:
        """The sum."""
        y = self.module(x)
        base = x if self.shortcut is None else self.shortcut(x)
        if base.shape != y.shape:
            raise ShapeError(
                f"Residual: the module gives shape {y.shape}, which cannot be added to "
                f"{base.shape}; give a shortcut, such as nn.Linear, that maps one to the other"
            )
        return base + y
