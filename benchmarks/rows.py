"""Results as values: what a case measured, on both sides, and what follows from it."""

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
    """What one implementation measured in all rounds of a case.

    Attributes:
        values: the case's quantity, one value a round: seconds or bytes.
        peak_bytes: median over the rounds of each process's peak memory.
        threads: `torch.get_num_threads()`.
        python: version of the interpreter.
        packages: versions of what ran.
        resident_bytes: memory resident after each step, in the first round; empty where that was not recorded.
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
        """From one report a round."""
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
    """What a case was measured on, and how.

    Attributes:
        setting: where and when.
        image: name of the image file or of the clip's folder; what it is where it was made.
        device, warmup, repeats: as in the `Case`.
    """

    setting: Setting
    image: str
    device: str
    warmup: int
    repeats: int


@dataclass(frozen=True)
class Row:
    """One case's result, complete: the file under `benchmarks/results` and the line in the table.

    Attributes:
        case, title, quantity, target: as in the `Case`.
        ours, peer: the two sides, in the same number of rounds.
        ratio: of the medians; for times the peer's over ours, for memory ours over the peer's.
        ratio_range: least and greatest ratio of the two processes of one round.
        memory_ratio: our peak memory over the peer's.
        checks: whether the outputs agree, the worst round of each.
        verdict: what the ratio reaches; None where there is no target.
        conditions: where, when and on what.
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
    """The row of a case from both sides, the checks of every round, and the conditions."""
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
    """Of the checks of one output in several rounds, a failed one before the one nearest its limit."""

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
