"""The steps of tracking, driven by hand, against the official video predictor (see `test_shared.py` for the files).

Object 1 has two points on frame 0 and another on frame 3, object 2 a box on frame 0; all prompts come before
the video is tracked forward, and then backward from frame 5.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tests.parity.test_shared import SEEDED_LOGIT_TOLERANCE, SHARED, seeded_sam2
from torch import Tensor

from segany.kernels.processor import TensorProcessor
from segany.models.sam2.memory_bank import select_memory
from segany.models.sam2.model import Sam2
from segany.models.sam2.tracking import FrameFeatures, ObjectMasks, ObjectMemory

FRAMES_COUNT = 8
SIZE_HW = (540, 960)

pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not (SHARED / "golden").is_dir(), reason=f"needs the golden files in {SHARED / 'golden'}"),
]


def features(model: Sam2, frame: int) -> FrameFeatures:
    path = sorted((SHARED / "video/bedroom").glob("*.jpg"))[frame]
    pixels = TensorProcessor(model.preprocessing).frame_tensor(np.array(Image.open(path).convert("RGB")), model)
    return model.encode_frame(pixels)


def to_input(points_xy: list[list[float]]) -> Tensor:
    return torch.tensor([points_xy]) * torch.tensor([1024 / SIZE_HW[1], 1024 / SIZE_HW[0]])


@dataclass
class Bank:
    """One object's memories and pointers by frame."""

    conditioning: list[int] = field(default_factory=list)
    memories: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    answers: dict[int, Tensor] = field(default_factory=dict)

    def remember(self, model: Sam2, frame: int, image: FrameFeatures, masks: ObjectMasks) -> None:
        memory = model.encode_memory(image, masks.low_res[:, 0], masks.object_scores)
        self.memories[frame] = (memory[0].bfloat16(), masks.pointers[0, 0])  # as the official predictor keeps them
        self.answers[frame] = masks.low_res[0, 0]

    def prompt(self, model: Sam2, frame: int, points_xy: list[list[float]], labels: list[int]) -> None:
        image = features(model, frame)
        self.conditioning.append(frame)
        masks = model.decode_frame(image, points=to_input(points_xy), labels=torch.tensor([labels]))
        self.remember(model, frame, image, masks.best())

    def gather_memory(self, model: Sam2, frame: int, *, reverse: bool) -> ObjectMemory:
        tracked = self.memories.keys() - set(self.conditioning)
        selection = select_memory(
            frame, self.conditioning, tracked, model.config.memory, reverse=reverse, frames_count=FRAMES_COUNT
        )
        return ObjectMemory(
            tuple(self.memories[index][0] for index, _ in selection.memories),
            tuple(tpos for _, tpos in selection.memories),
            tuple(self.memories[index][1] for index, _ in selection.pointers),
            tuple(tpos for _, tpos in selection.pointers),
        )


def track(model: Sam2, banks: list[Bank], frame: int, *, reverse: bool) -> None:
    """Follow the objects to a frame; those that were prompted there keep that answer."""
    tracked_banks = [bank for bank in banks if frame not in bank.conditioning]
    if not tracked_banks:
        return
    image = features(model, frame)
    conditioned = model.attend_memory(
        image, [bank.gather_memory(model, frame, reverse=reverse) for bank in tracked_banks]
    )
    masks = model.decode_frame(image, conditioned).best()
    for index, bank in enumerate(tracked_banks):
        bank.remember(model, frame, image, ObjectMasks(*(part[index : index + 1] for part in masks)))


@pytest.mark.parametrize(
    ("name", "frames"),
    [
        pytest.param("sam2.1_hiera_tiny", 2),
        pytest.param("sam2_hiera_tiny", 8, marks=pytest.mark.slow),
        pytest.param("sam2.1_hiera_tiny", 8, marks=pytest.mark.slow),
    ],
)
def test_tracking(name: str, frames: int) -> None:
    model, banks = seeded_sam2(name), [Bank(), Bank()]
    expected = np.load(SHARED / f"golden/video/{name}.npz")
    with torch.inference_mode():
        banks[0].prompt(model, 0, [[210, 350], [250, 220]], [1, 1])
        banks[1].prompt(model, 0, [[300, 0], [500, 400]], [2, 3])
        banks[0].prompt(model, 3, [[400, 300]], [0])
        check(banks[0].answers[3], expected["prompt3"][0])
        for frame in range(frames):
            track(model, banks, frame, reverse=False)
            for bank, logits in zip(banks, expected[f"fwd{frame}"], strict=True):
                check(bank.answers[frame], logits)
        for frame in range(5, -1, -1) if frames == FRAMES_COUNT else ():
            track(model, banks, frame, reverse=True)
            for bank, logits in zip(banks, expected[f"rev{frame}"], strict=True):
                check(bank.answers[frame], logits)


def check(low_res: Tensor, expected: np.ndarray) -> None:
    logits = F.interpolate(low_res[None, None], SIZE_HW, mode="bilinear", align_corners=False)[0, :, ::4, ::4]
    np.testing.assert_allclose(logits, expected, atol=SEEDED_LOGIT_TOLERANCE)
