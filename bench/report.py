"""Results: rows, bars, and how they are printed."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from bench.measure import Summary

#: Quartiles further apart than this factor make a verdict worthless.
UNSTEADY = 1.5


@dataclass(frozen=True)
class Row:
    """One contestant in one case.

    time, least: the median and the least of the rounds, in the section's unit.
    ratio: to the reference, by rounds; ``None`` for the reference itself or where it is missing.
    """

    case: str
    contestant: str
    time: float
    least: float
    ratio: Summary | None = None


@dataclass(frozen=True)
class Bar:
    """A figure that the project holds itself to: ``value`` must be at most ``limit``.

    steady: whether the rounds agree well enough for the verdict to mean something.
    least: the ratio of the least times of all rounds, which other work disturbs less.
    """

    what: str
    limit: float
    value: float
    steady: bool = True
    least: float | None = None

    @property
    def passed(self) -> bool:
        """Whether the bar is met."""
        return self.value <= self.limit


@dataclass
class Report:
    """What a section found.

    skipped: who did not take part, and why -> in which cases.
    wrong: contestants whose figures differ from the others'.
    """

    name: str
    title: str
    unit: str
    rows: list[Row] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    skipped: dict[str, list[str]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def row(self, case: str, contestant: str) -> Row | None:
        """The row of a contestant in a case, if it took part."""
        return next((r for r in self.rows if (r.case, r.contestant) == (case, contestant)), None)

    def skip(self, what: str, case: str | None = None) -> None:
        """Note who or what is left out, and why, in a case or altogether."""
        self.skipped.setdefault(what, []).extend([] if case is None else [case])

    def judge(
        self,
        what: str,
        limit: float,
        value: float | None,
        spread: Summary | None = None,
        least: float | None = None,
    ) -> None:
        """Hold ``value`` against a limit, if there is a value; ``spread`` is that of its rounds."""
        if value is not None:
            steady = spread is None or spread.high <= UNSTEADY * spread.low
            self.bars.append(Bar(what, limit, value, steady, least))

    def judge_ratio(self, case: str, limit: float, contestant: str = "tensorgrad") -> None:
        """Hold the ratio of a contestant to the reference against a limit."""
        row = self.row(case, contestant)
        if row is not None and row.ratio is not None:
            self.judge(f"{case}, ratio to the reference", limit, row.ratio.middle, row.ratio)

    def as_json(self) -> dict[str, Any]:
        """The report as plain data."""
        plain = asdict(self)
        for bar, data in zip(self.bars, plain["bars"], strict=True):
            data["passed"] = bar.passed
        return plain

    def as_text(self, reference: str) -> str:
        """The report as a table: a line per case, a column per contestant."""
        lines = [f"## {self.name}: {self.title}", ""]
        contestants = list(dict.fromkeys(row.contestant for row in self.rows))
        if contestants:
            lines += _table(self, contestants)
            lines += ["", f"Times in {self.unit}; in brackets the ratio to {reference}: median "
                      "and quartiles of the rounds."]  # fmt: skip
        lines += [f"- {note}" for note in self.notes]
        lines += [f"- skipped: {what}{_in(cases)}" for what, cases in self.skipped.items()]
        lines += [f"- WRONG: {reason}" for reason in self.wrong]
        for bar in self.bars:
            verdict = "PASS" if bar.passed else "FAIL"
            doubt = "" if bar.steady else "; unsteady, so repeat it on an idle machine"
            if doubt and bar.least is not None:
                doubt += f" ({bar.least:.3g} by the least times)"
            lines.append(f"- {verdict}  {bar.what}: {bar.value:.3g}, bar {bar.limit:.3g}{doubt}")
        return "\n".join(lines) + "\n"


def _in(cases: list[str]) -> str:
    if len(cases) > 3:
        return f" (in {len(cases)} cases)"
    return f" (in {', '.join(cases)})" if cases else ""


def _table(report: Report, contestants: list[str]) -> list[str]:
    header = ["case", *contestants]
    body = []
    for case in dict.fromkeys(row.case for row in report.rows):
        cells = [case]
        for contestant in contestants:
            row = report.row(case, contestant)
            cells.append("" if row is None else _cell(row))
        body.append(cells)
    widths = [max(len(line[i]) for line in [header, *body]) for i in range(len(header))]
    rule = ["-" * width for width in widths]
    return [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |"
        for line in [header, rule, *body]
    ]


def _cell(row: Row) -> str:
    text = f"{row.time:.3g}" if row.time < 100 else f"{row.time:,.0f}"
    if row.ratio is None:
        return text
    return f"{text} ({row.ratio.middle:.2f}, {row.ratio.low:.2f}-{row.ratio.high:.2f})"
