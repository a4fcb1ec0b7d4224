"""What the host does in a training step on a GPU, counted on the tests' stand-in for CuPy.

Counted are, of one step after some others, nothing of which depends on a machine:

- Python calls: of functions and methods of tensorgrad's, in Python, and of CuPy's and cuBLAS's
  functions by tensorgrad (what these call themselves is not counted; nor is reading an attribute of
  a CuPy array, which is written in C there);
- builtin calls: of functions written in C by tensorgrad's Python, such as ``len``;
- launches: kernels, matrix products, and copies within the device, that are queued one by one;
- graphs: launches of a CUDA graph; within them: the kernels and products that these queue;
- allocations: arrays with memory of their own; uploads: copies from the host, for which it does
  not wait; waits: whatever makes the host wait for the device.
"""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from types import CodeType, FrameType
from typing import Any

from bench import host_networks
from bench.contest import Contest
from bench.machine import ROOT
from bench.report import Row
from bench.training.networks import ADAM_RATE, MOMENTUM, MOMENTUM_RATE, NETWORKS, built, start

NAME = "host"
TITLE = "what the host does in a step on a GPU, counted on the stand-in for CuPy"
UNIT = "calls, launches, allocations or waits"
EAGER, COMPILED = WHO = ("tensorgrad", "tensorgrad compiled")
#: Whether nvmath-python is there, with its binding of cublasLt.
LIBRARIES = {"": False, ", with cublasLt": True}
NETWORK = "784-512-512-10"
#: Steps before the one that is counted: a compiled one compares itself at the calls 2, 4 and 8.
BEFORE = {EAGER: 2, COMPILED: 12}
_OURS = "tensorgrad"
#: Python calls of an eager step in float32 when they were first counted, by the optimizer; they are
#: to be a third of it.
FIRST = {"momentum": 892, "Adam": 913}
#: What an eager step may launch where cublasLt is, and how many graphs a compiled one may.
LAUNCHES, GRAPHS = 12, 1


@dataclass
class Counts:
    """What one stretch of a step took; see the top of the file."""

    python: int = 0
    builtin: int = 0
    launches: int = 0
    graphs: int = 0
    within: int = 0
    allocations: int = 0
    uploads: int = 0
    waits: int = 0
    names: list[str] = field(default_factory=list)

    def figures(self) -> dict[str, int]:
        """The numbers by name."""
        return {
            "Python calls": self.python,
            "builtin calls": self.builtin,
            "launches": self.launches,
            "graphs": self.graphs,
            "within graphs": self.within,
            "allocations": self.allocations,
            "uploads": self.uploads,
            "waits": self.waits,
        }


class Counter:
    """Counts calls by ``sys.setprofile``, and the rest by the stand-in's log.

    log: ``standin.cupy_standin.log``. attributes: the code of what is an attribute in CuPy.
    """

    def __init__(self, log: Any, attributes: frozenset[CodeType]) -> None:
        self._log = log
        self._attributes = attributes
        self._known: dict[CodeType, bool] = {}
        self._now: Counts | None = None
        #: in the order in which they began
        self.phases: dict[str, Counts] = {}

    def _is_ours(self, frame: FrameType | None) -> bool:
        if frame is None:
            return False
        found = self._known.get(frame.f_code)
        if found is None:
            name = str(frame.f_globals.get("__name__"))
            found = self._known[frame.f_code] = name.partition(".")[0] == _OURS
        return found

    def _event(self, frame: FrameType, event: str, _: Any) -> None:
        now = self._now
        if now is None:
            return
        if event == "c_call":
            now.builtin += self._is_ours(frame)
        elif event == "call" and frame.f_code not in self._attributes:
            now.python += self._is_ours(frame) or self._is_ours(frame.f_back)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count what happens within under this name."""
        log = self._log
        now = self.phases.setdefault(name, Counts())
        log.clear()
        self._now = now
        before = sys.getprofile()
        sys.setprofile(self._event)
        try:
            yield
        finally:
            sys.setprofile(before)
            self._now = None
            now.launches += log.launches
            now.graphs += log.graphs
            now.within += log.in_graphs
            now.allocations += log.allocations
            now.uploads += log.uploads
            now.waits += sum(log.syncs.values())
            now.names += log.names

    def total(self) -> Counts:
        """All phases together."""
        whole = Counts()
        for name in vars(whole):
            for part in self.phases.values():
                setattr(whole, name, getattr(whole, name) + getattr(part, name))
        return whole


def attributes_of(*classes: type) -> frozenset[CodeType]:
    """The code of the properties of classes."""
    return frozenset(
        member.fget.__code__
        for kind in classes
        for member in vars(kind).values()
        if isinstance(member, property) and member.fget is not None
    )


@contextmanager
def _uncounted(_: str) -> Iterator[None]:
    yield


class _Training:
    """The network in memory of the device, its optimizer and its batch.

    half: with products in bfloat16, by ``autocast``.
    """

    def __init__(self, network: str, optimizer: str, half: bool) -> None:
        import tensorgrad as tg
        from tensorgrad import amp, nn, optim

        tg.manual_seed(0)
        if network == NETWORK:
            layers, inputs, wanted = start(NETWORKS[network])
            model = built(tg, nn, None, NETWORKS[network], layers)
        else:
            model, inputs, wanted = host_networks.NETWORKS[network]()
        self.model = model.to("cuda")
        self.criterion = nn.CrossEntropyLoss()
        self.x = tg.Tensor(inputs, device="cuda")
        self.target = tg.Tensor(wanted, device="cuda")
        #: None, or what computes products in 16 bits; imported before anything is captured
        self.amp = amp if half else None
        params = self.model.parameters()
        self.update: Any
        if optimizer == "momentum":
            self.update = optim.SGD(params, lr=MOMENTUM_RATE, momentum=MOMENTUM)
        else:
            self.update = optim.Adam(params, lr=ADAM_RATE)

    def step(self, x: Any, target: Any, phase: Callable[[str], Any] = _uncounted) -> Any:
        """One step, eager; each part of it within a ``phase``."""
        with phase("zero_grad"):
            self.update.zero_grad()
        with nullcontext() if self.amp is None else self.amp.autocast("bfloat16"):
            with phase("forward"):
                y = self.model(x)
            with phase("loss"):
                loss = self.criterion(y, target)
        with phase("backward"):
            loss.backward()
        with phase("optimizer"):
            self.update.step()
        return loss

    def plain(self, x: Any, target: Any) -> Any:
        """The same to be compiled, with products in float32."""
        self.update.zero_grad()
        loss = self.criterion(self.model(x), target)
        loss.backward()
        self.update.step()
        return loss

    def in_half(self, x: Any, target: Any) -> Any:
        """The same to be compiled, with products in bfloat16."""
        from tensorgrad import amp

        self.update.zero_grad()
        with amp.autocast("bfloat16"):
            loss = self.criterion(self.model(x), target)
        loss.backward()
        self.update.step()
        return loss


def standin() -> Any:
    """The tests' stand-in for CuPy."""
    if (tests := str(ROOT / "tests")) not in sys.path:
        sys.path.insert(0, tests)
    return importlib.import_module("standin.cupy_standin")


def counted(optimizer: str, half: bool, compiled: bool, network: str = NETWORK) -> Counter:
    """A step on the stand-in, which has to be installed, counted when it has settled."""
    import tensorgrad as tg

    training = _Training(network, optimizer, half)
    module = standin()
    kinds = module.ndarray, module.MemoryPointer, module.Device
    counter = Counter(module.log, attributes_of(*kinds))
    x, target = training.x, training.target
    if not compiled:
        for _ in range(BEFORE[EAGER]):
            training.step(x, target)
        training.step(x, target, counter.phase)
        return counter

    call: Any = tg.compile(training.in_half if half else training.plain)
    for _ in range(BEFORE[COMPILED]):
        loss = call(x, target)  # kept until there is another one, as in a loop
    with counter.phase("replay"):
        loss = call(x, target)
    assert loss is not None
    return counter


def told(counter: Counter) -> str:
    """The counts phase by phase, and the launches by name."""
    lines = []
    for name, counts in [*counter.phases.items(), ("all", counter.total())]:
        figures = ", ".join(f"{n} {what}" for what, n in counts.figures().items())
        lines.append(f"  {name:10} {figures}")
        if counts.names and name != "all":
            lines.append(f"  {'':10} launched: {', '.join(counts.names)}")
    return "\n".join(lines)


#: The network, its optimizer, and whether products are in bfloat16.
CASES = {
    f"{network} {optimizer}{', bfloat16' if half else ''}": (network, optimizer, half)
    for network in (NETWORK, *host_networks.NETWORKS)
    for optimizer in ("momentum", "Adam")
    for half in (False, True)
    if network == NETWORK or optimizer == "Adam"
}


def run(contest: Contest) -> None:
    """Every case on the stand-in, in this process; kernels are run by the emulator."""
    from bench import host_layers
    from bench.gpu import rehearsal

    if shutil.which("g++") is None:
        contest.report.skip("all: the emulator of kernels needs g++")
        return
    host_layers.run(contest)
    for contestant in contest.taking_part(EAGER, COMPILED):
        compiled = contestant == COMPILED
        for name, (network, optimizer, half) in CASES.items():
            for library, with_lt in LIBRARIES.items():
                case = f"{name}{library}"
                if contest.settings.case not in case:
                    continue
                place = rehearsal if compiled else standin()
                with place.installed(cublaslt=with_lt):
                    counter = counted(optimizer, half, compiled, network)
                print(f"{case}, {contestant}\n{told(counter)}", flush=True)
                found = counter.total()
                for what, n in found.figures().items():
                    contest.report.rows.append(Row(f"{case}: {what}", contestant, n, n))
                if compiled:
                    _judge_compiled(contest, case, found)
                elif not half and network == NETWORK:
                    limit = FIRST[optimizer] / 3
                    contest.report.judge(f"{case}, eager, Python calls", limit, found.python)
                if with_lt and not (half or compiled) and network == NETWORK:
                    contest.report.judge(f"{case}, eager, launches", LAUNCHES, found.launches)


def _judge_compiled(contest: Contest, case: str, found: Counts) -> None:
    judge = contest.report.judge
    judge(f"{case}, compiled, launches of graphs", GRAPHS, found.graphs)
    judge(f"{case}, compiled, allocations", 0, found.allocations)
    judge(f"{case}, compiled, waits", 0, found.waits)
