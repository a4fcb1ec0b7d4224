"""Programs as people write them, as source text: run eagerly, run compiled, and compared.

A scenario is a setup, a step, and a change of something that the step reads. It is run twice, each
time in a namespace of its own: once with the plain function and once with the compiled one. What
every call gave, and what is watched beside it, has to be equal, bit by bit, unless the compiled
function refused. The text of a table of scenarios:

    ### group
    == name of a scenario [flags]
    setup: any statements; x is a tensor, and tg, nn, np are there
    -- step
    an expression of x, or the body of step(x)
    -- change
    statements
    -- watch
    expressions, one a line, whose values are compared after each call
    -- before
    statements that the caller runs before each call
    -- calls
    the arguments of each call in turn, one a line, if they are not x
    -- finally
    statements that put back what belongs to the whole process

Flags: ``replays`` (one capture before the change, and no refusal), ``once`` (no capture after it
either), ``refused`` (CompileError at the first call), ``unread`` (the change does not matter to
the step), ``outside`` (the change is not made inside the step: it stores a tensor with its
history, which a replay has not). Without a flag a scenario may be refused or run as it is, but
never be wrong.
"""

from __future__ import annotations

import argparse
import ast
import builtins
import contextlib
import functools
import gc
import os
import random
import struct
import sys
import textwrap
import threading
import types
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import tensorgrad as tg
from tensorgrad import Tensor, nn
from tensorgrad.errors import CompileError
from tensorgrad.ops.random import default_generator

FLAGS = {"replays", "once", "refused", "unread", "outside"}
SECTIONS = {"step", "change", "watch", "before", "calls", "finally"}


@dataclass(frozen=True)
class Scenario:
    """One program and one change; see the module's docstring."""

    name: str
    setup: str
    step: str
    changes: tuple[str, ...] = ()
    watch: tuple[str, ...] = ()
    before: str = ""
    cleanup: str = ""
    calls: tuple[str, ...] = ("x",)
    flags: frozenset[str] = frozenset()
    group: str = ""
    prelude: str = ""  # what many programs have in common, and comes first

    def __str__(self) -> str:
        return f"{self.group}: {self.name}" if self.group else self.name

    def source(self) -> str:
        """The text of the program, without the change."""
        if not self.step:  # the setup defines it
            return self.setup
        body = self.step.strip("\n")
        first, _, rest = body.partition("\n")
        if not rest and not first.startswith(("return ", "raise ", "yield ")):
            body = f"return {body}"
        return f"{self.setup}\n\ndef step(x):\n{textwrap.indent(body, '    ')}\n"


def parsed(path: Path) -> list[Scenario]:
    """The scenarios of a file. Raises ValueError where the text is not as described above."""
    found: list[Scenario] = []
    group, name, flags, section = "", "", frozenset[str](), "setup"
    texts: dict[str, list[str]] = {}

    def finish() -> None:
        if not name:
            return
        whole = {k: "\n".join(v).strip("\n") for k, v in texts.items()}
        if not whole.get("step"):
            raise ValueError(f"{path.name}: {name!r} has no step")
        lines = {k: tuple(filter(None, whole.get(k, "").split("\n"))) for k in ("watch", "calls")}
        found.append(
            Scenario(
                name,
                whole.get("setup", ""),
                whole["step"],
                tuple(filter(None, [whole.get("change", "")])),
                lines["watch"],
                whole.get("before", ""),
                whole.get("finally", ""),
                lines["calls"] or ("x",),
                flags,
                group,
            )
        )

    for number, line in enumerate(path.read_text().split("\n"), 1):
        if line.startswith("### "):
            finish()
            group, name = line[4:].strip(), ""
        elif line.startswith("== "):
            finish()
            head, _, marks = line[3:].partition("[")
            name, section, texts = head.strip(), "setup", {}
            flags = frozenset(marks.rstrip("] ").split())
            if flags - FLAGS:
                raise ValueError(f"{path.name}:{number}: no such flag: {sorted(flags - FLAGS)}")
        elif line.startswith("-- ") and name:
            section = line[3:].strip()
            if section not in SECTIONS or section in texts:
                raise ValueError(f"{path.name}:{number}: no such section, or twice: {section}")
            texts[section] = []
        else:
            texts.setdefault(section, []).append(line)
    finish()
    names = [str(s) for s in found]
    if len(set(names)) != len(names):
        raise ValueError(f"{path.name}: twice: {sorted({n for n in names if names.count(n) > 1})}")
    return found


# --- what a call gave, in a form that can be compared ---------------------------------------------


def frozen(value: Any, depth: int = 6) -> Any:
    """A copy of ``value`` that is equal to another only if types, dtypes and all bits are."""
    if isinstance(value, Tensor):
        return "tensor", *frozen(value.data, depth)[1:]
    if isinstance(value, np.ndarray | np.generic):
        array = np.array(value)
        if array.dtype.kind in "fc":  # one NaN is as good as another
            array[array != array] = np.nan
        kind = "array" if isinstance(value, np.ndarray) else "NumPy scalar"
        content = array.tolist() if array.dtype == object else array.tobytes()
        return kind, str(array.dtype), array.shape, content
    if type(value) is float:
        return "float", "nan" if value != value else struct.pack("d", value)
    if depth and isinstance(value, list | tuple):
        return type(value).__name__, *[frozen(v, depth - 1) for v in value]
    if depth and isinstance(value, dict):
        items = [(frozen(k, depth - 1), frozen(v, depth - 1)) for k, v in value.items()]
        return type(value).__name__, *items
    if isinstance(value, set | frozenset):
        return type(value).__name__, *sorted(map(repr, value))
    if isinstance(value, int | str | bytes | bool | complex | type(None)):
        return type(value).__name__, repr(value)
    if depth and hasattr(value, "__dict__") and not isinstance(value, type | types.ModuleType):
        return type(value).__name__, frozen(vars(value), depth - 1)
    return (type(value).__name__,)


def shown(observed: Any) -> str:
    """A frozen value, for people."""
    if isinstance(observed, tuple) and observed and observed[0] in ("tensor", "array"):
        _, dtype, shape, content = observed
        if isinstance(content, bytes) and dtype != "bfloat16":
            return f"{np.frombuffer(content, dtype).reshape(shape).tolist()} {dtype}"
    if isinstance(observed, tuple) and len(observed) == 2 and observed[0] == "float":
        return "nan" if observed[1] == "nan" else str(struct.unpack("d", observed[1])[0])
    if isinstance(observed, tuple):
        return "(" + ", ".join(map(shown, observed)) + ")"
    return str(observed)


@contextlib.contextmanager
def process_state() -> Iterator[None]:
    """Puts back what a program may change that belongs to the whole process."""
    environment, argv, modules = dict(os.environ), list(sys.argv), set(sys.modules)
    names, dtype = dict(vars(builtins)), tg.get_default_dtype()
    frozen_ = gc.get_freeze_count()
    drawn, python, numpy_ = default_generator.state(), random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        os.environ.clear()
        os.environ.update(environment)
        sys.argv[:] = argv
        for name in set(sys.modules) - modules:
            if name.startswith("scenario"):
                del sys.modules[name]
        for name in [n for n in vars(builtins) if n not in names]:
            delattr(builtins, name)
        vars(builtins).update(names)
        tg.set_default_dtype(dtype)
        default_generator.set_state(drawn)
        random.setstate(python)
        np.random.set_state(numpy_)  # noqa: NPY002
        if gc.get_freeze_count() > frozen_:
            gc.unfreeze()
            raise AssertionError("what is there was left frozen: nothing of it would be collected")


# --- running --------------------------------------------------------------------------------------

LATE = ("call",) * 4 + ("change",) + ("call",) * 3
EARLY = ("call", "change") + ("call",) * 3
THREAD = ("call",) * 4 + ("change in a thread",) + ("call",) * 3
STEADY = ("call",) * 7
INSIDE = ("call",) * 3 + ("call that changes",) + ("call",) * 3
RAISING = ("call",) * 3 + ("call that changes and raises",) + ("call",) * 3
SHAPES = (*("call", "call of another shape") * 4, "change", *("call", "call of another shape") * 2)
MODES = (*("call", "call without grad") * 4, "change", *("call", "call without grad") * 2)


@dataclass
class Run:
    """What a run of a scenario gave."""

    observed: list[tuple[str, Any]] = field(default_factory=list)
    refusal: str = ""  # the message of the CompileError that ended it
    captures: list[int] = field(default_factory=list)  # after each action
    reasons: list[str] = field(default_factory=list)
    dropped: str = ""  # what a check of the program against the function found


CHANGER = """
def changing_step(x, how=0):
    if how == 2:
        apply_change()
        raise LookupError("after the change")
    y = step(x)
    if how:
        apply_change()
    return y

def apply_change():
{}
"""


def _as_function(text: str) -> str:
    """The body of a function that does what ``text`` does at the level of the module."""
    bound = {
        n.id for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Name)
        and isinstance(n.ctx, ast.Store | ast.Del)
    }  # fmt: skip
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            bound.add(node.name)
        if isinstance(node, ast.Import | ast.ImportFrom):
            bound |= {(a.asname or a.name).partition(".")[0] for a in node.names}
    declared = f"global {', '.join(sorted(bound))}\n" if bound else ""
    return textwrap.indent(declared + (text or "pass"), "    ")


def same(function: Any) -> Any:
    return function


def namespace(scenario: Scenario, changes_inside: bool, eager: bool) -> dict[str, Any]:
    """The program, executed as a module of its own.

    ``compiled`` and ``fused`` are there for a function within the step; eagerly they do nothing.
    """
    module = types.ModuleType("scenario_program")
    sys.modules[module.__name__] = module  # dataclasses, enums and pickle look it up
    space = vars(module)
    space.update(tg=tg, nn=nn, np=np, x=tg.tensor([1.5, -2.0]))
    space["compiled"], space["fused"] = (same, same) if eager else (tg.compile, tg.fuse)
    text = scenario.source()
    if changes_inside:
        text += CHANGER.format(_as_function(scenario.changes[0] if scenario.changes else ""))
    exec(_code(scenario.prelude, "<prelude>"), space)
    exec(compile(text, f"<scenario {scenario.name}>", "exec", dont_inherit=True), space)
    return space


@functools.cache
def _code(text: str, name: str) -> types.CodeType:
    return compile(text, name, "exec", dont_inherit=True)


def _in_a_thread(change: types.CodeType, space: dict[str, Any]) -> None:
    """What is a thread's own cannot be changed from another one: then nothing changes."""

    def target() -> None:
        with contextlib.suppress(LookupError, ValueError, AttributeError):
            exec(change, space)

    thread = threading.Thread(target=target)
    thread.start()
    thread.join()


def run(
    scenario: Scenario,
    actions: Sequence[str],
    wrap: Callable[[Any], Any] | None = None,
) -> Run:
    """Run the actions with ``wrap(step)``, or with the plain function."""
    found = Run()
    inside = any(a.startswith("call that") for a in actions)
    with process_state(), contextlib.ExitStack() as stack:
        space = namespace(scenario, inside, wrap is None)
        stack.callback(exec, scenario.cleanup, space)
        function = space["changing_step" if inside else "step"]
        space["f"] = f = function if wrap is None else wrap(function)
        changes = [compile(c, "<change>", "exec", dont_inherit=True) for c in scenario.changes]
        before = compile(scenario.before, "<caller>", "exec", dont_inherit=True)
        number = changed = 0
        for action in actions:
            if action == "change":
                for change in changes[changed : changed + 1]:
                    exec(change, space)
                changed += 1
            elif action == "change in a thread":
                for change in changes:
                    _in_a_thread(change, space)
            else:
                exec(before, space)
                arguments = scenario.calls[number % len(scenario.calls)]
                number += 1
                if action == "call of another shape":
                    arguments = "tg.tensor([[2.0], [-1.0], [4.0]])"
                if inside:
                    how = {"call": 0, "call that changes": 1}.get(action, 2)
                    arguments = f"{arguments}, {how}"
                try:
                    if action == "call without grad":
                        with tg.no_grad():
                            result = eval(f"f({arguments})", space)
                    else:
                        result = eval(f"f({arguments})", space)
                    found.observed.append((action, frozen(result)))
                except CompileError as error:
                    found.refusal = str(error)
                    break
                except Exception as error:
                    found.observed.append((action, f"{type(error).__name__}: {error}"))
                for text in scenario.watch:
                    found.observed.append((text, frozen(eval(text, space))))
            if wrap is not None:
                found.captures.append(f.captures)
        if wrap is not None:
            found.reasons, found.dropped = list(f.reasons), f.dropped
    return found


@dataclass(frozen=True)
class Verdict:
    """``outcome``: "replays", "captured anew", "as it is", "refused", or a mistake: "WRONG", or
    "DROPPED" (the guards let it through, and the check of a later call found it).
    """

    outcome: str
    detail: str = ""
    captures: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.outcome} {self.captures} {self.detail}".strip()


def tried(scenario: Scenario, actions: Sequence[str] = LATE, executor: str = "auto") -> Verdict:
    """Run a scenario eagerly and compiled, and compare.

    Raises ValueError if the scenario itself is no good: its change changes nothing, or it raises.
    """
    eager = run(scenario, actions)
    if actions is LATE and "refused" not in scenario.flags:
        _check(scenario, eager)
    return judged(scenario, actions, eager, executor)


def judged(scenario: Scenario, actions: Sequence[str], eager: Run, executor: str) -> Verdict:
    """Run a scenario compiled, and compare with what it gave eagerly."""
    got = run(scenario, actions, lambda f: tg.compile(f, executor=executor))
    for k, ((where, a), (_, b)) in enumerate(zip(eager.observed, got.observed)):
        if a != b:
            detail = f"{k}. {where}: {shown(b)}, right is {shown(a)}"
            return Verdict("WRONG", detail, tuple(got.captures))
    if got.dropped:
        return Verdict("DROPPED", got.dropped, tuple(got.captures))
    if got.refusal:
        return Verdict("refused", got.refusal, tuple(got.captures))
    if got.reasons:
        return Verdict("as it is", got.reasons[0], tuple(got.captures))
    at = next((k for k, a in enumerate(actions) if "change" in a), len(actions))
    before = got.captures[max(at - 1, 0)]
    return Verdict("replays" if before == 1 else "captured anew", "", tuple(got.captures))


def _check(scenario: Scenario, eager: Run) -> None:
    calls = [o for a, o in eager.observed if a == "call"]
    failed = [o for o in calls if type(o) is str]
    if failed:
        raise ValueError(f"{scenario}: the plain function raises {failed[0]}")
    if scenario.changes and not scenario.watch:
        alike = calls[-1] == calls[0]
        if alike != ("unread" in scenario.flags):
            raise ValueError(f"{scenario}: the change changes {'nothing' if alike else 'results'}")


def problem(scenario: Scenario, verdict: Verdict, actions: Sequence[str]) -> str:
    """What is wrong with a verdict, given what the scenario's flags promise; empty if nothing."""
    flags = scenario.flags
    if verdict.outcome in ("WRONG", "DROPPED"):
        return str(verdict)
    if "refused" in flags and verdict.outcome != "refused":
        return f"has to be refused: {verdict}"
    if flags & {"replays", "once"} and actions in (LATE, EARLY, STEADY):
        if verdict.outcome != "replays":
            return f"has to replay: {verdict}"
        if "once" in flags and verdict.captures[-1] != 1:
            return f"is captured anew without need: {verdict}"
    return ""


SCHEDULES = {
    "late": LATE, "early": EARLY, "thread": THREAD, "steady": STEADY, "inside": INSIDE,
    "raising": RAISING, "shapes": SHAPES, "modes": MODES,
}  # fmt: skip


def main() -> None:
    """Print what becomes of each scenario of a table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("table", help="kinds or changes")
    parser.add_argument("pattern", nargs="?", default="", help="only names that contain this")
    parser.add_argument("--schedule", choices=SCHEDULES, default="late")
    parser.add_argument("--executor", default="auto")
    parser.add_argument("--all", action="store_true", help="not only those with a problem")
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    for scenario in parsed(Path(__file__).with_name(f"{options.table}.txt")):
        if options.pattern not in str(scenario):
            continue
        if options.schedule in ("inside", "raising") and "outside" in scenario.flags:
            continue
        actions = SCHEDULES[options.schedule]
        verdict = tried(scenario, actions, options.executor)
        found = problem(scenario, verdict, actions)
        counts["PROBLEM" if found else verdict.outcome] += 1
        if found or options.all:
            print(f"{scenario}: {found or verdict}")
    print(", ".join(f"{n} {outcome}" for outcome, n in counts.most_common()))


if __name__ == "__main__":
    main()
