"""The base of all optimizers: parameter groups, states, one call per group, saving and loading."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, TypeGuard

import numpy as np

from tensorgrad import backend
from tensorgrad.dtypes import COMPLEX
from tensorgrad.errors import DtypeError, ShapeError
from tensorgrad.observers import current_mode, is_captured
from tensorgrad.ops.elementwise import isinf
from tensorgrad.ops.parts import LARGE
from tensorgrad.optim.update import REMEDY, Scratch, warn
from tensorgrad.sparse import LazyGradient
from tensorgrad.tape import Primitive, apply_update, wrap
from tensorgrad.tensor import Tensor
from tensorgrad.versions import next_position

Params = Iterable[Tensor | tuple[str, Tensor] | Mapping[str, Any]]
Group = dict[str, Any]

# The keys of a group that are not options of the update rule.
_NOT_OPTIONS = ("params", "param_names")


class Bundle:
    """Parameters of a group that are updated by one call.

    They share the dtype, the device and the number of steps taken; each of their states is one
    flat array, of which ``Optimizer.state`` shows the parts.
    """

    __slots__ = ("alone", "array_type", "dtype", "heads", "number", "params", "scratch")

    def __init__(
        self, params: list[Tensor], heads: list[Any], scratch: Scratch, alone: bool
    ) -> None:
        self.params = params
        #: whether it is one table, of which only some rows may be updated
        self.alone = alone
        #: the step count and the states, as arrays; ``None`` for what is not in use
        self.heads = heads
        self.scratch = scratch
        self.dtype = params[0].data.dtype
        self.array_type = type(params[0].data)
        #: the number of the GPU; on the CPU the type of the arrays says enough
        self.number = None if params[0].device == "cpu" else params[0].data.data.device_id

    def operands(self) -> list[Any] | None:
        """The arrays for the primitive, or ``None`` if the bundle no longer fits.

        Where the gradient is kept as rows, they are for the primitive of rows.
        """
        dtype, array_type, number = self.dtype, self.array_type, self.number
        if self.alone and _comes_in_rows(g := self.params[0].grad):
            a = self.params[0].data
            fits = type(a) is array_type and a.dtype is dtype
            same = self.number is None or (fits and a.data.device_id == self.number)
            return [*self.heads, a, *g.for_update()] if fits and same else None
        values = []
        gradients = []
        for p in self.params:
            node = p.node  # p.grad written out: this runs for every parameter in every step
            g = None if node is None else node.grad
            a = p.data
            if g is None or type(a) is not array_type or a.dtype is not dtype:
                return None
            if number is not None and a.data.device_id != number:
                return None
            values.append(a)
            gradients.append(g.data)
        return [*self.heads, *values, *gradients]


def _comes_in_rows(g: Any) -> TypeGuard[LazyGradient]:
    """Whether a gradient is updated by rows; in programs only what they compute as rows."""
    return isinstance(g, LazyGradient) and (g.is_recorded or not is_captured())


def _may_come_in_rows(p: Tensor) -> bool:
    """Whether the gradient is kept as rows, or may be next time, as those of large tables."""
    return isinstance(p.grad, LazyGradient) or (p.ndim == 2 and p.nbytes >= LARGE)


class Plan:
    """How the parameters of a group fall into bundles, and which have no gradient now."""

    __slots__ = ("bundles", "count", "idle", "params", "used")

    def __init__(
        self, params: list[Tensor], bundles: list[Bundle], idle: list[Tensor], used: Sequence[str]
    ) -> None:
        self.params = params
        self.count = len(params)
        self.bundles = bundles
        self.idle = idle
        self.used = used

    def operands(self, group: Group, used: Sequence[str]) -> list[list[Any]] | None:
        """The arrays bundle by bundle, or ``None`` if the plan no longer fits the group."""
        params = group["params"]
        if params is not self.params or len(params) != self.count or used != self.used:
            return None
        for p in self.idle:
            if p.grad is not None:
                return None
        found = []
        for bundle in self.bundles:
            operands = bundle.operands()
            if operands is None:
                return None
            found.append(operands)
        return found


class Optimizer:
    """Base class of the optimizers; a subclass gives an update rule, or its own ``step``.

    params: the tensors to optimize, leaves with ``requires_grad=True``: tensors, pairs of a name
        and a tensor (``model.named_parameters()``), or dicts, each with ``"params"`` and options
        that override the defaults for this group.
    defaults: the options of the groups that do not set them.

    ``param_groups`` is a list of dicts as in PyTorch; ``group["lr"] = 0.01`` takes effect in the
    next step. ``state[p]`` shows the state of a parameter; it is read-only in so far as what is
    put there has no effect (``load_state_dict`` has).

    16-bit parameters have float32 states; their steps are computed in float32 and rounded once.

    Raises ValueError for no parameters, a parameter named twice, an unknown option or one out of
    its range; TypeError for what is no tensor; and ValueError for tensors that are not leaves.
    """

    #: the primitive of the update rule, made by ``update_primitive``
    primitive: ClassVar[Primitive]
    #: the same for rows of one parameter, by ``primitive_of_rows``; None where all rows change
    primitive_of_rows: ClassVar[Primitive | None] = None
    #: the states of the rule, in the order in which the primitive takes them
    states: ClassVar[tuple[str, ...]] = ()

    def __init__(self, params: Params, defaults: Mapping[str, Any]) -> None:
        #: when it was made: a position on the tape, of which later ones are lower
        self.made_at = next_position()
        self.defaults = dict(defaults)
        self.param_groups: list[Group] = []
        self.state: defaultdict[Tensor, dict[str, Tensor]] = defaultdict(dict)
        self._plans: dict[int, Plan] = {}
        if isinstance(params, Tensor | Mapping):
            raise TypeError(
                f"{self._name}: params must be a list of tensors, of (name, tensor) pairs or of "
                f"dicts, not one {type(params).__name__}; write [it]"
            )
        items = list(params)
        if not items:
            raise ValueError(
                f"{self._name}: there is nothing to optimize, the list of parameters is empty; an "
                "iterator such as model.parameters() can be used up only once"
            )
        groups: list[Any] = [{"params": items}]
        if isinstance(items[0], Mapping):
            groups = items
        for group in groups:
            self.add_param_group(group)

    @property
    def live_options(self) -> Sequence[str]:
        """The options that a program looks up again in each replay."""
        primitive = getattr(self, "primitive", None) or self.primitive_of_rows
        assert primitive is not None
        return primitive.live

    @property
    def _name(self) -> str:
        return type(self).__name__

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Add a group: ``{"params": tensors, option: value, ...}``. Raises as the class does."""
        if not isinstance(group, Mapping) or "params" not in group:
            raise ValueError(f'{self._name}: a group must be a dict with "params"; got {group!r}')
        params = group["params"]
        params = [params] if isinstance(params, Tensor) else list(params)
        names = None
        if params and isinstance(params[0], tuple):
            names = [name for name, _ in params]
            params = [p for _, p in params]
        for i, p in enumerate(params):
            self._check_parameter(p, names[i] if names else str(i))
        if len({id(p) for p in params}) != len(params):
            raise ValueError(f"{self._name}: a parameter is listed twice in one group")
        known = {id(p) for g in self.param_groups for p in g["params"]}
        if any(id(p) in known for p in params):
            raise ValueError(f"{self._name}: a parameter is in more than one group")
        unknown = [k for k in group if k not in self.defaults and k not in _NOT_OPTIONS]
        if unknown:
            raise ValueError(
                f"{self._name}: unknown option {unknown[0]!r}; a group takes "
                f"{', '.join(self.defaults)}"
            )
        new = {**self.defaults, **group, "params": params}
        if names is not None:
            new["param_names"] = names
        self._check_options(new)
        self.param_groups.append(new)

    def _check_parameter(self, p: Any, name: str) -> None:
        if not isinstance(p, Tensor):
            raise TypeError(
                f"{self._name}: only tensors can be optimized; parameter {name} is a "
                f"{type(p).__name__}"
            )
        if p.dtype in COMPLEX:
            raise DtypeError(
                f"{self._name}: parameter {name} is {p.dtype}, and squares of gradients are not "
                "those of complex ones; optimize its two parts, and make it of them by tg.complex"
            )
        if not p.is_leaf:
            raise ValueError(
                f"{self._name}: parameter {name} was computed by an operation, and only a tensor "
                "made by the user can be optimized; use x.detach().requires_grad_()"
            )

    def _check_options(self, group: Group) -> None:
        """Raise ValueError for an option out of its range."""
        for name in ("lr", "eps", "weight_decay", "momentum", "lr_decay"):
            if name in group:
                self._check_at_least_0(name, group[name])

    def _check_at_least_0(self, name: str, value: Any) -> None:
        if not isinstance(value, int | float | np.number) or not 0 <= value < math.inf:
            raise ValueError(f"{self._name}: {name} must be a number >= 0, got {value!r}")

    def _check_betas(self, betas: Any) -> None:
        if len(betas) != 2:
            raise ValueError(f"{self._name}: betas must be two numbers, got {betas!r}")
        for beta in betas:
            self._check_below_1("betas", beta)

    def _check_below_1(self, name: str, value: Any) -> None:
        if not isinstance(value, int | float | np.number) or not 0 <= value < 1:
            raise ValueError(f"{self._name}: {name} must lie in [0, 1), got {value!r}")

    # --- the step -------------------------------------------------------------------------------

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients, before the next ``backward()``.

        set_to_none: False overwrites them with zeros instead, so that every parameter is updated.
        """
        observers = current_mode().observers
        for observer in observers:
            observer.clearing(self)
        for group in self.param_groups:
            for p in group["params"]:
                if set_to_none:
                    if p.node is not None:
                        for observer in observers:
                            observer.changed_gradient(p.node, True)
                        p.node.grad = None
                elif p.grad is not None:
                    p.grad.copy_(0.0)

    def step(self) -> None:
        """Update every parameter that has a gradient, by one call for each group.

        More than one call only if the parameters of a group differ in dtype, device or the number
        of steps they have taken.
        """
        for i, group in enumerate(self.param_groups):
            used = self._used(group)
            plan = self._plans.get(i)
            operands = None if plan is None else plan.operands(group, used)
            if plan is None or operands is None:
                plan = self._plans[i] = self._new_plan(group, used)
                operands = plan.operands(group, used)
                assert operands is not None  # it was made for what is there
            options = self._options(group)
            for j, (bundle, arrays) in enumerate(zip(plan.bundles, operands)):
                for observer in current_mode().observers:
                    observer.updating(self, i, j)
                options["scratch"] = bundle.scratch
                g = bundle.params[0].grad
                if bundle.alone and _comes_in_rows(g):
                    assert self.primitive_of_rows is not None
                    of_rows = {**options, "repeated": g.is_recorded}
                    apply_update(self.primitive_of_rows, arrays, of_rows, len(arrays) - 2)
                    continue
                written = len(arrays) - len(bundle.params)
                apply_update(self.primitive, arrays, options, written)

    def _used(self, group: Group) -> Sequence[str]:
        """The states in use with the options of ``group``, with "step" if steps are counted."""
        raise NotImplementedError(f"{self._name} must define _used(), or its own step()")

    def _options(self, group: Group) -> dict[str, Any]:
        """The attributes for the primitive."""
        return {name: group[name] for name in self.defaults}

    def _takes_rows(self, group: Group) -> bool:
        """Whether rows without a gradient stay as they are, so that none are looked at."""
        return False

    def _initial(self, state: str, group: Group) -> float:
        """The value with which a state begins."""
        return 0.0

    def _state_shape(self, state: str, p: Tensor) -> tuple[int, ...] | None:
        """The shape of a state of a parameter; None if it has none of this name."""
        return p.shape

    def _new_plan(self, group: Group, used: Sequence[str]) -> Plan:
        """Bundle the parameters that have a gradient now; states go on from where they are."""
        bundles: dict[tuple[Any, ...], list[Tensor]] = {}
        idle = []
        takes_rows = self._takes_rows(group)
        for p in group["params"]:
            if p.grad is None:
                idle.append(p)
                # A copy releases the flat arrays of the last plan.
                self.state[p] = {k: _copy(v) for k, v in self.state[p].items()}
            else:
                step = self.state[p].get("step")
                steps = 0 if step is None else int(step.data)
                alone = id(p) if takes_rows and _may_come_in_rows(p) else None
                bundles.setdefault((p.dtype, p.device, steps, alone), []).append(p)
        made = [
            self._bundle(ps, group, used, alone is not None) for (*_, alone), ps in bundles.items()
        ]
        return Plan(group["params"], made, idle, used)

    def _bundle(
        self, params: list[Tensor], group: Group, used: Sequence[str], alone: bool
    ) -> Bundle:
        # Small parameters first, so that they lie side by side and are gathered into one piece.
        params = sorted(params, key=lambda p: p.size)
        device = params[0].device
        scratch = Scratch([p.shape for p in params], params[0].dtype, device)
        place = backend.backend_for(device)
        heads: list[Any] = []
        step = None
        if "step" in used:
            old = self.state[params[0]].get("step")
            count = 0 if old is None else int(old.data)
            step = wrap(place.asarray(np.array(count, np.int64), None, device, True), None)
        heads.append(None if step is None else step.data)
        states: dict[str, tuple[Any, list[int], list[tuple[int, ...] | None]]] = {}
        for name in self.states:
            if name not in used:
                heads.append(None)
                continue
            starts, total = list(scratch.starts), scratch.total
            shapes = [self._state_shape(name, p) for p in params]
            if any(shape != p.shape for shape, p in zip(shapes, params)):
                sizes = [0 if shape is None else math.prod(shape) for shape in shapes]
                *starts, total = itertools.accumulate(sizes, initial=0)
            flat = place.asarray(np.zeros(total, scratch.dtype), None, device, True)
            states[name] = flat, starts, shapes
            heads.append(flat)
        for i, p in enumerate(params):
            old_state = self.state[p]
            new_state: dict[str, Tensor] = {} if step is None else {"step": step}
            for name, (flat, starts, shapes) in states.items():
                shape = shapes[i]
                if shape is None:
                    continue
                view = flat[starts[i] : starts[i] + math.prod(shape)].reshape(shape)
                with place.at(device):
                    if name in old_state:
                        view[...] = old_state[name].to(device).data
                    else:
                        view[...] = self._initial(name, group)
                new_state[name] = wrap(view, None)
            self.state[p] = new_state
        return Bundle(params, heads, scratch, alone)

    # --- saving and loading -----------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on later, as a dict of tensors and numbers.

        ``{"optimizer": name of the class, "state": {i: {name: tensor}}, "param_groups": [{option:
        value, "params": [i, ...]}]}``, the parameters being numbered through the groups. The
        tensors are copies. Warns of states that are infinite, which keep their parameters where
        they are: a compiled step has no time to look.
        """
        number = {p: i for i, p in enumerate(self._all_params())}
        for p, i in number.items():
            for name, value in self.state[p].items():
                count = 0 if name == "step" else int(isinf(value).sum())
                if count:
                    warn(
                        f"{self._name}: state {name!r} of parameter {i} is infinite in {count} of "
                        f"{value.size} places. {REMEDY}"
                    )
        return {
            "optimizer": self._name,
            "state": {
                i: {k: _copy(v) for k, v in self.state[p].items()}
                for p, i in number.items()
                if self.state[p]
            },
            "param_groups": [
                {**group, "params": [number[p] for p in group["params"]]}
                for group in self.param_groups
            ],
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict()`` gave; the parameters must be listed in the same order.

        Nothing is changed unless all fits. Raises ValueError if the state is of another optimizer,
        or the groups differ in number or size, ShapeError if a state has another shape than its
        parameter.
        """
        groups, state = state_dict["param_groups"], state_dict["state"]
        self._check_kind(state_dict.get("optimizer"), groups, state)
        theirs = [len(g["params"]) for g in groups]
        ours = [len(g["params"]) for g in self.param_groups]
        if theirs != ours:
            raise ValueError(
                f"{self._name}: the groups must have the same numbers of parameters; this "
                f"optimizer has {ours}, the state has {theirs}"
            )
        params = self._all_params()
        places = [i for g in groups for i in g["params"]]
        loaded: defaultdict[Tensor, dict[str, Tensor]] = defaultdict(dict)
        for place, p in zip(places, params, strict=True):
            # JSON and safetensors know only text as keys.
            values = state.get(place, state.get(str(place)))
            if values is None:
                continue
            loaded[p] = {k: _copy(Tensor(v, copy=None).to(p.device)) for k, v in values.items()}
            for name, value in loaded[p].items():
                shape = self._state_shape(name, p)
                if name != "step" and value.shape != shape:
                    raise ShapeError(
                        f"{self._name}: state {name!r} of parameter {place}, of shape {p.shape}, "
                        f"must have shape {shape}; got {value.shape}"
                    )
        merged = [
            {**ours, **{k: v for k, v in theirs.items() if k in self.defaults}}
            for ours, theirs in zip(self.param_groups, groups, strict=True)
        ]
        for group in merged:
            self._check_options(group)
        for group, new in zip(self.param_groups, merged, strict=True):
            group.update(new)
        self.state = loaded
        self._plans.clear()

    def __getstate__(self) -> dict[str, Any]:
        """For ``copy`` and ``pickle``: plans refer to the memory that they were made for."""
        return {**vars(self), "_plans": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.made_at = next_position()

    def _check_kind(
        self, name: str | None, groups: Sequence[Mapping[str, Any]], state: Mapping[Any, Any]
    ) -> None:
        """Raise ValueError for what another optimizer saved: its numbers mean something else."""
        if name is not None:
            if name != self._name:
                raise ValueError(
                    f"{self._name}: the state was saved by {name}, whose numbers mean something "
                    f"else; load it into {name}, or, if both have the same rule, without its "
                    '"optimizer"'
                )
            return
        for theirs in groups:
            odd = {*self.defaults} ^ {*theirs} - {*_NOT_OPTIONS}
            if odd:
                raise ValueError(
                    f"{self._name}: the state is of another optimizer, for only one of the two has "
                    f"the option {min(odd)!r}; {self._name} has {', '.join(self.defaults)}"
                )
        for values in state.values() if self.states else ():
            for name in values:
                if name not in ("step", *self.states):
                    raise ValueError(
                        f"{self._name}: the state is of another optimizer, for it has {name!r}; "
                        f"{self._name} has {', '.join(self.states)}"
                    )

    def _all_params(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def __repr__(self) -> str:
        lines = []
        for i, group in enumerate(self.param_groups):
            options = ", ".join(f"{k}={v!r}" for k, v in group.items() if k not in _NOT_OPTIONS)
            lines.append(f"  ({i}): {len(group['params'])} parameters, {options}")
        return f"{self._name}(\n" + "\n".join(lines) + "\n)"


def _copy(x: Tensor) -> Tensor:
    return x.detach().clone()
