"""The CUDA executor: generated kernels and cuBLAS, each stretch of them one CUDA graph.

The first replay launches everything one by one, so that modules are loaded and workspaces made; the
second one captures the launches into a graph, and later ones launch the graph. Addresses are part
of a graph: when memory outside the program moves, it is captured anew.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from sys import getrefcount
from typing import Any

import numpy as np

from tensorgrad import backend
from tensorgrad.backend import cudnn, kernels
from tensorgrad.backend.gemm import Gemm, planned
from tensorgrad.backend.launch import masked_products, products
from tensorgrad.backend.launch.queueing import queued_by
from tensorgrad.backend.streams import StreamOrder
from tensorgrad.errors import CompileError
from tensorgrad.program.arena import ArenaExecutor, arena_plan, as_signed, lifetimes, traffic_of
from tensorgrad.program.executors import cuda_source
from tensorgrad.program.executors.c_text import Operand
from tensorgrad.program.executors.cublas import Cublas, cublas_on
from tensorgrad.program.executors.cuda_calls import (
    KernelCall,
    NotCapturedError,
    call_of,
    kernel_call,
    reason_of,
    stays_between,
    stretches,
)
from tensorgrad.program.functions import C_TYPES
from tensorgrad.program.ir import Program, Value
from tensorgrad.program.library_products import with_library_products
from tensorgrad.program.loop_ir import Call, Check, Product, Storage
from tensorgrad.program.lower import Lowering
from tensorgrad.program.schedule import Nest, Schedule

_ALIGNMENT = 256
_DTYPES = {ctype: dtype for dtype, ctype in C_TYPES.items()}
# How often memory may move before graphs are given up: capturing costs as much as some replays.
_PATIENCE = 8
# For how many streams graphs of a program are kept at most.
_STREAMS = 4
# Bytes of a result whose memory is kept for the next ones; larger ones have new memory each time.
_RESULT = 1 << 20


@dataclass(slots=True)
class _Launch:
    """A kernel with its grid, and what it is called with."""

    kernel: Any
    grid: tuple[int, ...]
    block: int
    operands: list[Operand]
    partial: list[Any]


class CudaExecutor(ArenaExecutor):
    """Runs a program on a GPU."""

    name = "cuda"
    language = "cuda"
    # NVRTC's and the driver's own besides: calls work anyway.
    failures: tuple[type[Exception], ...] = (Exception,)

    def __init__(self, program: Program) -> None:
        if program.aliased:
            raise CompileError("memory that is seen through several views is overwritten")
        if any(v.role == "argument" for v in program.updates()):
            raise CompileError("an argument is overwritten")
        self._backend: Any = backend.cuda_backend()
        if self._backend.epilogues:
            has_algorithm = functools.partial(masked_products.has_algorithm, self._backend.xp)
            program = with_library_products(program, has_algorithm)
        lowering = Lowering(program)
        super().__init__(program, lowering.views, self._backend.xp)
        self.device = self._backend.current_device()
        # What is kept of a row lies in registers, of which there are few.
        self.schedule = Schedule(lowering.operations, self._seen, recomputed=False, parted=True)
        self._write()
        self._scalars = [(s.instruction.live, s.name, s.out.storage) for s in lowering.scalars]
        self._allocate()
        self._steps = self._made_steps()
        #: by the address of the stream that they are launched on; the stream is kept with them
        self._graphs: dict[int, tuple[Any, list[Any]]] = {}
        self._divide()
        #: what kernels of calls need besides their results; they take turns with it
        self._call_room: Any = None
        self._order = StreamOrder()
        self._order.here(self._xp)
        #: of each result the arrays that were handed out last, and views of where they are made
        self._results: list[list[Any]] = [[] for _ in program.results]
        self._shown_results: dict[int, Any] = {}
        self._replays = 0
        self._captures = 0
        self._cublas: Cublas | None = None
        self._graphing = True
        #: whether calls have turned out to stay between graphs since steps were last divided
        self._apart = False
        kinds = {type(step) for step in self._steps}
        if Product in kinds or KernelCall in kinds:
            self._find_cublas(Product in kinds)

    def _find_cublas(self, needed: bool) -> None:
        try:
            self._cublas = cublas_on(self.device, self._xp)
        except CompileError as error:
            if needed:
                self._give_up_graphs(str(error))

    def _give_up_graphs(self, why: str) -> None:
        self._graphing = False
        self._graphs = {}
        self.reason = f"launched one by one instead of as a graph: {why}"

    # --- making ----------------------------------------------------------------------------------

    def _write(self) -> None:
        """Write the kernels: a module for all of them."""
        self.source = cuda_source.write(self.schedule)
        if self.source.nests:
            self._module = self._xp.RawModule(
                code=f"{kernels.header('program')}\n{self.source.text}",
                options=kernels.options("float32"),
                backend="nvrtc",
            )

    def _allocate(self) -> None:
        xp = self._xp
        offsets, self.arena_bytes = arena_plan(
            lifetimes(self.source.groups, self._seen), _ALIGNMENT
        )
        arena = xp.empty(max(self.arena_bytes, 1), np.uint8)
        for s, start in offsets.items():
            self.memory[s] = arena[start : start + s.nbytes].view(s.dtype)
        self._host_scalars = np.zeros(len(self._scalars), np.int64)
        self._sent_scalars = b""
        self._device_scalars = xp.zeros(max(len(self._scalars), 1), np.int64)
        for k, (_, _, s) in enumerate(self._scalars):
            self.memory[s] = self._device_scalars[k : k + 1].view(s.dtype)
        for v in self.program.values():
            if v.role == "temporary":
                continue
            storage = self._views[v].storage
            if v.role == "constant":
                self.memory[storage] = xp.ascontiguousarray(xp.asarray(v.array))
            elif v.role == "argument":
                self.memory[storage] = xp.empty(v.shape, v.dtype)
        for s in self._seen:
            if s.role == "temporary":
                self.memory[s] = xp.empty(s.size, s.dtype)
        self._bind_outputs()

    def _made_steps(self) -> list[Any]:
        """Launches, products and calls, in order."""
        xp = self._xp
        # Partial results are used up by the next kernel: all nests share the room for them.
        sizes = [
            sum(-(-n * _DTYPES[t].itemsize // _ALIGNMENT) * _ALIGNMENT for t, n in made.partial)
            for made, _ in self.source.nests.values()
        ]
        room = xp.empty(max([*sizes, 1]), np.uint8)
        found: list[Any] = []
        for unit, *_ in self.source.groups:  # with others that are launched along with it
            if not isinstance(unit, Nest):
                op = unit.operation
                assert type(op) is not Check
                if type(op) is Call:
                    found.append(kernel_call(op, self._backend, self._array, self._call(op)))
                else:
                    found.append(op)
                continue
            made, name = self.source.nests[unit]
            partial, start = [], 0
            for ctype, n in made.partial:
                size = n * _DTYPES[ctype].itemsize
                partial.append(room[start : start + size].view(_DTYPES[ctype]))
                start += -(-size // _ALIGNMENT) * _ALIGNMENT
            kernel = self._module.get_function(name)
            found.append(_Launch(kernel, made.grid, made.block, made.operands, partial))
            if made.end:
                kernel = self._module.get_function(f"{name}_end")
                found.append(_Launch(kernel, (made.end,), made.end_block, made.operands, partial))
        return found

    @staticmethod
    def fits(on_host: bool) -> bool:
        """See Executor."""
        return not on_host

    @property
    def text(self) -> str:
        """See Executor."""
        return self.source.text

    def fast_run(self) -> None:
        """See Executor."""

    # --- running ---------------------------------------------------------------------------------

    def _product(self, op: Product) -> None:
        a, b, out = self._array(op.a), self._array(op.b), self._array(op.out)
        if self._cublas is None:
            products.product(self._xp, a, b, out)
            return
        plan = planned(op.a.shape, op.a.strides, op.b.shape, op.b.strides)
        assert type(plan) is Gemm  # what lies otherwise was copied
        self._cublas.multiply(plan, a, b, out, self._backend.tf32)

    def _enqueue(self, steps: Sequence[Any], queue: Any, stream: Any) -> None:
        """Queue a stretch on the current stream, ``queue``, for a launch on ``stream``."""
        cublas = self._cublas
        with contextlib.ExitStack() as stack:
            if cublas is not None:
                stack.enter_context(cublas.on(queue, stream))
                stack.enter_context(queued_by(cublas.multiply, cublas.prepare(stream)))
            for step in steps:
                if type(step) is Product:
                    self._product(step)
                elif type(step) is KernelCall:
                    step.run(self._call_room, queue is not stream)
                    self._apart = self._apart or bool(step.between)
                else:
                    arrays = [self._from(s, first) for s, first in step.operands]
                    step.kernel(step.grid, (step.block,), (*arrays, *step.partial))

    def _from(self, storage: Storage, first: int) -> Any:
        """The memory of ``storage`` from an element on."""
        memory = self.memory[storage]
        return memory.reshape(-1)[first:] if first else memory

    def _captured(self, steps: Sequence[Any], stream: Any) -> Any:
        """A stretch as a graph, to be launched on ``stream``."""
        if self._cublas is not None:
            self._cublas.prepare(stream)
        queue = self._xp.cuda.Stream(non_blocking=True)
        with queue:
            queue.begin_capture()
            try:
                self._enqueue(steps, queue, stream)
            except BaseException:
                with contextlib.suppress(Exception):  # it says that the capture has failed
                    queue.end_capture()
                raise
            return queue.end_capture()

    def _graphs_for(self, stream: Any) -> list[Any]:
        """The graphs of the stretches on a stream; ``None`` for those that are not captured yet."""
        found = self._graphs.get(stream.ptr)
        if found is None:
            if len(self._graphs) >= _STREAMS:
                self._graphs.pop(next(iter(self._graphs)))
            found = self._graphs[stream.ptr] = stream, [None] * len(self._segments)
        return found[1]

    def _run_segments(self, stream: Any) -> None:
        done = 0
        while done < len(self._segments):
            try:
                self._run_segment(done, stream)
                done += 1
            except NotCapturedError:  # nothing was queued; the stretch is divided
                self._divide()
        if not self._replays:
            self._measured()
        elif self._apart:
            self._divide()

    def _divide(self) -> None:
        """Divide the steps into stretches, by what is known of calls."""
        self._segments = stretches(self._steps)
        self._alone = [stays_between(steps[0]) for steps in self._segments]
        self._graphs = {}
        self._apart = False

    def _measured(self) -> None:
        """After the first replay: it is known what the kernels of calls need."""
        calls = [step for step in self._steps if type(step) is KernelCall]
        if calls:
            self._call_room = self._xp.empty(max(1, *[call.room for call in calls]), np.uint8)
            self._divide()

    def _run_segment(self, number: int, stream: Any) -> None:
        steps = self._segments[number]
        if self._alone[number]:
            if type(steps[0]) is KernelCall:
                steps[0].otherwise()
            else:
                self._call(steps[0])()
            return
        graph = None
        if self._graphing and self._replays:
            graphs = self._graphs_for(stream)
            try:
                if graphs[number] is None:
                    graphs[number] = self._captured(steps, stream)
                graph = graphs[number]
            except NotCapturedError:
                raise
            except Exception as error:  # whatever CUDA has against it: the launches themselves work
                self._give_up_graphs(f"{type(error).__name__}: {error}")
        if graph is None:
            self._enqueue(steps, stream, stream)
        else:
            graph.launch()

    def _moved(self) -> None:
        """Addresses have changed, which graphs contain."""
        if self._graphs:
            self._captures += 1
            self._graphs = {}
            if self._captures > _PATIENCE:
                self._give_up_graphs(
                    "parameters or gradients have been other arrays in every few steps"
                )

    def _new_memory(self, storage: Storage) -> Any:
        return self._xp.empty(storage.size, storage.dtype)

    def _put(self, storage: Storage, memory: Any) -> None:
        super()._put(storage, memory)
        self._shown_results = {}
        self._moved()

    def run(self, arguments: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """The results, which are the caller's, and the gradients, which the next replay overwrites.

        Whoever keeps a gradient calls ``renew`` before the next replay.
        """
        stream = self._order.here(self._xp)
        if self._fetched():
            self._moved()
        for v, array in zip(self.program.arguments, arguments):
            self.memory[self._views[v].storage][...] = array
        if self._scalars:
            self._send_scalars()
        try:
            self._run_segments(stream)
            self._replays += 1
            results = [self._result(k, v) for k, v in enumerate(self.program.results)]
            gradients = [
                None if e is None else self._gradient(*e) if e[1] is None else e[1]
                for e in self._gradients
            ]
            return results, gradients
        finally:
            self._finish(True)

    def _result(self, number: int, v: Value) -> Any:
        """A copy of a result, which is the caller's, in memory that nobody holds any more.

        A loop holds the last result while the next one is made: so there are two to take turns.
        """
        view = self._views[v]
        source = self._shown_results.get(number)
        if source is None:
            source = self._array(view)
            if view.storage.role == "temporary":  # what lies outside may be elsewhere next time
                self._shown_results[number] = source
        if source.nbytes > _RESULT:
            return source.copy()
        held = self._results[number]
        for array in held:
            if getrefcount(array) <= 3:  # here, in the list, and in the call
                break
        else:
            array = self._xp.empty(view.shape, view.dtype)
            held[:] = [*held, array][-2:]
        array[...] = source
        return array

    def _send_scalars(self) -> None:
        """Learning rates and positions of generators, where they have changed."""
        host = self._host_scalars
        for k, (live, name, storage) in enumerate(self._scalars):
            assert live is not None
            host[k : k + 1].view(storage.dtype)[0] = as_signed(live()[name])
        bits = host.tobytes()
        if bits != self._sent_scalars:
            self._sent_scalars = bits
            self._device_scalars.set(host)

    def lines(self) -> list[str]:
        """What ran where, for the report."""
        found = []
        between = {step: reason_of(step) for step in self._steps if stays_between(step)}
        calls = {call_of(step) for step in between}
        moved_by = traffic_of(self.schedule, calls.__contains__)
        for number, (steps, moved) in enumerate(zip(self._segments, moved_by, strict=True)):
            if stays_between(steps[0]):
                op = call_of(steps[0])
                about = f"{between[steps[0]]} ({op.where}); {moved:,} bytes"
                found.append(f"call {op.instruction.op.name}: {about}")
                continue
            own = [s.op.instruction.op.name for s in steps if type(s) is KernelCall]
            products = sum(type(step) is Product for step in steps)
            graphs = [made[number] for _, made in self._graphs.values()]
            how = "one graph" if any(g is not None for g in graphs) else "launched one by one"
            with_calls = f"{len(own)} calls ({', '.join(own)}), " if own else ""
            found.append(
                f"segment {number}: {len(steps) - products - len(own)} kernels, "
                f"{products} products, {with_calls}{moved:,} bytes, {how}"
            )
        found += self._refused()
        found.append(f"arena {self.arena_bytes} bytes on {self.device}")
        return found

    def _refused(self) -> list[str]:
        """What cuDNN was asked for in vain, here or elsewhere, if there is something for it."""
        kernels = {call_of(s).instruction.op.kernel for s in self._steps if type(s) is KernelCall}
        if not any(name and name.startswith(cudnn.KERNELS) for name in kernels):
            return []
        return [
            f"cuDNN refused {what}, which kernels of ours compute: {why.partition(chr(10))[0]}"
            for what, why in cudnn.refused().items()
        ]
