"""``gpu.md``: what is compiled, emulated and GPU-verified, from the results that are there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from bench.gpu.results import STAND_IN, folder_name, load
from bench.gpu.stages import STAGES
from tensorgrad.backend import kernels
from tensorgrad.files import write_atomically

_GOOD = ("passed", "skipped")
_HEAD = """# What a GPU has shown

Written by `python -m bench.gpu` from the results beside it; not by hand. *Compiled*: by NVRTC for
these architectures, in every dtype (`--stage compile`). *Emulated*: on the CPU, in a rehearsal
(`--rehearse`). *GPU-verified*: on the card of the run whose number stands there. A kernel counts
where a test that launched it compared its results, in these dtypes, and no such test failed.
"""


class _Case(NamedTuple):
    """What came of a case in a run."""

    number: int  # of the run, in the list at the end
    result: dict[str, Any]

    @property
    def outcome(self) -> str:
        return str(self.result["outcome"])


class _Found(NamedTuple):
    """All results: (stage, case) -> the newest, on cards and in rehearsals."""

    runs: list[dict[str, Any]]
    cards: dict[tuple[str, str], _Case]
    rehearsals: dict[tuple[str, str], _Case]


def _files(folder: Path) -> Iterator[tuple[bool, dict[str, Any]]]:
    """The content of all results, the newest last, and whether it is of a rehearsal."""
    stand_in = folder_name(STAND_IN, "")
    for each in sorted(folder.glob("gpu-*/"), key=lambda path: path.name[-10:]):
        for stage in STAGES:
            content = load(each / f"{stage}.json")
            if content:
                yield each.name.startswith(stand_in), content


def _collected(folder: Path) -> _Found:
    found = _Found([], {}, {})
    for rehearsed, content in _files(folder):
        for case, result in content["cases"].items():
            run = content["runs"][result["run"]]
            if run not in found.runs:
                found.runs.append(run)
            target = found.rehearsals if rehearsed else found.cards
            target[content["stage"], case] = _Case(found.runs.index(run) + 1, result)
    return found


def _cell(text: Any) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")


def _text(case: _Case | None) -> str:
    """A cell for a case."""
    if case is None:
        return "no"
    result = case.result
    if case.outcome == "passed":
        return f"yes [{case.number}]"
    why = _cell(result.get("reason", "it was killed while it ran"))
    if case.outcome == "skipped":
        return f"left out: {why} [{case.number}]"
    word = "interrupted" if case.outcome == "running" else case.outcome
    return f"**{word}**: {why[:200]} [{case.number}]"


def _dtypes(cases: dict[tuple[str, str], _Case]) -> dict[str, dict[str, list[str]]]:
    """ "family/kernel" -> "passed" or "failed" -> dtypes with the number of the run."""
    found: dict[str, dict[str, list[str]]] = {}
    for (stage, _), case in cases.items():
        for verdict, labels in case.result.get("kernels", {}).items() if stage == "tests" else ():
            for label in labels:
                name, _, dtype = label.partition(" ")
                there = found.setdefault(name, {}).setdefault(verdict, [])
                if (text := f"{dtype} [{case.number}]") not in there:
                    there.append(text)
    return found


def _kernel_cell(dtypes: dict[str, list[str]]) -> str:
    cells = []
    if dtypes.get("failed"):
        cells.append(f"**failed**: {', '.join(sorted(dtypes['failed']))}")
    if dtypes.get("passed"):
        cells.append(", ".join(sorted(dtypes["passed"])))
    return "; ".join(cells) or "no"


def _compiled(case: _Case | None) -> str:
    if case is None or case.outcome != "passed":
        return _text(case)
    return f"sm\\_{', '.join(map(str, case.result['architectures']))} [{case.number}]"


def _lines(found: _Found) -> Iterator[str]:
    yield _HEAD
    yield "## Kernels\n"
    yield "| kernel | compiled | emulated | GPU-verified |"
    yield "| --- | --- | --- | --- |"
    emulated, verified = _dtypes(found.rehearsals), _dtypes(found.cards)
    newest = {**found.rehearsals, **found.cards}
    compiles = {name: case for (stage, name), case in newest.items() if stage == "compile"}
    for family in kernels.families():
        built = _compiled(compiles.pop(family, None))
        for kernel in kernels.kernel_names(family):
            cells = [_kernel_cell(d.get(f"{family}/{kernel}", {})) for d in (emulated, verified)]
            yield f"| {family}: {kernel} | {built} | {' | '.join(cells)} |"
    for name, compiled in compiles.items():
        yield f"| {name} | {_compiled(compiled)} | below | below |"
    yield "\n## Paths\n"
    yield "| stage: case | emulated | GPU-verified |"
    yield "| --- | --- | --- |"
    keys = [
        (stage, name)
        for stage in STAGES
        for name in dict.fromkeys(n for s, n in newest if s == stage)
    ]
    for key in keys:
        if key[0] not in ("compile", "bandwidth"):
            both = _text(found.rehearsals.get(key)), _text(found.cards.get(key))
            yield f"| {': '.join(key)} | {' | '.join(both)} |"
    yield "\n## How fast\n"
    figures = [(key, found.cards[key]) for key in keys if key in found.cards]
    figures = [(key, case) for key, case in figures if case.result.get("figure")]
    if figures:
        yield "| stage: case | figures |"
        yield "| --- | --- |"
        for key, case in figures:
            yield f"| {': '.join(key)} | {_cell(case.result['figure'])} [{case.number}] |"
    else:
        yield "No card has been measured yet."
    yield "\n## What failed\n"
    broken = [
        f"- {': '.join(key)}: {_text(cases[key])}"
        for cases in (found.cards, found.rehearsals)
        for key in keys
        if key in cases and cases[key].outcome not in _GOOD
    ]
    yield from broken or ["Nothing."]
    yield "\n## Runs\n"
    for number, run in enumerate(found.runs, 1):
        card = run["card"]
        yield (
            f"{number}. {card['name']}, driver for CUDA {card['driver']}, CuPy {card['cupy']}, "
            f"{run['python']}, {run['date'][:10]}, commit {run['commit']}: "
            f"`{' '.join(run['command'])}`"
        )
    if not found.runs:
        yield "None yet."


def write(folder: Path) -> Path:
    """Write ``gpu.md`` into the folder that has the results. Returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "gpu.md"
    write_atomically(file, ("\n".join(_lines(_collected(folder))) + "\n").encode())
    return file
