"""Units that a GPU can run at the same time: which nests one launch takes along.

The update of a network's parameters is a nest for each parameter, none of which looks at another:
as launches of their own they would cost more than what they do. A nest joins the next launch of
nests that comes before everything that depends on it; so it may wait for units that it has nothing
to do with, and what it reads and writes counts until then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tensorgrad.program.loop_ir import Call, Storage, View, outputs_of
from tensorgrad.program.schedule import Nest, Unit

# Nests of one launch, and how many launches ahead one is looked for.
_MOST, _AHEAD = 128, 64
# Stretches of one storage that are told apart; of more it counts as one.
_STRETCHES = 1024

#: The first and the last element that a view reaches.
_Stretch = tuple[int, int]


def side_by_side(
    units: Sequence[Unit], joins: Callable[[Nest, Sequence[Unit]], bool]
) -> list[list[Unit]]:
    """The units in groups, in order; those of one group, if there are several, are nests of which
    none reads or writes what another one writes.

    joins: whether a nest may run in one launch with these nests, or with none.
    """
    groups: list[list[Unit]] = []  # from the end
    written, read = _Uses(), _Uses()
    barrier = -1  # calls stay where they are
    for unit in reversed(units):
        reads, writes = unit.reads(), written_by(unit)
        until = max(
            [
                barrier,
                *[written.latest(v) for v in reads],
                *[max(written.latest(v), read.latest(v)) for v in writes],
            ]
        )
        is_call = not isinstance(unit, Nest) and type(unit.operation) is Call
        at = _group_for(unit, groups, len(groups) if is_call else until, joins)
        if at is None:
            at = len(groups)
            groups.append([])
        groups[at].append(unit)
        barrier = at if is_call else barrier
        for v in reads:
            read.add(v, at)
        for v in writes:
            written.add(v, at)
    return [group[::-1] for group in reversed(groups)]


def written_by(unit: Unit) -> list[View]:
    """What a unit writes to memory."""
    if isinstance(unit, Nest):
        return [m.out for m in unit.stored]
    return list(outputs_of(unit.operation))


def _group_for(
    unit: Unit,
    groups: list[list[Unit]],
    until: int,
    joins: Callable[[Nest, Sequence[Unit]], bool],
) -> int | None:
    if not isinstance(unit, Nest) or not joins(unit, ()):
        return None
    for at in range(len(groups) - 1, max(until, len(groups) - 1 - _AHEAD), -1):
        if isinstance(groups[at][0], Nest) and len(groups[at]) < _MOST and joins(unit, groups[at]):
            return at
    return None


class _Uses:
    """Which is the first group of all, in the order of the program, to use each part of a storage.

    Groups are counted from the end.
    """

    def __init__(self) -> None:
        self._of: dict[Storage, dict[_Stretch, int]] = {}

    def add(self, view: View, group: int) -> None:
        """Note a use of what ``view`` reaches."""
        known = self._of.setdefault(view.storage, {})
        key = _stretch(view)
        known[key] = max(known.get(key, -1), group)
        if len(known) > _STRETCHES:
            self._of[view.storage] = {(0, view.storage.size): max(known.values())}

    def latest(self, view: View) -> int:
        """The number of the first group that uses any of it; -1 if none does."""
        low, high = _stretch(view)
        known = self._of.get(view.storage, {})
        return max((at for (a, b), at in known.items() if a <= high and low <= b), default=-1)


def _stretch(view: View) -> _Stretch:
    reach = [(n - 1) * s for n, s in zip(view.shape, view.strides)]
    low = view.offset + sum(r for r in reach if r < 0)
    return low, view.offset + sum(r for r in reach if r > 0)
