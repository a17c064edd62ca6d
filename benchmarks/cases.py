"""The table of benchmark cases and their targets.

A new case is a row here, and a function with the name of its task in `benchmarks/ours.py` and in the peer's worker.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Literal, TypeAlias

from benchmarks.protocol import Report

Quantity: TypeAlias = Literal["call seconds", "process seconds", "peak bytes"]
"""The measured quantity: the time of one call, or of a whole process from its start, or its peak memory."""

Material: TypeAlias = Literal["image", "clip", "noise"]
"""The kind of input: an image, a folder of video frames, or noise in the shape of a model's input."""

OURS = "benchmarks.ours"
MOBILE_SAM = "benchmarks.peers.mobile_sam"
SEGMENT_ANYTHING = "benchmarks.peers.segment_anything"
SAM2 = "benchmarks.peers.sam2"

FRAMES_BEFORE, FRAMES_TIMED = 8, 4
"""Number of frames that are tracked before timing, and of timed frames, one per call.

From frame 7 on, the memory bank of SAM 2 is full: memories of six tracked frames and of the prompted frame.
"""


@dataclass(frozen=True)
class Target:
    """The ratio that a case must reach, and the one it should reach; in the form of `Case.ratio`."""

    at_least: float
    aim: float


@dataclass(frozen=True)
class Case:
    """A benchmark case.

    Attributes:
        name: name for `--case`, and path of the results.
        title: title in the tables.
        task: the function of the workers that prepares the call.
        peer: module of the peer's worker; our own worker if segany is compared with itself.
        model: name of the model in segany.
        quantity: the measured quantity.
        target: the required ratio, if any.
        peer_task: task of the peer, if it is not `task`.
        material: kind of the input.
        seeded: whether the weights are generated from a seed instead of published.
        objects: number of objects that are tracked through a clip.
        warmup, repeats: number of calls in each process before timing, and of timed calls.
        device: device of PyTorch.
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
        """Return the quantity of one process."""
        if self.quantity == "call seconds":
            return median(report.seconds)
        if self.quantity == "process seconds":
            return report.process_seconds
        return float(report.peak_bytes)

    def ratio(self, ours: float, peer: float) -> float:
        """Return our speedup over the peer, or our share of the peer's memory."""
        return ours / peer if self.quantity == "peak bytes" else peer / ours

    def reaches(self, ratio: float, wanted: float) -> bool:
        """Whether a ratio is at least as good as another."""
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
