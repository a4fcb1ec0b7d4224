"""The command line: ``python -m bench``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

if not __package__:  # run as ``python bench``: the directory above is the one to import from
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench import (
    bandwidth,
    convolutions,
    costs,
    host,
    imports,
    layers,
    loop,
    memory,
    ops,
    programs,
    steps,
    tape,
    units,
)
from bench.contest import CONTESTANTS, REFERENCE, Contest, Settings
from bench.machine import environment, processors
from bench.measure import CLOCK_VARIABLE
from bench.report import Report
from bench.workers import drop_disguises, limit_threads

SECTIONS: dict[str, Any] = {
    module.NAME: module
    for module in (
        ops,
        tape,
        bandwidth,
        steps,
        layers,
        units,
        convolutions,
        programs,
        costs,
        host,
        memory,
        loop,
        imports,
    )
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="What is fast and against whom: times, and ratios to PyTorch in eager mode.",
    )
    parser.add_argument(
        "--only", action="append", choices=SECTIONS, metavar="NAME",
        help=f"run this section only; may be repeated ({', '.join(SECTIONS)})",
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="few rounds, small cases, rough times")
    parser.add_argument("--large", action="store_true", help="also a tape of a million nodes")
    parser.add_argument("--together", action="store_true", help="all contestants in this process")
    parser.add_argument("--threads", type=int, default=processors(), metavar="N",
                        help="threads of every contestant (default: %(default)s)")  # fmt: skip
    parser.add_argument(
        "--processor-time", action="store_true",
        help="measure what calls take of the processor, with --threads 1, while other work runs",
    )  # fmt: skip
    parser.add_argument("--case", default="", metavar="TEXT", help="cases with TEXT in their name")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds of each comparison")
    parser.add_argument(
        "--contestants", metavar="A,B", default=",".join(CONTESTANTS),
        help="who takes part, separated by commas (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results there")
    parser.add_argument("--list", action="store_true", help="list the sections and stop")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sections asked for. Returns 1 if contestants disagree or tensorgrad cannot run."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.list:
        for name, section in SECTIONS.items():
            print(f"{name:12}  {section.TITLE}; {section.UNIT}; {', '.join(section.WHO)}")
        return 0
    contestants = tuple(options.contestants.split(","))
    unknown = sorted(set(contestants) - set(CONTESTANTS))
    if unknown:
        parser.error(f"unknown contestants {unknown}; there are {', '.join(CONTESTANTS)}")
    if options.processor_time:
        if options.threads != 1:
            parser.error("--processor-time needs --threads 1: threads that wait count, too")
        os.environ[CLOCK_VARIABLE] = "processor"
    settings = Settings(
        quick=options.quick,
        large=options.large,
        together=options.together,
        threads=options.threads,
        rounds=options.rounds,
        contestants=contestants,
        case=options.case,
    )
    if settings.together and settings.threads != processors():
        limit_threads(settings.threads)
    dropped = {} if settings.together else drop_disguises()
    results: dict[str, Any] = environment(settings.threads)
    results["left_out_of_the_environment"] = dropped
    results.update(quick=settings.quick, together=settings.together, reference=REFERENCE)
    machine = results["machine"]
    print(
        f"{machine['cpu']}, {machine['cores']} cores, {settings.threads} threads, "
        f"load {machine['load_average_before']}, {results['python']}, {results['date']}\n"
    )
    for name, value in dropped.items():
        print(
            f"{name}={value} is set here. It is left out: OpenBLAS judges the processor itself.\n"
        )
    load = machine["load_average_before"]
    if load is not None and load > machine["cores"] / 4:
        print(
            "Other work is running here. Threads that wait for one another suffer from it far more "
            "than single ones, so\ncompare with --threads 1 --processor-time, or on an idle "
            "machine.\n"
        )
    frameworks: dict[str, Any] = {}
    reports: list[Report] = []
    for name in options.only or SECTIONS:
        section = SECTIONS[name]
        report = Report(name, section.TITLE, section.UNIT)
        threads = min(settings.threads, getattr(section, "THREADS", settings.threads))
        with Contest(replace(settings, threads=threads), report) as contest:
            section.run(contest)
            frameworks.update(contest.describe())
        reports.append(report)
        print(report.as_text(REFERENCE), flush=True)
    for framework, about in frameworks.items():
        print(f"{framework}: " + ", ".join(f"{k} {v}" for k, v in about.items()))
    results.update(frameworks=frameworks, sections=[report.as_json() for report in reports])
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    failed = any(
        r.wrong or any(what.startswith("tensorgrad:") for what in r.skipped) for r in reports
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
