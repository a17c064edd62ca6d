"""Settings of tracking."""

from __future__ import annotations

from dataclasses import dataclass

from segany.core.errors import check, check_numbers


@dataclass(frozen=True)
class VideoConfig:
    """Settings of tracking. The defaults give the results of the official code, except for the last setting.

    Attributes:
        motion_aware: select candidate masks and memories with a motion model (SAMURAI), which needs no training.
        min_mask_region_area: holes and islands of masks with fewer pixels are removed; 0 for none. Results are
            cleaned at the size of the video, and the memory bank is not. The official `fill_hole_area=8` removes
            holes and islands of up to 8 pixels of low-res masks, on CUDA only: here, that limit is 9.
        binarize_prompted: encode the memory of prompted frames from thresholded masks instead of probabilities
            (`binarize_mask_from_pts_for_mem_enc`).
        remember_corrections: whether a prompt on a frame that was tracked before makes it a conditioning frame, as a
            first prompt does (`add_all_frames_to_correct_as_cond`). If not, such a frame stays a tracked frame, and
            tracking over it again undoes the correction.
    """

    motion_aware: bool = False
    min_mask_region_area: int = 0
    binarize_prompted: bool = True
    remember_corrections: bool = True

    def __post_init__(self) -> None:
        check_numbers(self)
        area = self.min_mask_region_area
        check(area >= 0, f"min_mask_region_area must not be negative, got {area}.")
