"""The command line: ``python -m bench.records --data DIR``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.machine import environment, processors
from bench.records.campaign import Run, campaign, disagreements, figures, verdicts
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
        help="the folder that holds the folders mnist, fashion-mnist, names and tinyshakespeare",
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
    parser.add_argument(
        "--add", action="append", type=Path, default=[], metavar="FILE",
        help="count the runs of this file of results too; with --rounds 0 it is printed",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results there")
    return parser


def _told(run: Run) -> None:
    said = run.found.get("error")
    if said is None:
        reached = run.found["reached"]
        way = f"{reached[0]:.2f} s, {reached[1]:.2f} s of processors" if reached else "not reached"
        said = f"{way}, {run.found['steps']} steps, score {run.found['score']:.4f}"
    print(f"{run.record}, {run.contestant}, {run.phase}, seed {run.seed}: {said}",
          file=sys.stderr, flush=True)  # fmt: skip


def _runs_of(file: Path) -> list[Run]:
    """Those of an earlier campaign."""
    records: dict[str, Any] = json.loads(file.read_text())["records"]
    return [Run(**run) for about in records.values() for run in about["runs"]]


def _about(name: str, runs: list[Run]) -> dict[str, Any]:
    """A record as it stands after these runs."""
    those = [run for run in runs if run.record == name]
    found, troubles = figures(those, name), []
    for run in those:
        where = f"{run.contestant}, {run.phase}, seed {run.seed}"
        if "error" in run.found:
            troubles.append(f"{where}: {run.found['error']}")
        elif run.found["reached"] is None:
            troubles.append(f"{where}: goal missed, {run.found['score']:.4f}")
    return {
        "goal": RECORDS[name].goal,
        "figures": {
            what: {who: figure._asdict() for who, figure in of_part.items()}
            for what, of_part in found.items()
        },
        "bars": [{"what": w, "value": v, "limit": m} for w, v, m in verdicts(RECORDS[name], found)],
        "wrong": disagreements(those, name),
        "troubles": troubles,
        "runs": [run._asdict() for run in those],
    }


def _text(name: str, about: dict[str, Any]) -> str:
    lines = [
        f"## {name}: {about['goal']}",
        f"{'':36} {'seconds':>10} {'processor':>10} {'ratio':>7} {'score':>8}",
    ]
    for what, those in about["figures"].items():
        ours = those.get("tensorgrad")
        for who, figure in those.items():
            ratio = f"{figure['processor'] / ours['processor']:7.2f}" if ours else " " * 7
            times = f"{figure['seconds']:10.3f} {figure['processor']:10.3f}"
            score = "" if figure["score"] is None else f"{figure['score']:8.4f}"
            lines.append(f"  {what + ', ' + who:34} {times} {ratio} {score}".rstrip())
    for bar in about["bars"]:
        verdict = "met" if bar["value"] <= bar["limit"] else "MISSED"
        lines.append(f"  {verdict}: {bar['what']}: {bar['value']:.4g}, bar {bar['limit']:.4g}")
    lines += [f"  {line}" for line in about["troubles"]]
    return "\n".join(lines + [f"  WRONG: {line}" for line in about["wrong"]])


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
    for file in options.add:
        if not file.is_file():
            parser.error(f"there is no file {file}")
    drop_disguises()
    results: dict[str, Any] = environment(options.threads)
    given = sys.argv[1:] if arguments is None else arguments
    # Where things lie on this machine tells nobody anything.
    results["command"] = ["python", "-m", "bench.records", *(Path(a).name for a in given)]
    machine = results["machine"]
    print(
        f"{machine['cpu']}, {machine['cores']} cores, {options.threads} threads, "
        f"load {machine['load_average_before']}, {results['python']}, {results['date']}"
    )
    runs = [run for file in options.add for run in _runs_of(file) if run.record in names]

    def told() -> None:
        """What was measured stays, whenever this is stopped."""
        results["versions"] = {r.contestant: r.found.get("version") for r in runs}
        results["records"] = {name: _about(name, runs) for name in names}
        if options.json is not None:
            options.json.write_text(json.dumps(results, indent=1) + "\n")

    def taken(run: Run) -> None:
        _told(run)
        runs.append(run)
        told()

    told()
    campaign(names, contestants, options.data, options.rounds, options.threads, taken)
    print(", ".join(f"{who} {version}" for who, version in results["versions"].items()))
    for name, about in results["records"].items():
        if about["runs"]:
            print(f"\n{_text(name, about)}")
    wrong = any(about["wrong"] for about in results["records"].values())
    return 1 if wrong or any("error" in run.found for run in runs) else 0


if __name__ == "__main__":
    sys.exit(main())
