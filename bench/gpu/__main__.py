"""``python -m bench.gpu``: everything that only a GPU can show, in one command.

In stages, those first that teach most; each case is written to disk as it ends, so that whatever
ends the command leaves what was measured. In the end ``gpu.md`` says what is GPU-verified, what
failed and why, and how fast it is.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from bench.gpu import table, watch
from bench.gpu.common import Settings
from bench.gpu.results import STAND_IN, Results, folder_name
from bench.gpu.stages import STAGES, USUAL, Stage
from bench.machine import ROOT, environment

RESULTS = ROOT / "bench" / "results"


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(f"{stage.name:10} {stage.about}" for stage in STAGES.values()),
    )
    add = parser.add_argument
    add("--stage", action="append", choices=STAGES, help="this one; may be repeated")
    add("--case", action="append", metavar="TEXT", help="cases whose names contain it")
    go_on = "go on in the newest folder of this card, without the cases that passed"
    add("--skip-done", action="store_true", help=go_on)
    add("--minutes", type=float, default=float("inf"), help="for everything together")
    add("--limit", type=float, help="seconds for a case, in place of the stage's own")
    add("--rounds", type=int, help="of each measurement")
    add("--workers", type=int, default=8, help="processes for tests (default 8)")
    add("--tests", default="", metavar="EXPRESSION", help="only these tests, as pytest's -k")
    add("--out", type=Path, default=RESULTS, metavar="FOLDER", help="default: bench/results")
    add("--list", action="store_true", help="name the stages and their cases")
    add("--table", action="store_true", help="write gpu.md from the results that are there")
    rehearse = "without a GPU: on the stand-in for CuPy and the emulator, with tiny sizes"
    add("--rehearse", action="store_true", help=rehearse)
    plant = "with --rehearse: hang, crash, kernel, capture or symbol, to see it reported"
    add("--plant", action="append", default=[], metavar="STAGE=FAULT", help=plant)
    options = parser.parse_args(arguments)
    if options.plant and not options.rehearse:
        parser.error("--plant goes with --rehearse")
    for text in options.plant:
        stage, _, fault = text.partition("=")
        if stage not in STAGES or fault not in ("hang", "crash", "kernel", "capture", "symbol"):
            parser.error(f"--plant: STAGE=FAULT is needed, got {text!r}")
    return options


class Campaign:
    """One run of the command."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.deadline = time.monotonic() + 60 * options.minutes
        self.begun = time.monotonic()
        self.failed: list[str] = []
        self.tried: defaultdict[str, set[str]] = defaultdict(set)
        self.results: Results | None = None

    def settings(self, stage: Stage) -> Settings:
        """What the cases of a stage are told."""
        o = self.options
        plants = (text.partition("=") for text in o.plant)
        return Settings(
            o.rehearse, o.rounds, o.workers, o.tests, 240.0 if o.rehearse else 60.0,
            plants=tuple([fault for name, _, fault in plants if name == stage.name]),
        )  # fmt: skip

    def cases(self, stage: Stage) -> list[str]:
        """The names of the cases asked for."""
        names = stage.module.cases(self.settings(stage))
        wanted = self.options.case or [""]
        return [name for name in names if any(text in name for text in wanted)]

    def identify(self) -> None:
        """Ask for the card, which names the folder. Raises Unusable if there is none."""
        stage, found = STAGES["facts"], dict[str, Any]()
        settings = Settings(rehearse=self.options.rehearse)

        def keep(case: str, result: dict[str, Any]) -> None:
            found.update(result)

        watch.run("facts", ["card"], settings, stage.limit, keep)
        if found["outcome"] != "passed":
            raise watch.Unusable(f"the card does not say what it is: {found['reason']}")
        about = {**environment(1), "card": found["card"]}
        about["command"] = ["python", "-m", "bench.gpu", *sys.argv[1:]]
        name = STAND_IN if self.options.rehearse else found["card"]["name"]
        folder = self.options.out / folder_name(name, about["date"])
        if self.options.skip_done:
            before = self.options.out.glob(folder_name(name, "*"))
            folder = max(before, default=folder)
        self.results = Results(folder, about)
        print(f"{found['card']['name']}; results go to {folder}", flush=True)

    def report(self, stage: str, case: str, result: dict[str, Any]) -> None:
        """Keep and print what came of a case."""
        assert self.results is not None
        self.results.put(stage, case, result)
        self.tried[stage].add(case)
        outcome = result["outcome"]
        if outcome == "running":
            return
        bad = outcome not in ("passed", "skipped")
        if bad:
            self.failed.append(f"{stage}: {case}: {outcome}: {result['reason']}")
        text = "; ".join(str(result[k]) for k in ("figure", "reason") if result.get(k))
        word = outcome.upper() if bad else outcome
        clock = time.monotonic() - self.begun
        print(f"[{clock:6.1f} s] {stage:9} {case:34} {word:9} {text}", flush=True)
        table.write(self.options.out)

    def run(self) -> None:
        """All stages asked for."""
        for name in self.options.stage or USUAL:
            stage = STAGES[name]
            cases = self.cases(stage)
            assert self.results is not None
            if self.options.skip_done:
                cases = [c for c in cases if self.results.outcome(name, c) != "passed"]
            if not cases:
                continue
            if time.monotonic() >= self.deadline:
                print(f"no time is left for {name}: {len(cases)} cases", flush=True)
                continue
            print(f"\n== {name}: {stage.about}", flush=True)
            share = time.monotonic() + stage.share * 60 * self.options.minutes
            watch.run(
                name, cases, self.settings(stage), self.options.limit or stage.limit,
                lambda case, result, name=name: self.report(name, case, result),  # type: ignore[misc]
                min(self.deadline, share),
            )  # fmt: skip
            left = [case for case in cases if case not in self.tried[name]]
            if left:
                print(f"no time was left for {', '.join(left)}", flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Run what is asked for. Returns 1 if a case failed or there is no GPU."""
    options = _options(arguments)
    campaign = Campaign(options)
    if options.table:
        print(f"written to {table.write(options.out)}")
        return 0
    if options.list:
        for name in options.stage or STAGES:
            print(f"{name}: {STAGES[name].about}")
            print("".join(f"    {case}\n" for case in campaign.cases(STAGES[name])), end="")
        return 0

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    try:
        campaign.identify()
        campaign.run()
    except watch.Unusable as why:
        print(f"no GPU can be used: {why}")
        return 1
    except KeyboardInterrupt:
        print("\nstopped; what was measured is kept", flush=True)
        campaign.failed.append("stopped")
    print(f"\nthe table is {table.write(options.out)}")
    print("".join(f"FAILED {text}\n" for text in campaign.failed), end="")
    return 1 if campaign.failed else 0


if __name__ == "__main__":
    sys.exit(main())
