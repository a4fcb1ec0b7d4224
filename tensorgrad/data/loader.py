"""DataLoader: a data set in batches, in an order that can be repeated and resumed."""

from __future__ import annotations

import os
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy import ndarray

from tensorgrad import backend
from tensorgrad.backend import is_array, philox
from tensorgrad.data import transforms
from tensorgrad.data.batches import mapped
from tensorgrad.data.datasets import Dataset, DatasetError, take
from tensorgrad.data.samplers import Sampler
from tensorgrad.data.workers import Workers
from tensorgrad.ops.random import Generator, default_generator
from tensorgrad.tape import wrap
from tensorgrad.tensor import Tensor

# Each epoch draws from its own stretch of the random stream: 2**24 epochs of 2**40 words.
_WORDS_PER_EPOCH = 1 << 40


class _Fetch:
    """Fetches a batch; a copy of it goes to each worker process."""

    def __init__(self, dataset: Dataset, transform: Any) -> None:
        self.dataset = dataset
        self.transform = transform

    def __call__(self, key: int, epoch: int, number: int, indices: ndarray[Any, Any]) -> Any:
        """Batch ``number`` of an epoch: the examples at ``indices``."""
        batch = take(self.dataset, indices)
        if self.transform is None:
            return batch
        # Philox: the key and the counter are the position, so no batch depends on another.
        random = np.random.Generator(np.random.Philox(counter=[0, 0, number, epoch], key=[key, 0]))
        return transforms.apply(self.transform, batch, random)


def _examples_of_an_epoch(dataset: Dataset, sampler: Sampler | None) -> int:
    n = len(dataset) if sampler is None else len(sampler)
    if not n or not len(dataset):
        raise DatasetError("DataLoader: the data set holds no examples")
    wanted = getattr(sampler, "examples", len(dataset))
    if wanted != len(dataset):
        raise DatasetError(
            f"DataLoader: the sampler is for a data set of {wanted} examples, but this one has "
            f"{len(dataset)}; give it a weight or label for each"
        )
    return n


class DataLoader:
    """Iterates over a data set in batches; one pass is an epoch.

    dataset: a TensorDataset or Subset, whose batches are fetched with one indexing operation, or
        anything with ``len(dataset)`` and ``dataset[i]``, whose examples are stacked.
    batch_size: examples per batch; 1 is on-line learning, "full" or None the whole data set.
    shuffle: go through the examples in another random order in each epoch.
    drop_last: leave out a last batch that is smaller than the others.
    seed: what the orders follow from: an integer, or a Generator from which one number is drawn
        now. Left out, it is drawn from the default generator, which ``manual_seed`` sets.
    device: where the batches go. Left out, arrays on a GPU stay there and others go to the default
        device.
    prefetch: how many batches are under way to a GPU while one is in use. They travel through
        pinned memory on a stream of their own, so that copying and computing overlap. 0 sends
        each batch when it is asked for. With workers, also how many more batches than workers
        are fetched ahead.
    sampler: which examples an epoch has and in which order, as ``WeightedSampler``, in place of
        ``shuffle``.
    transform: a ``transforms.Transform``, or a function of the parts of a batch (of a batch that is
        a dict, as it is) that returns the new parts; applied to each batch where it is fetched.
    workers: how many threads fetch batches ahead; 0 fetches each when it is asked for. Worth it
        where an example takes time, as an image to be decoded, or ``transform`` does.
    processes: processes instead of threads, for work in pure Python. The data set and the
        transform are copied to them once, so they must not change afterwards.

    A batch is a tuple of tensors [batch, ...] in memory of their own; where the examples are named
    tuples or dicts, or nested, so is the batch, and texts come as lists. The order of the examples
    depends on the seed and the number of the epoch alone: it is the same on every device and for
    any number of workers, and does not change when random numbers are drawn elsewhere. Several
    passes may be under way at a time; each is an epoch of its own.

    Raises DatasetError for an empty data set or an unusable batch size, DeviceError for a device
    that is not there.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int | str | None = 1,
        shuffle: bool = False,
        drop_last: bool = False,
        seed: int | Generator | None = None,
        device: str | None = None,
        prefetch: int = 1,
        *,
        sampler: Sampler | None = None,
        transform: transforms.Transform | Callable[..., Any] | None = None,
        workers: int = 0,
        processes: bool = False,
    ) -> None:
        if shuffle and sampler is not None:
            raise DatasetError("DataLoader: a sampler decides on the order; leave out shuffle")
        n = _examples_of_an_epoch(dataset, sampler)
        if batch_size in ("full", None):
            batch_size = n
        if not isinstance(batch_size, int | np.integer) or batch_size < 1:
            raise DatasetError(
                f'DataLoader: batch_size must be a whole number from 1, or "full"; got '
                f"{batch_size!r}"
            )
        if drop_last and batch_size > n:
            raise DatasetError(
                f"DataLoader: with drop_last, no batch of {batch_size} is left of {n} examples; "
                "take a smaller batch_size"
            )
        for name, count in (("prefetch", prefetch), ("workers", workers)):
            if not isinstance(count, int | np.integer) or count < 0:
                raise DatasetError(
                    f"DataLoader: {name} must be a whole number from 0; got {count!r}"
                )
        if processes and not workers:
            raise DatasetError("DataLoader: processes=True needs a number of workers, as workers=2")
        self.dataset = dataset
        self.batch_size = int(batch_size)
        self.prefetch = int(prefetch)
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.device = None if device is None else backend.normalize(device)
        self.sampler = sampler
        self.workers = int(workers)
        self.processes = processes
        drawn = shuffle or sampler is not None or transform is not None
        self._key = _key(seed) if drawn else 0
        self._fetch = _Fetch(dataset, transform)
        self._workers: Workers | None = None
        self._begun = 0  # epochs
        self._epoch = 0  # of the pass that handed out a batch last, or the next one
        self._position = 0  # batches of it handed out
        self._resumed = False

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        whole, rest = divmod(self.examples, self.batch_size)
        return whole + (1 if rest and not self.drop_last else 0)

    @property
    def examples(self) -> int:
        """The number of examples in an epoch."""
        return len(self.dataset if self.sampler is None else self.sampler)

    @property
    def epoch(self) -> int:
        """The number of the epoch that is under way or comes next, from 0."""
        return self._epoch

    def next_place(self) -> tuple[int, int]:
        """Where the next pass begins: the number of its epoch, and of the batch in it."""
        return (self._epoch, self._position) if self._resumed else (self._begun, 0)

    def __iter__(self) -> Iterator[Any]:
        """The batches of an epoch: of the next one, or the rest of one that was resumed.

        The epoch begins with the first batch that is asked for. Breaking off ends it.
        """
        epoch, first = self.next_place()
        self._resumed = False
        self._begun = max(self._begun, epoch + 1)
        self._epoch, self._position = epoch, first
        place = backend.default_device() if self.device is None else self.device
        for done, batch in enumerate(self._sent(epoch, first, place), first + 1):
            # Counted before it is handed out: a state saved while it is used begins after it.
            self._epoch, self._position = epoch, done
            yield batch
        self._epoch, self._position = self._begun, 0

    def _sent(self, epoch: int, first: int, place: str) -> Iterator[Any]:
        """The batches of the epoch from ``first`` on, on the device ``place``."""
        fetched = self._fetched(epoch, first)
        if place == "cpu" or not self.prefetch:

            def tensor(array: Any) -> Tensor:
                """An array of a batch, there."""
                return self._tensor(array, place)

            for batch in fetched:
                yield mapped(tensor, batch)
            return
        from tensorgrad.data.prefetch import sent_ahead

        frames: deque[Any] = deque()  # of the batches under way, without their arrays

        def arrays() -> Iterator[list[Any]]:
            """Those of each batch, in order; what was around them waits in ``frames``."""
            for batch in fetched:
                found: list[Any] = []
                frames.append(mapped(found.append, batch))
                yield found

        for tensors in sent_ahead(arrays(), place, self.prefetch):
            each = iter(tensors)
            yield mapped(lambda _, each=each: next(each), frames.popleft())  # type: ignore[misc]

    def _fetched(self, epoch: int, first: int) -> Iterator[Any]:
        size, key, order = self.batch_size, self._key, self._order(epoch)
        tasks = (
            (key, epoch, number, order[number * size : (number + 1) * size])
            for number in range(first, len(self))
        )
        if not self.workers:
            return (self._fetch(*task) for task in tasks)
        if self._workers is None or self._workers.process_id != os.getpid():
            self._workers = Workers(self.workers, self.processes, self._fetch)
            weakref.finalize(self, self._workers.stop)
        return self._workers.fetched_ahead(tasks, self.workers + self.prefetch)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_workers": None}  # a copy starts its own

    def _tensor(self, array: Any, place: str) -> Tensor:
        if type(array) is ndarray and place == "cpu":
            return wrap(array, None)
        if self.device is None and type(array) is not ndarray and is_array(array):
            return wrap(array, None)
        return Tensor(array, device=place, copy=None)

    def _order(self, epoch: int) -> ndarray[Any, Any]:
        """The positions of the examples, in the order of an epoch."""
        if not self.shuffle and self.sampler is None:
            return np.arange(len(self.dataset))
        generator = Generator(self._key)
        generator.set_state((self._key, epoch * _WORDS_PER_EPOCH))
        if self.sampler is None:
            order: ndarray[Any, Any] = generator.permutation(len(self.dataset), device="cpu").data
            return order
        return self.sampler.order(generator)

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands: what ``load_state_dict`` needs to go on with the same batches.

        Taken while a batch is in use, it counts that batch as done. Of several passes that are
        under way, it tells where the one stands that handed out a batch last.
        """
        return {
            "epoch": self._epoch,
            "position": self._position,
            "begun": self._begun,
            "key": self._key,
            "examples": self.examples,
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            "drop_last": self.drop_last,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where the loader that gave ``state`` stood, in the middle of an epoch if need be.

        Raises DatasetError, changing nothing, if that loader had another data set, batch size,
        shuffle or drop_last.
        """
        own = self.state_dict()
        for name in ("examples", "batch_size", "shuffle", "drop_last"):
            if state[name] != own[name]:
                raise DatasetError(
                    f"DataLoader: the state is of a loader with {name} = {state[name]}, but here "
                    f"it is {own[name]}; make the loader as the one that was saved"
                )
        self._epoch, self._position = int(state["epoch"]), int(state["position"])
        # Not in states of before this was kept.
        self._begun = int(state.get("begun", self._epoch + (self._position > 0)))
        self._key = int(state["key"])
        self._resumed = True


def _key(seed: int | Generator | None) -> int:
    """The key of the random stream that ``seed`` stands for."""
    if seed is not None and not isinstance(seed, Generator):
        return Generator(seed).state()[0]
    source = default_generator if seed is None else seed
    return int(philox.bits(np, n=2, **source.advance(2)).view(np.uint64)[0])
