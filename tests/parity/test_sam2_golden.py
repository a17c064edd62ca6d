"""Ours against the official SAM 2, on a small model that the repository carries (made by make_golden.py)."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tests.models_for_tests import SMALL_SAM2_CONFIGS, small_sam2
from tests.parity.cases import SAM2_POINTS, SAM2_STEPS, small_frames, small_object_mask, small_pixels
from tests.parity.seeded import seeded_state
from tests.parity.test_golden import GOLDEN, golden, grad_mode

from segany.models.sam2.memory_bank import select_memory
from segany.models.sam2.model import Sam2
from segany.models.sam2.tracking import FrameFeatures, ObjectMasks, ObjectMemory

__all__ = ["grad_mode"]


def prompt(model: Sam2, case: str, image: FrameFeatures) -> ObjectMasks:
    if case == "mask":
        return model.use_masks_as_output(image, small_object_mask())
    points, labels = torch.tensor(SAM2_POINTS["points"]), torch.tensor(SAM2_POINTS["labels"])
    return model.decode_frame(image, points=points, labels=labels).best()


@pytest.mark.usefixtures("grad_mode")
@pytest.mark.parametrize("case", ["points", "mask", "hidden"])
@pytest.mark.parametrize("version", ["sam2", "sam2.1"])
def test_every_step_of_tracking(version: str, case: str) -> None:
    model, expected = small_sam2(version), golden(f"small_{version}")
    if case == "hidden":
        with torch.no_grad():
            model.sam_mask_decoder.pred_obj_score_head.get_parameter("layers.2.bias").fill_(-100)
    memories: list[torch.Tensor] = []
    pointers: list[torch.Tensor] = []
    for frame, pixels in enumerate(small_frames()):
        image = model.encode_frame(pixels)
        if frame == 0:
            masks = prompt(model, case, image)
        else:
            selection = select_memory(frame, [0], range(1, frame), model.config.memory)
            memory = ObjectMemory(
                tuple(memories[index] for index, _ in selection.memories),
                tuple(tpos for _, tpos in selection.memories),
                tuple(pointers[index] for index, _ in selection.pointers),
                tuple(tpos for _, tpos in selection.pointers),
            )
            masks = model.decode_frame(image, model.attend_memory(image, [memory])).best()
        memories.append(model.encode_memory(image, masks.low_res[:, 0], masks.object_scores, binarize=frame == 0)[0])
        pointers.append(masks.pointers[0, 0])
        ours = {
            "low": masks.low_res[0, 0],
            "pointer": pointers[-1],
            "score": masks.object_scores,
            "memory_every4": memories[-1][::4],
        }
        for name, value in ours.items():
            want = expected[f"{case}{frame}_{name}"]
            np.testing.assert_allclose(value.detach(), want, atol=1e-3, err_msg=f"{name} of frame {frame}")
    assert frame == SAM2_STEPS


def test_transformers_checkpoint_gives_what_transformers_gives() -> None:
    shapes = json.loads((GOLDEN / "small_sam2_transformers.json").read_text())
    state = seeded_state({key: tuple(shape) for key, shape in shapes.items()})
    model = Sam2(SMALL_SAM2_CONFIGS["sam2.1"], name="small")
    model.load_state_dict(model.config.rename_keys({key: torch.from_numpy(value) for key, value in state.items()}))
    expected = golden("small_sam2_transformers")
    memory = torch.from_numpy(np.random.default_rng(3).standard_normal((1, 256 + 4, 64), dtype=np.float32))
    with torch.inference_mode():
        image = model.eval().encode_frame(small_pixels()).image
        attended = model.memory_attention(model.memory_attention.encode_frame(image), memory, memory, 4)
    np.testing.assert_allclose(image[0, ::8], expected["embedding_every8"], atol=2e-4)
    np.testing.assert_allclose(attended[0, :, ::8], expected["attended_every8"], atol=1e-3)
