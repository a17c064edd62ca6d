"""Serialization of an object's prompts and memory bank to arrays, and back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from segany.core.prompt import Prompt
from segany.predict.object_track import FrameMemory, ObjectTrack

Arrays = dict[str, npt.NDArray[Any]]

_PROMPT_FIELDS = ("points_xy", "labels", "box_xyxy", "mask_logits", "mask")


def track_to_arrays(object_id: int, track: ObjectTrack) -> Iterator[tuple[int, int, str, Arrays]]:
    """Yield object id, frame, kind and arrays of each prompt and each entry of the memory bank; motion is not saved."""
    for frame, prompt in track.prompts.items():
        if isinstance(prompt, Prompt):
            fields = {name: getattr(prompt, name) for name in _PROMPT_FIELDS}
            yield object_id, frame, "prompt", {name: value for name, value in fields.items() if value is not None}
        else:
            yield object_id, frame, "mask", {"mask": prompt}
    for kind, entries in (("conditioning", track.conditioning), ("tracked", track.tracked)):
        for frame, one in entries.items():
            values = {"pointer": one.pointer.float().cpu().numpy()}
            if one.memory is not None:
                values["memory"] = one.memory.cpu().view(torch.int16).numpy()  # NumPy has no bfloat16
            if one.low_res is not None:
                values["low_res"] = one.low_res.cpu().numpy()
            values["facts"] = np.array([one.object_score, one.predicted_iou, one.reverse, one.was_tracked])
            yield object_id, frame, kind, values


def add_arrays_to_track(track: ObjectTrack, frame: int, kind: str, values: Arrays, device: torch.device) -> None:
    """Restore one item of `track_to_arrays`."""
    if kind == "prompt":
        track.prompts[frame] = Prompt(**values)
    elif kind == "mask":
        track.prompts[frame] = values["mask"]
    else:
        object_score, predicted_iou, reverse, was_tracked = values["facts"].tolist()
        tensors = {name: torch.from_numpy(values[name]).to(device) for name in values if name != "facts"}
        memory = tensors.get("memory")
        entries = track.conditioning if kind == "conditioning" else track.tracked
        entries[frame] = FrameMemory(
            memory=None if memory is None else memory.view(torch.bfloat16),
            pointer=tensors["pointer"],
            low_res=tensors.get("low_res"),
            object_score=object_score,
            predicted_iou=predicted_iou,
            reverse=bool(reverse),
            was_tracked=bool(was_tracked),
        )
