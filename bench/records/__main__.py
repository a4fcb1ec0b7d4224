"""The command line: ``python -m bench.records --data DIR``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.machine import environment, processors
from bench.records.campaign import Figure, Run, campaign, disagreements, figures, verdicts
from bench.records.contestants import CONTESTANTS
from bench.records.table import RECORDS
from bench.workers import drop_disguises


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.records",
        description="From the start of a process to a goal, compiling included: the same script "
        "for tensorgrad, PyTorch eager, torch.compile and jax.",
    )
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR",
        help="the folder that holds the folders mnist, fashion-mnist, names, tinyshakespeare",
    )  # fmt: skip
    parser.add_argument(
        "--only", action="append", choices=RECORDS, metavar="NAME",
        help=f"this record only; may be repeated ({', '.join(RECORDS)})",
    )  # fmt: skip
    parser.add_argument(
        "--contestants", default=",".join(CONTESTANTS), metavar="A,B",
        help="who takes part, separated by commas (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--rounds", type=int, default=3, metavar="N",
        help="runs of each, with seeds of their own (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--threads", type=int, default=processors(), metavar="N",
        help="threads of every contestant (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results there")
    return parser


def _table(found: dict[str, dict[str, Figure]]) -> str:
    lines = [f"{'':36} {'seconds':>10} {'processor':>10} {'ratio':>7}"]
    for what, those in found.items():
        ours = those.get("tensorgrad")
        for who, figure in those.items():
            ratio = f"{figure.processor / ours.processor:7.2f}" if ours else ""
            lines.append(
                f"  {what + ', ' + who:34} {figure.seconds:10.3f} {figure.processor:10.3f} {ratio}"
            )
    return "\n".join(lines)


def _told(run: Run) -> None:
    said = run.found.get("error")
    if said is None:
        reached = run.found["reached"]
        way = f"{reached[0]:.2f} s, {reached[1]:.2f} s of processors" if reached else "not reached"
        said = f"{way}, {run.found['steps']} steps, score {run.found['score']:.4f}"
    print(f"{run.record}, {run.contestant}, {run.phase}, seed {run.seed}: {said}",
          file=sys.stderr, flush=True)  # fmt: skip


def _printed(name: str, runs: list[Run]) -> tuple[dict[str, Any], bool]:
    """Print a record; what of it goes into the file, and whether all is well."""
    record, found = RECORDS[name], figures(runs, name)
    errors = [
        f"{run.contestant}, {run.phase}, seed {run.seed}: {run.found['error']}"
        for run in runs
        if run.record == name and "error" in run.found
    ]
    missed = [
        f"{run.contestant}, {run.phase}, seed {run.seed}: goal missed, {run.found['score']:.4f}"
        for run in runs
        if run.record == name and "error" not in run.found and run.found["reached"] is None
    ]
    wrong, bars = disagreements(runs, name), verdicts(record, found)
    print(f"\n## {name}: {record.goal}\n{_table(found)}")
    for what, value, limit in bars:
        print(f"  {'met' if value <= limit else 'MISSED'}: {what}: {value:.4g}, bar {limit:.4g}")
    for line in errors + missed:
        print(f"  {line}")
    for line in wrong:
        print(f"  WRONG: {line}")
    about = {
        "goal": record.goal,
        "figures": {
            what: {who: figure._asdict() for who, figure in those.items()}
            for what, those in found.items()
        },
        "bars": [{"what": w, "value": v, "limit": most} for w, v, most in bars],
        "wrong": wrong,
        "runs": [run._asdict() for run in runs if run.record == name],
    }
    return about, not (wrong or errors)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the records asked for. Returns 1 if a run failed or contestants disagree."""
    parser = _parser()
    options = parser.parse_args(arguments)
    contestants = options.contestants.split(",")
    unknown = sorted(set(contestants) - set(CONTESTANTS))
    if unknown:
        parser.error(f"unknown contestants {unknown}; there are {', '.join(CONTESTANTS)}")
    names = options.only or list(RECORDS)
    for folder in sorted({RECORDS[name].folder for name in names} - {""}):
        if not (options.data / folder).is_dir():
            parser.error(f"{options.data} holds no folder {folder}")
    drop_disguises()
    results: dict[str, Any] = environment(options.threads)
    results["command"][2] = "bench.records"
    machine = results["machine"]
    print(
        f"{machine['cpu']}, {machine['cores']} cores, {options.threads} threads, "
        f"load {machine['load_average_before']}, {results['python']}, {results['date']}"
    )
    runs = campaign(names, contestants, options.data, options.rounds, options.threads, _told)
    results["versions"] = {
        run.contestant: run.found["version"] for run in runs if "version" in run.found
    }
    print(", ".join(f"{who} {version}" for who, version in results["versions"].items()))
    printed = {name: _printed(name, runs) for name in names}
    results["records"] = {name: about for name, (about, _) in printed.items()}
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    return 0 if all(well for _, well in printed.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
