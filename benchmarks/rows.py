"""Results of the cases as values."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Literal, TypeAlias

from benchmarks.agreement import Check
from benchmarks.cases import Case, Quantity, Target
from benchmarks.protocol import Report
from benchmarks.setting import Setting

Verdict: TypeAlias = Literal["outputs differ", "reaches the aim", "reaches the target", "misses the target"]


@dataclass(frozen=True)
class Side:
    """The measurements of one implementation in all rounds of a case.

    Attributes:
        values: the quantity of the case in each round, in seconds or bytes.
        peak_bytes: median over the rounds of the peak memory of each process.
        threads: `torch.get_num_threads()`.
        python: version of the interpreter.
        packages: versions of the packages.
        resident_bytes: resident memory after each step, in the first round; empty if it was not recorded.
    """

    values: tuple[float, ...]
    peak_bytes: int
    threads: int
    python: str
    packages: dict[str, str]
    resident_bytes: tuple[int, ...] = ()

    @property
    def median(self) -> float:
        return median(self.values)

    @classmethod
    def of(cls, case: Case, reports: list[Report]) -> Side:
        """Make a side from the reports of its rounds."""
        return cls(
            values=tuple(case.value(report) for report in reports),
            peak_bytes=round(median(report.peak_bytes for report in reports)),
            threads=reports[0].threads,
            python=reports[0].python,
            packages=reports[0].packages,
            resident_bytes=tuple(reports[0].resident_bytes),
        )


@dataclass(frozen=True)
class Conditions:
    """The conditions under which a case was measured.

    Attributes:
        setting: machine and date.
        image: name of the image file or of the folder of the clip; a description if it was generated.
        device, warmup, repeats: as in the `Case`.
    """

    setting: Setting
    image: str
    device: str
    warmup: int
    repeats: int


@dataclass(frozen=True)
class Row:
    """The result of one case: the content of its file in `benchmarks/results`, and its row in the table.

    Attributes:
        case, title, quantity, target: as in the `Case`.
        ours, peer: the two sides, with the same number of rounds.
        ratio: ratio of the medians: for times the peer's over ours, for memory ours over the peer's.
        ratio_range: lowest and highest ratio within one round.
        memory_ratio: our peak memory over the peer's.
        checks: comparison of the outputs, the worst round of each.
        verdict: the target that the ratio reaches; None without a target.
        conditions: the conditions of the measurement.
    """

    case: str
    title: str
    quantity: Quantity
    target: Target | None
    ours: Side
    peer: Side
    ratio: float
    ratio_range: tuple[float, float]
    memory_ratio: float
    checks: tuple[Check, ...]
    verdict: Verdict | None
    conditions: Conditions

    @property
    def agrees(self) -> bool:
        return self.verdict != "outputs differ"


def make_row(case: Case, ours: Side, peer: Side, rounds_of_checks: list[list[Check]], conditions: Conditions) -> Row:
    """Make the row of a case from both sides, the checks of every round, and the conditions."""
    ratio = case.ratio(ours.median, peer.median)
    by_round = [case.ratio(*pair) for pair in zip(ours.values, peer.values, strict=True)]
    checks = tuple(_worst(list(of_one)) for of_one in zip(*rounds_of_checks, strict=True))
    return Row(
        case=case.name,
        title=case.title,
        quantity=case.quantity,
        target=case.target,
        ours=ours,
        peer=peer,
        ratio=ratio,
        ratio_range=(min(by_round), max(by_round)),
        memory_ratio=ours.peak_bytes / peer.peak_bytes,
        checks=checks,
        verdict=_verdict(case, ratio, agrees=bool(checks) and all(check.passed for check in checks)),
        conditions=conditions,
    )


def _worst(checks: list[Check]) -> Check:
    """Return the worst check of one output: a failed one, or else the one nearest its limit."""

    def badness(check: Check) -> tuple[bool, bool, float]:
        value = check.value if check.value is not None else 0.0
        return (not check.passed, check.value is None, -value if check.measure == "mask IoU" else value)

    return max(checks, key=badness)


def _verdict(case: Case, ratio: float, *, agrees: bool) -> Verdict | None:
    if not agrees:
        return "outputs differ"
    if case.target is None:
        return None
    if case.reaches(ratio, case.target.aim):
        return "reaches the aim"
    return "reaches the target" if case.reaches(ratio, case.target.at_least) else "misses the target"
