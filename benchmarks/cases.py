"""The one table of what is measured, and what each measurement is held to.

A new measurement is a row here, and a function of its name in `benchmarks/ours.py` and in the peer's worker.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Literal, TypeAlias

from benchmarks.protocol import Report

Quantity: TypeAlias = Literal["call seconds", "process seconds", "peak bytes"]
"""What a case is about: the time of one call, of a whole process from its start, or its peak memory."""

Material: TypeAlias = Literal["image", "clip", "noise"]
"""What a case works on: an image, a folder of video frames, or numbers in the shape of a model's input."""

OURS = "benchmarks.ours"
MOBILE_SAM = "benchmarks.peers.mobile_sam"
SEGMENT_ANYTHING = "benchmarks.peers.segment_anything"
SAM2 = "benchmarks.peers.sam2"

FRAMES_BEFORE, FRAMES_TIMED = 8, 4
"""Frames of a clip that are tracked first, and those that are timed after them, one a call.

From frame 7 on a model of the SAM 2 family attends to as many masks as it ever does: six and the prompted one.
"""


@dataclass(frozen=True)
class Target:
    """What a ratio has to reach, and what it should. Ratios are as `Case.ratio` gives them."""

    at_least: float
    aim: float


@dataclass(frozen=True)
class Case:
    """One measurement.

    Attributes:
        name: what `--case` takes; also the path of its results.
        title: what the tables say.
        task: the function of the workers that prepares the call.
        peer: module of the peer's worker; ours where we are compared with ourselves.
        model: segany's name of the model.
        quantity: what is measured.
        target: what the ratio is held to, if anything.
        peer_task: what the peer does, where it is not `task`.
        material: what is worked on.
        seeded: weights are made from a seed, in place of published ones.
        objects: how many objects are followed through a clip.
        warmup, repeats: calls in each process before the clock starts, and on the clock.
        device: what torch calls the device.
    """

    name: str
    title: str
    task: str
    peer: str
    model: str
    quantity: Quantity = "call seconds"
    target: Target | None = None
    peer_task: str | None = None
    material: Material = "image"
    seeded: bool = False
    objects: int = 1
    warmup: int = 2
    repeats: int = 5
    device: str = "cpu"

    def value(self, report: Report) -> float:
        """The quantity in one process."""
        if self.quantity == "call seconds":
            return median(report.seconds)
        if self.quantity == "process seconds":
            return report.process_seconds
        return float(report.peak_bytes)

    def ratio(self, ours: float, peer: float) -> float:
        """How many times as fast we are, or the share of the peer's memory that we take."""
        return ours / peer if self.quantity == "peak bytes" else peer / ours

    def reaches(self, ratio: float, wanted: float) -> bool:
        """Whether a ratio is as good as another, or better."""
        return ratio <= wanted if self.quantity == "peak bytes" else ratio >= wanted


CASES: dict[str, Case] = {
    case.name: case
    for case in (
        Case(
            name="mobile_sam/embed",
            title="MobileSAM: embed an image",
            task="embed",
            peer=MOBILE_SAM,
            model="mobile_sam",
            target=Target(at_least=1.5, aim=3),
        ),
        Case(
            name="mobile_sam/predict",
            title="MobileSAM: one point, three masks",
            task="predict",
            peer=MOBILE_SAM,
            model="mobile_sam",
            target=Target(at_least=2, aim=4),
            warmup=5,
            repeats=30,
        ),
        Case(
            name="sam_vit_b/encoder",
            title="SAM ViT-B: image encoder alone",
            task="encoder",
            peer=SEGMENT_ANYTHING,
            model="sam_vit_b",
            target=Target(at_least=1.6, aim=2.5),
            material="noise",
            seeded=True,
            warmup=1,
            repeats=3,
        ),
        Case(
            name="mobile_sam/memory",
            title="MobileSAM: memory to load, embed and predict",
            task="whole",
            peer=MOBILE_SAM,
            model="mobile_sam",
            quantity="peak bytes",
            target=Target(at_least=0.8, aim=0.6),
            warmup=0,
            repeats=1,
        ),
        Case(
            name="mobile_sam/cold",
            title="MobileSAM: new process to first masks",
            task="whole",
            peer=MOBILE_SAM,
            model="mobile_sam",
            quantity="process seconds",
            warmup=0,
            repeats=1,
        ),
        Case(
            name="mobile_sam/automatic",
            title="MobileSAM: automatic masks, 32 x 32 points",
            task="automatic",
            peer=MOBILE_SAM,
            model="mobile_sam",
            target=Target(at_least=10, aim=20),
            warmup=0,
            repeats=1,
        ),
        Case(
            name="mobile_sam/automatic_cold",
            title="MobileSAM: new process to automatic masks",
            task="automatic",
            peer=MOBILE_SAM,
            model="mobile_sam",
            quantity="process seconds",
            target=Target(at_least=5, aim=10),
            warmup=0,
            repeats=1,
        ),
        Case(
            name="mobile_sam/automatic_memory",
            title="MobileSAM: memory for automatic masks",
            task="automatic",
            peer=MOBILE_SAM,
            model="mobile_sam",
            quantity="peak bytes",
            target=Target(at_least=0.4, aim=0.25),
            warmup=0,
            repeats=1,
        ),
        Case(
            name="sam2/embed",
            title="SAM 2.1 tiny: embed an image",
            task="embed",
            peer=SAM2,
            model="sam2.1_hiera_tiny",
            target=Target(at_least=1.3, aim=2),
            seeded=True,
        ),
        Case(
            name="sam2/track_one",
            title="SAM 2.1 tiny: a tracked frame, one object",
            task="track",
            peer=SAM2,
            model="sam2.1_hiera_tiny",
            target=Target(at_least=1.2, aim=2),
            material="clip",
            seeded=True,
            warmup=FRAMES_BEFORE,
            repeats=FRAMES_TIMED,
        ),
        Case(
            name="sam2/track_four",
            title="SAM 2.1 tiny: a tracked frame, four objects",
            task="track",
            peer=SAM2,
            model="sam2.1_hiera_tiny",
            target=Target(at_least=2, aim=3.5),
            material="clip",
            seeded=True,
            objects=4,
            warmup=FRAMES_BEFORE,
            repeats=FRAMES_TIMED,
        ),
        Case(
            name="sam2/track_memory",
            title="SAM 2.1 tiny: our memory for 300 frames, beside ours for 60",
            task="track_300",
            peer=OURS,
            peer_task="track_60",
            model="sam2.1_hiera_tiny",
            quantity="peak bytes",
            target=Target(at_least=1.05, aim=1),
            material="clip",
            seeded=True,
            warmup=0,
            repeats=1,
        ),
    )
}
