"""The overrides of the official Hydra configs that segany takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from segany.core.errors import ConfigError
from segany.models.sam2.config import Sam2Config

_TRUE_OR_FALSE = {"true": True, "false": False}


@dataclass(frozen=True)
class Sam2Settings:
    """Settings of SAM 2 that an override may change, with the defaults of the official configs.

    Attributes:
        dynamic_multimask_via_stability, dynamic_multimask_stability_delta, dynamic_multimask_stability_thresh: whether
            the best multimask output replaces an unstable single mask, and when a mask is unstable.
        binarize_mask_from_pts_for_mem_enc: encode the memory of prompted frames from thresholded masks.
        max_cond_frames_in_attn: conditioning frames that a frame attends to at most; -1 for all.
        max_obj_ptrs_in_encoder: object pointers that a frame attends to at most.
        memory_temporal_stride_for_eval: frames between two tracked frames in the memory.
        non_overlap_masks: of overlapping masks of a frame, keep the one with the highest logit in each pixel.
        non_overlap_masks_for_mem_enc: as in the official code without effect, since objects are tracked one by one.
        fill_hole_area: holes of low-res masks of up to this area are filled; as in the official code, on CUDA only.
        clear_non_cond_mem_around_input: forget the tracked frames around a prompted one.
        add_all_frames_to_correct_as_cond: a prompt on a tracked frame makes it a conditioning frame.
    """

    dynamic_multimask_via_stability: bool = False
    dynamic_multimask_stability_delta: float = 0.05
    dynamic_multimask_stability_thresh: float = 0.98
    binarize_mask_from_pts_for_mem_enc: bool = False
    max_cond_frames_in_attn: int = -1
    max_obj_ptrs_in_encoder: int = 16
    memory_temporal_stride_for_eval: int = 1
    non_overlap_masks: bool = False
    non_overlap_masks_for_mem_enc: bool = False
    fill_hole_area: int = 0
    clear_non_cond_mem_around_input: bool = False
    add_all_frames_to_correct_as_cond: bool = False

    def applied_to(self, config: Sam2Config) -> Sam2Config:
        """Return the config of the model with these settings."""
        most = self.max_cond_frames_in_attn
        return replace(
            config,
            decoder=replace(
                config.decoder,
                stability_delta=self.dynamic_multimask_stability_delta,
                stability_thresh=(
                    self.dynamic_multimask_stability_thresh if self.dynamic_multimask_via_stability else None
                ),
            ),
            memory=replace(
                config.memory,
                max_cond_frames=None if most == -1 else most,
                max_obj_ptrs=self.max_obj_ptrs_in_encoder,
                temporal_stride=self.memory_temporal_stride_for_eval,
            ),
        )


_DECODER = "model.sam_mask_decoder_extra_args."
_KEYS = {
    (_DECODER if field.name.startswith("dynamic_multimask") else "model.") + field.name: field
    for field in fields(Sam2Settings)
}


def parse_overrides(overrides: Sequence[str], settings: Sam2Settings) -> Sam2Settings:
    """Apply overrides such as `++model.non_overlap_masks=true`.

    Raises:
        ConfigError: an override is not one of those that segany takes, or has a value of another type.
    """
    values: dict[str, Any] = {}
    for override in overrides:
        key, equals, text = override.lstrip("+").partition("=")
        field = _KEYS.get(key.strip())
        if field is None or not equals:
            raise ConfigError(
                f"segany does not take the override {override!r}. It takes, as key=value:\n  " + "\n  ".join(_KEYS)
            )
        values[field.name] = _parse(text.strip(), type(field.default), override)
    return replace(settings, **values)


def _parse(text: str, kind: type, override: str) -> Any:
    try:
        return _TRUE_OR_FALSE[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError) as error:
        raise ConfigError(f"The value of the override {override!r} must be of type {kind.__name__}.") from error
