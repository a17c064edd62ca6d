"""The video predictor of SAM 2, with the names and the inference state of the official one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from segany.compat.errors import StateError, require
from segany.compat.sam2.modeling.sam2_base import NO_OBJ_SCORE, SAM2Base
from segany.compat.sam2.utils.misc import fill_holes_in_mask_scores, load_video_frames
from segany.core.errors import PromptError
from segany.imaging.interpolate import resize_smoothly
from segany.models.sam2.memory_bank import select_memory
from segany.models.sam2.tracking import FrameFeatures, ObjectMasks, ObjectMemory

InferenceState = dict[str, Any]
Output = dict[str, Any]
"""The prediction for one object in one frame: `pred_masks` [1, 1, 4h, 4w], `obj_ptr` [1, C], `object_score_logits`
[1, 1] and `maskmem_features`, bfloat16 [1, C_memory, h, w], None until the memory is encoded."""

Answer = tuple[int, list[Any], Tensor]
"""A frame, the ids of all objects, and their mask logits at the size of the video, [O, 1, H, W]."""

_COND, _NON_COND = "cond_frame_outputs", "non_cond_frame_outputs"
_BY_OBJECT = (
    "point_inputs_per_obj",
    "mask_inputs_per_obj",
    "output_dict_per_obj",
    "temp_output_dict_per_obj",
    "frames_tracked_per_obj",
)


class SAM2VideoPredictor(SAM2Base):
    """Prompts objects in the frames of a video and tracks them. All state is in the dictionary of `init_state`."""

    @classmethod
    def from_pretrained(
        cls,
        model_id: str,
        *,
        device: str | torch.device = "cuda",
        mode: Any = "eval",
        hydra_overrides_extra: Sequence[str] = (),
        apply_postprocessing: bool = True,
        vos_optimized: bool = False,
    ) -> SAM2VideoPredictor:
        """Build the predictor of a Hugging Face repository; see `build_sam2_video_predictor_hf`."""
        from segany.compat.sam2.build_sam import build_sam2_video_predictor_hf

        return build_sam2_video_predictor_hf(
            model_id, device, mode, hydra_overrides_extra, apply_postprocessing, vos_optimized
        )

    @torch.inference_mode()
    def init_state(
        self,
        video_path: Any,
        offload_video_to_cpu: bool = False,
        offload_state_to_cpu: bool = False,
        async_loading_frames: bool = False,
    ) -> InferenceState:
        """Open a video.

        Args:
            video_path: a folder of JPEG files whose names are numbers, a video file, or what
                `segany.VideoPredictor.open` takes.
            offload_video_to_cpu, async_loading_frames: make no difference, since frames are read when they are needed.
            offload_state_to_cpu: keep outputs and memories in main memory.

        Returns:
            The inference state. `video_height`, `video_width`, `num_frames`, `images` (normalized frames [3, S, S]) and
            `obj_ids` may be read.

        Raises:
            VideoError: the video cannot be opened.
        """
        images, height, width = load_video_frames(
            video_path, self.image_size, offload_video_to_cpu, async_loading_frames, self.device
        )
        return {
            "images": images,
            "num_frames": len(images),
            "video_height": height,
            "video_width": width,
            "device": self.device,
            "storage_device": torch.device("cpu") if offload_state_to_cpu else self.device,
            "offload_video_to_cpu": offload_video_to_cpu,
            "offload_state_to_cpu": offload_state_to_cpu,
            "cached_features": {},
            "obj_id_to_idx": {},
            "obj_idx_to_id": {},
            "obj_ids": [],
            **{name: {} for name in _BY_OBJECT},
        }

    # Prompts.

    @torch.inference_mode()
    def add_new_points_or_box(
        self,
        inference_state: InferenceState,
        frame_idx: int,
        obj_id: Any,
        points: Any = None,
        labels: Any = None,
        clear_old_points: bool = True,
        normalize_coords: bool = True,
        box: Any = None,
    ) -> Answer:
        """Prompt an object in a frame with points, a box, or both.

        Args:
            inference_state: from `init_state`.
            frame_idx: number of the frame.
            obj_id: id of the object; a new one adds an object.
            points, labels: [N, 2] and [N]: 1 for foreground, 0 for background.
            clear_old_points: whether the points replace earlier points of the frame, or are added to them.
            normalize_coords: whether coordinates are in pixels of the video; else they are in 0..1.
            box: [4], left, top, right, bottom.

        Returns:
            The frame, the ids of all objects, and the mask logits of all objects in the frame, [O, 1, H, W].

        Raises:
            PromptError: points and labels, or points and box, do not go together.
        """
        if (points is None) != (labels is None):
            raise PromptError("points and labels must be given together.")
        if points is None and box is None:
            raise PromptError("Give points with labels, a box, or both.")
        if box is not None and not clear_old_points:
            raise PromptError("A box comes before all points of a frame: with a box, clear_old_points must be True.")
        coords = torch.zeros(1, 0, 2) if points is None else _as_tensor(points, torch.float32).reshape(1, -1, 2)
        kinds = (
            torch.zeros(1, 0, dtype=torch.int32) if labels is None else _as_tensor(labels, torch.int32).reshape(1, -1)
        )
        if box is not None:
            coords = torch.cat([_as_tensor(box, torch.float32).reshape(1, 2, 2), coords], dim=1)
            kinds = torch.cat([torch.tensor([[2, 3]], dtype=torch.int32), kinds], dim=1)
        if normalize_coords:
            coords = coords / torch.tensor([inference_state["video_width"], inference_state["video_height"]])
        device = inference_state["device"]
        given = {"point_coords": (coords * self.image_size).to(device), "point_labels": kinds.to(device)}
        index = self._obj_id_to_idx(inference_state, obj_id)
        inputs = inference_state["point_inputs_per_obj"][index]
        if not clear_old_points and frame_idx in inputs:
            given = {name: torch.cat([inputs[frame_idx][name], new], dim=1) for name, new in given.items()}
        inputs[frame_idx] = given
        inference_state["mask_inputs_per_obj"][index].pop(frame_idx, None)
        return self._prompt(inference_state, frame_idx, index, points=given)

    def add_new_points(self, *args: Any, **kwargs: Any) -> Answer:
        """Call `add_new_points_or_box`, which replaces it."""
        return self.add_new_points_or_box(*args, **kwargs)

    @torch.inference_mode()
    def add_new_mask(self, inference_state: InferenceState, frame_idx: int, obj_id: Any, mask: Any) -> Answer:
        """Give the mask of an object in a frame, bool [H, W]; see `add_new_points_or_box`."""
        given = _as_tensor(mask, torch.bool)
        require(given.dim() == 2, f"A mask must be bool [H, W], got {list(given.shape)}.")
        square = given[None, None].float().to(inference_state["device"])
        if given.shape != (self.image_size, self.image_size):
            square = (resize_smoothly(square, (self.image_size, self.image_size)) >= 0.5).float()
        index = self._obj_id_to_idx(inference_state, obj_id)
        inference_state["mask_inputs_per_obj"][index][frame_idx] = square
        inference_state["point_inputs_per_obj"][index].pop(frame_idx, None)
        return self._prompt(inference_state, frame_idx, index, mask=square)

    def _prompt(
        self,
        state: InferenceState,
        frame: int,
        index: int,
        points: dict[str, Tensor] | None = None,
        mask: Tensor | None = None,
    ) -> Answer:
        """Predict an object in a frame with its prompts. The memory is encoded when tracking begins."""
        tracked = state["frames_tracked_per_obj"][index].get(frame)
        reverse = tracked is not None and tracked["reverse"]
        is_cond = tracked is None or self.settings.add_all_frames_to_correct_as_cond
        kind = _COND if is_cond else _NON_COND
        features = self._features(state, frame)
        waiting, known = state["temp_output_dict_per_obj"][index], state["output_dict_per_obj"][index]
        if mask is not None:
            masks = self.use_masks_as_output(features, mask[0])
        else:
            assert points is not None
            previous = waiting[kind].get(frame) or known[_COND].get(frame) or known[_NON_COND].get(frame)
            conditioned = None
            if tracked is not None:
                conditioned = self.attend_memory(features, [self._memory(state, known, frame, reverse=reverse)])
            logits = None if previous is None else previous["pred_masks"][0].to(state["device"])
            masks = self.decode_frame(
                features, conditioned, points["point_coords"], points["point_labels"], logits
            ).best()
        waiting[kind][frame] = self._outputs(state, masks)[0]
        return self._answer(state, frame, is_cond=is_cond)

    @torch.inference_mode()
    def clear_all_prompts_in_frame(
        self, inference_state: InferenceState, frame_idx: int, obj_id: Any, need_output: bool = True
    ) -> Answer | None:
        """Remove the prompts of an object in a frame; see `add_new_points_or_box` for the result."""
        index = self._obj_id_to_idx(inference_state, obj_id)
        for name in ("point_inputs_per_obj", "mask_inputs_per_obj"):
            inference_state[name][index].pop(frame_idx, None)
        for outputs in inference_state["temp_output_dict_per_obj"][index].values():
            outputs.pop(frame_idx, None)
        known = inference_state["output_dict_per_obj"][index]
        if (output := known[_COND].pop(frame_idx, None)) is not None:
            known[_NON_COND][frame_idx] = output
            inference_state["frames_tracked_per_obj"][index].pop(frame_idx, None)
        return self._answer(inference_state, frame_idx) if need_output else None

    @torch.inference_mode()
    def remove_object(
        self, inference_state: InferenceState, obj_id: Any, strict: bool = False, need_output: bool = True
    ) -> tuple[list[Any], list[tuple[int, Tensor]]]:
        """Remove an object.

        Args:
            inference_state: from `init_state`.
            obj_id: id of the object.
            strict: whether an unknown id is an error.
            need_output: whether to return the masks of the frames in which the object had prompts.

        Returns:
            The ids of the other objects; and such frames with the mask logits of the other objects.

        Raises:
            StateError: `strict` is true and there is no such object.
        """
        state = inference_state
        index = state["obj_id_to_idx"].get(obj_id)
        if index is None:
            if strict:
                raise StateError(f"There is no object {obj_id!r}. The objects: {state['obj_ids']}.")
            return state["obj_ids"], []
        frames = {*state["point_inputs_per_obj"][index], *state["mask_inputs_per_obj"][index]}
        rest = [other for other in state["obj_ids"] if other != obj_id]
        for name in _BY_OBJECT:
            kept = [state[name][state["obj_id_to_idx"][other]] for other in rest]
            state[name].clear()
            state[name].update(enumerate(kept))
        state["obj_ids"] = rest
        state["obj_idx_to_id"] = dict(enumerate(rest))
        state["obj_id_to_idx"] = {other: place for place, other in enumerate(rest)}
        if not need_output or not rest:
            return rest, []
        return rest, [(frame, self._answer(state, frame)[2]) for frame in sorted(frames)]

    @torch.inference_mode()
    def reset_state(self, inference_state: InferenceState) -> None:
        """Remove all objects, prompts and results."""
        for name in (*_BY_OBJECT, "obj_id_to_idx", "obj_idx_to_id", "obj_ids"):
            inference_state[name].clear()

    # Tracking.

    @torch.inference_mode()
    def propagate_in_video_preflight(self, inference_state: InferenceState) -> None:
        """Encode the memories of new prompts; `propagate_in_video` calls it.

        Raises:
            StateError: there are no objects, or one has no prompts.
        """
        state = inference_state
        if not state["obj_ids"]:
            raise StateError("There is nothing to track. Prompt an object first.")
        for index, obj_id in state["obj_idx_to_id"].items():
            waiting, known = state["temp_output_dict_per_obj"][index], state["output_dict_per_obj"][index]
            for kind in (_NON_COND, _COND):
                for frame, output in waiting[kind].items():
                    binarize = self.settings.binarize_mask_from_pts_for_mem_enc
                    self._encode_memories(state, frame, [output], binarize=binarize)
                    known[kind][frame] = output
                    self._clear_around(known, frame)
                waiting[kind].clear()
            if not known[_COND]:
                raise StateError(f"Object {obj_id!r} has no prompts. Prompt or remove it first.")
            for frame in known[_COND]:
                known[_NON_COND].pop(frame, None)

    def propagate_in_video(
        self,
        inference_state: InferenceState,
        start_frame_idx: int | None = None,
        max_frame_num_to_track: int | None = None,
        reverse: bool = False,
    ) -> Iterator[Answer]:
        """Track all objects through the video.

        Args:
            inference_state: from `init_state`.
            start_frame_idx: the first frame; by default the earliest with a prompt.
            max_frame_num_to_track: frames after the first one; by default all.
            reverse: track backward in time.

        Yields:
            For each frame its number, the ids of all objects, and their mask logits [O, 1, H, W].

        Raises:
            StateError: there are no objects, or one has no prompts.
        """
        state = inference_state
        self.propagate_in_video_preflight(state)
        start = start_frame_idx
        if start is None:
            start = min(frame for known in state["output_dict_per_obj"].values() for frame in known[_COND])
        count = state["num_frames"]
        most = count if max_frame_num_to_track is None else max_frame_num_to_track
        if reverse:
            frames = range(start, max(start - most, 0) - 1, -1) if start > 0 else range(0)
        else:
            frames = range(start, min(start + most, count - 1) + 1)
        for frame in frames:
            # Not in this generator, in which the caller's code would run in inference mode too.
            yield self._track(state, frame, reverse=reverse)

    @torch.inference_mode()
    def _track(self, state: InferenceState, frame: int, *, reverse: bool) -> Answer:
        """Predict all objects in one frame."""
        everything = state["output_dict_per_obj"]
        unprompted = [index for index, known in everything.items() if frame not in known[_COND]]
        if unprompted:
            features = self._features(state, frame)
            memories = [self._memory(state, everything[index], frame, reverse=reverse) for index in unprompted]
            masks = self.decode_frame(features, self.attend_memory(features, memories)).best()
            outputs = self._outputs(state, masks)
            self._encode_memories(state, frame, outputs, binarize=False, low_res=masks.low_res[:, 0])
            for index, output in zip(unprompted, outputs, strict=True):
                everything[index][_NON_COND][frame] = output
        logits = []
        for index, known in everything.items():
            if frame in known[_COND]:
                self._clear_around(known, frame)
            state["frames_tracked_per_obj"][index][frame] = {"reverse": reverse}
            output = known[_COND].get(frame) or known[_NON_COND][frame]
            logits.append(output["pred_masks"].to(state["device"]))
        return frame, state["obj_ids"], self._at_video_size(state, torch.cat(logits))

    def _memory(
        self, state: InferenceState, known: dict[str, dict[int, Output]], frame: int, *, reverse: bool
    ) -> ObjectMemory:
        """Gather what a frame attends to in the memory of one object."""
        bank = {**known[_NON_COND], **known[_COND]}
        selection = select_memory(
            frame,
            known[_COND],
            known[_NON_COND],
            self.config.memory,
            reverse=reverse,
            frames_count=state["num_frames"],
        )
        device = state["device"]
        return ObjectMemory(
            tuple(bank[index]["maskmem_features"][0].to(device) for index, _ in selection.memories),
            tuple(tpos for _, tpos in selection.memories),
            tuple(bank[index]["obj_ptr"][0] for index, _ in selection.pointers),
            tuple(tpos for _, tpos in selection.pointers),
        )

    def _outputs(self, state: InferenceState, masks: ObjectMasks) -> list[Output]:
        """Make the outputs of objects from the chosen masks, without memories."""
        low_res = masks.low_res.float()
        if self.settings.fill_hole_area > 0 and low_res.device.type == "cuda":
            low_res = fill_holes_in_mask_scores(low_res, self.settings.fill_hole_area)
        low_res = low_res.to(state["storage_device"])
        return [
            {
                "maskmem_features": None,
                "pred_masks": low_res[row : row + 1].clone(),
                "obj_ptr": masks.pointers[row].clone(),
                "object_score_logits": masks.object_scores[row].reshape(1, 1).clone(),
            }
            for row in range(len(low_res))
        ]

    def _encode_memories(
        self,
        state: InferenceState,
        frame: int,
        outputs: list[Output],
        *,
        binarize: bool,
        low_res: Tensor | None = None,
    ) -> None:
        """Encode the memories of a frame for outputs that have none yet; `low_res` are their logits before cleaning."""
        if outputs[0]["maskmem_features"] is not None:
            return
        device = state["device"]
        logits = torch.cat([output["pred_masks"] for output in outputs])[:, 0] if low_res is None else low_res
        scores = torch.cat([output["object_score_logits"] for output in outputs])[:, 0]
        memory = self.encode_memory(
            self._features(state, frame),
            logits.to(device=device, dtype=self.dtype),
            scores.to(device),
            binarize=binarize,
        )
        memory = memory.bfloat16().to(state["storage_device"])  # as in the official code
        for row, output in enumerate(outputs):
            output["maskmem_features"] = memory[row : row + 1].clone()

    def _clear_around(self, known: dict[str, dict[int, Output]], frame: int) -> None:
        """Forget the tracked frames around a prompted frame, if the settings say so."""
        if not self.settings.clear_non_cond_mem_around_input:
            return
        reach = self.config.memory.temporal_stride * self.config.memory.num_maskmem
        for index in [index for index in known[_NON_COND] if abs(index - frame) <= reach]:
            del known[_NON_COND][index]

    def _features(self, state: InferenceState, frame: int) -> FrameFeatures:
        """Encode a frame; the features of the latest one are kept."""
        cached = state["cached_features"]
        if frame not in cached:
            cached.clear()  # free the old features before computing new ones
            cached[frame] = self.encode_frame(state["images"][frame].to(device=self.device, dtype=self.dtype)[None])
        features: FrameFeatures = cached[frame]
        return features

    def _answer(self, state: InferenceState, frame: int, *, is_cond: bool | None = None) -> Answer:
        """Return the latest masks of all objects in a frame; an object without one gets the logits of absence."""
        waiting_of, known_of = state["temp_output_dict_per_obj"], state["output_dict_per_obj"]
        if is_cond is None:
            is_cond = any(frame in waiting[_COND] for waiting in waiting_of.values())
        kind = _COND if is_cond else _NON_COND
        rows = []
        for index in state["obj_idx_to_id"]:
            known = known_of[index]
            output = waiting_of[index][kind].get(frame) or known[_COND].get(frame) or known[_NON_COND].get(frame)
            side = self.low_res_size
            nothing = torch.full((1, 1, side, side), NO_OBJ_SCORE, device=state["device"])
            rows.append(nothing if output is None else output["pred_masks"].to(state["device"]))
        return frame, state["obj_ids"], self._at_video_size(state, torch.cat(rows))

    def _at_video_size(self, state: InferenceState, low_res: Tensor) -> Tensor:
        """Upscale mask logits [O, 1, 4h, 4w] to the size of the video; make masks disjoint if the settings say so."""
        size = (state["video_height"], state["video_width"])
        logits = F.interpolate(low_res.float(), size, mode="bilinear", align_corners=False)
        if not self.settings.non_overlap_masks or len(logits) == 1:
            return logits
        objects = torch.arange(len(logits), device=logits.device)[:, None, None, None]
        is_highest = logits.argmax(dim=0, keepdim=True) == objects
        return torch.where(is_highest, logits, logits.clamp(max=-10.0))

    def _obj_id_to_idx(self, inference_state: InferenceState, obj_id: Any) -> int:
        """Return the index of an object, which is added if its id is new."""
        indices: dict[Any, int] = inference_state["obj_id_to_idx"]
        if obj_id not in indices:
            index = len(indices)
            indices[obj_id] = index
            inference_state["obj_idx_to_id"][index] = obj_id
            inference_state["obj_ids"] = list(indices)
            for name in _BY_OBJECT:
                has_kinds = name in ("output_dict_per_obj", "temp_output_dict_per_obj")
                inference_state[name][index] = {_COND: {}, _NON_COND: {}} if has_kinds else {}
        return indices[obj_id]


class SAM2VideoPredictorVOS(SAM2VideoPredictor):
    """The predictor that the official code compiles for video object segmentation; here it is the same."""


def _as_tensor(value: Any, dtype: torch.dtype) -> Tensor:
    """Convert an array-like or tensor to a tensor in main memory."""
    return torch.as_tensor(value).to(device="cpu", dtype=dtype)
