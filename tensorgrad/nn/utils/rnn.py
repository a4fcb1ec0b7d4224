"""Sequences of different lengths in one batch: padded, or packed without the padding.

Packing reads the lengths, so it is no part of a compiled step; there ``nn.LSTM(x, lengths=...)``
takes padded sequences, with the lengths as a tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tensorgrad.errors import ShapeError
from tensorgrad.ops.creation import full
from tensorgrad.ops.elementwise import where
from tensorgrad.ops.indexing import take
from tensorgrad.ops.shaping import concat, reshape, stack, swapaxes
from tensorgrad.tensor import Tensor

__all__ = [
    "PackedSequence",
    "pack_padded_sequence",
    "pack_sequence",
    "pad_packed_sequence",
    "pad_sequence",
    "unpack_sequence",
    "unpad_sequence",
]


class PackedSequence(NamedTuple):
    """Sequences sorted by length, the longest first: all their first steps, all second ones, ...

    data: (sum of the lengths, ...). batch_sizes: how many sequences have each step, on the CPU.
    sorted_indices, unsorted_indices: from the order of the batch to the sorted one, and back;
    ``None`` if they are the same.
    """

    data: Tensor
    batch_sizes: Tensor
    sorted_indices: Tensor | None = None
    unsorted_indices: Tensor | None = None

    def to(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """With data and indices on another device, or data of another dtype; as ``Tensor.to``."""
        data = self.data.to(*args, **kwargs)
        orders = [
            None if order is None else order.to(data.device)
            for order in (self.sorted_indices, self.unsorted_indices)
        ]
        return PackedSequence(data, self.batch_sizes, *orders)


def lengths_of(packed: PackedSequence) -> np.ndarray[Any, Any]:
    """The lengths in sorted order."""
    sizes = packed.batch_sizes.detach().cpu().numpy()
    return (np.arange(sizes[0])[:, None] < sizes).sum(1)


def _places(lengths: np.ndarray[Any, Any], steps: int) -> tuple[Any, Any]:
    """For lengths in sorted order: which (step, sequence) exist, and the place of each in data."""
    there = np.arange(steps)[:, None] < lengths
    return there, np.where(there, np.cumsum(there).reshape(there.shape) - 1, 0)


def padded(packed: PackedSequence, steps: int | None = None, value: float = 0.0) -> Tensor:
    """(steps, batch, ...) in sorted order, with ``value`` behind the ends."""
    lengths, data = lengths_of(packed), packed.data
    there, places = _places(lengths, int(lengths[0]) if steps is None else steps)
    if data.shape[0] != lengths.sum():
        raise ShapeError(
            f"PackedSequence: batch_sizes add up to {lengths.sum()} steps, but data has shape "
            f"{data.shape}"
        )
    x = take(data, Tensor(places.reshape(-1), device=data.device), axis=0)
    x = reshape(x, (*places.shape, *data.shape[1:]))
    mask = Tensor(there.reshape(there.shape + (1,) * (data.ndim - 1)), device=data.device)
    return where(mask, x, value)


def packed_again(x: Tensor, packed: PackedSequence) -> PackedSequence:
    """``x`` (steps, batch, ...) in sorted order, packed as ``packed`` is."""
    there, _ = _places(lengths_of(packed), x.shape[0])
    at = Tensor(np.flatnonzero(there), device=x.device)
    data = take(reshape(x, (x.shape[0] * x.shape[1], *x.shape[2:])), at, axis=0)
    return packed._replace(data=data)


def pack_padded_sequence(
    input: Tensor,
    lengths: Any,
    batch_first: bool = False,
    enforce_sorted: bool = True,
) -> PackedSequence:
    """Sequences that were padded to one length, without the padding.

    input: (steps, batch, ...), or (batch, steps, ...) with ``batch_first``.
    lengths: a list or a tensor of integers, one for each sequence.
    enforce_sorted: the sequences come with the longest first; if False, they are sorted.

    Raises ValueError for lengths that are out of range or not sorted, ShapeError for another
    number of them.
    """
    x = swapaxes(input, 0, 1) if batch_first else input
    found = lengths.detach().cpu().numpy() if isinstance(lengths, Tensor) else np.asarray(lengths)
    if x.ndim < 2 or found.shape != (x.shape[1],):
        raise ShapeError(
            f"pack_padded_sequence: one length for each of the sequences is needed; got lengths of "
            f"shape {found.shape} for an input of shape {input.shape}, batch_first={batch_first}"
        )
    if found.dtype.kind not in "iu" or not ((found > 0) & (found <= x.shape[0])).all():
        raise ValueError(
            f"pack_padded_sequence: lengths must be integers from 1 to the number of steps, "
            f"{x.shape[0]}; got {found.tolist()}"
        )
    orders: list[Tensor | None] = [None, None]
    if enforce_sorted:
        if (np.diff(found) > 0).any():
            raise ValueError(
                f"pack_padded_sequence: with enforce_sorted the longest sequence comes first; got "
                f"lengths {found.tolist()}. Pass enforce_sorted=False to have them sorted"
            )
    else:
        order = np.argsort(-found, kind="stable")
        orders = [Tensor(o, device=x.device) for o in (order, np.argsort(order))]
        found = found[order]
        x = take(x, orders[0], axis=1)
    there, _ = _places(found, int(found[0]) if found.size else 0)
    sizes = Tensor(there.sum(1), device="cpu")
    return packed_again(x[: len(there)], PackedSequence(x, sizes, *orders))


def pad_packed_sequence(
    sequence: PackedSequence,
    batch_first: bool = False,
    padding_value: float = 0.0,
    total_length: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The sequences padded to one length, in the order of the batch, and their lengths.

    padding_value: what is put behind the ends. total_length: how many steps there are to be, the
    length of the longest if ``None``.

    Raises ValueError if ``total_length`` is below that of the longest, TypeError for anything
    that is not packed.
    """
    if not isinstance(sequence, PackedSequence):
        raise TypeError(
            "pad_packed_sequence: the sequences must be packed, as by pack_padded_sequence or "
            f"what an LSTM gives for such; got {type(sequence).__name__}"
        )
    lengths = lengths_of(sequence)
    if total_length is not None and total_length < lengths.max(initial=0):
        raise ValueError(
            f"pad_packed_sequence: total_length must be at least the length of the longest "
            f"sequence, {lengths.max(initial=0)}; got {total_length}"
        )
    x = padded(sequence, total_length, padding_value)
    if sequence.unsorted_indices is not None:
        x = take(x, sequence.unsorted_indices, axis=1)
        lengths = lengths[sequence.unsorted_indices.cpu().numpy()]
    return (swapaxes(x, 0, 1) if batch_first else x), Tensor(lengths, device="cpu")


def pad_sequence(
    sequences: Iterable[Tensor],
    batch_first: bool = False,
    padding_value: float = 0.0,
    padding_side: str = "right",
) -> Tensor:
    """Tensors (length, ...) of different lengths, padded to one and stacked along a batch axis.

    padding_side: "right", behind the ends, or "left", before the beginnings.

    Raises ValueError for no sequences or another side, ShapeError if other axes differ.
    """
    sequences = list(sequences)  # of a tensor what lies along its first axis
    if not sequences or padding_side not in ("right", "left"):
        raise ValueError(
            f'pad_sequence: needs one sequence or more, and a padding_side of "right" or "left"; '
            f"got {len(sequences)} sequences and {padding_side!r}"
        )
    rest = sequences[0].shape[1:]
    if any(not s.ndim or s.shape[1:] != rest for s in sequences):
        raise ShapeError(
            "pad_sequence: all sequences must have the same axes after the first; got shapes "
            + ", ".join(str(s.shape) for s in sequences)
        )
    steps = max(s.shape[0] for s in sequences)
    rows = []
    for s in sequences:
        missing = (steps - s.shape[0], *rest)
        ends = full(missing, padding_value, dtype=s.dtype, device=s.device)
        rows.append(concat([s, ends] if padding_side == "right" else [ends, s]))
    return stack(rows, axis=0 if batch_first else 1)


def unpad_sequence(
    padded_sequences: Tensor, lengths: Any, batch_first: bool = False
) -> list[Tensor]:
    """The sequences of a padded batch, each as long as it is: the reverse of ``pad_sequence``."""
    x = padded_sequences if batch_first else swapaxes(padded_sequences, 0, 1)
    counts = lengths.tolist() if isinstance(lengths, Tensor) else list(lengths)
    if len(counts) != x.shape[0]:
        raise ShapeError(
            f"unpad_sequence: one length for each of {x.shape[0]} sequences is needed; got "
            f"{len(counts)}"
        )
    return [x[k, :n] for k, n in enumerate(counts)]


def pack_sequence(sequences: Sequence[Tensor], enforce_sorted: bool = True) -> PackedSequence:
    """Tensors (length, ...) of different lengths, packed; see ``pack_padded_sequence``."""
    lengths = [s.shape[0] for s in sequences]
    return pack_padded_sequence(pad_sequence(sequences), lengths, enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """The sequences, in the order of the batch: the reverse of ``pack_sequence``."""
    x, lengths = pad_packed_sequence(packed_sequences, batch_first=True)
    return unpad_sequence(x, lengths, batch_first=True)
