"""The result of an image predictor: masks for prompts, with several candidates each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segany.core.arrays import BoolArray, FloatArray, IntArray, ReadOnlyArrays, frozen_view
from segany.core.errors import PromptError
from segany.core.instances import Instances
from segany.core.prompt import Prompt, checked_points
from segany.core.rle import encode_masks


@dataclass(frozen=True, eq=False)
class MaskPrediction(ReadOnlyArrays):
    """Masks for P prompts, up to M candidates each. The rank is fixed: no axis is ever squeezed.

    If prompts with three candidates and prompts with one are mixed, M is three and the unused entries are empty masks
    with a score of -inf; `prediction[i]` has only the candidates of prompt i.

    Attributes:
        masks: bool [P, M, H, W] at the size of the original image.
        scores: float32 [P, M], the predicted IoU of each mask: the raw output of the IoU head, which may slightly
            exceed 1.
        low_res_logits: float32 [P, M, h, w] in the square frame of the model's input; pass one as `mask_logits` of
            the next prompt.
        candidates: int64 [P], the number of candidates of each prompt.
        prompts: the P prompts, in order.
        logits: float32 [P, M, H, W], masks before thresholding at `MASK_THRESHOLD`; None unless requested.
    """

    masks: BoolArray
    scores: FloatArray
    low_res_logits: FloatArray
    candidates: IntArray
    prompts: tuple[Prompt, ...]
    logits: FloatArray | None = None

    def __post_init__(self) -> None:
        for name in ("masks", "scores", "low_res_logits", "candidates", "logits"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, frozen_view(value))

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, index: int) -> MaskPrediction:
        """Return the prediction for one prompt, with P = 1 and M = its number of candidates."""
        if not -len(self) <= index < len(self):  # iteration relies on it
            raise IndexError(f"prompt {index} of {len(self)}")
        index %= len(self)
        count = int(self.candidates[index])
        one = slice(index, index + 1)
        return MaskPrediction(
            masks=self.masks[one, :count],
            scores=self.scores[one, :count],
            low_res_logits=self.low_res_logits[one, :count],
            candidates=self.candidates[one],
            prompts=self.prompts[one],
            logits=None if self.logits is None else self.logits[one, :count],
        )

    @property
    def best_index(self) -> IntArray:
        """Index of the candidate with the highest score for each prompt, int64 [P]."""
        return np.asarray(self.scores.argmax(axis=1), dtype=np.int64)

    def best(self) -> BoolArray:
        """Return the mask with the highest score for each prompt, bool [P, H, W]."""
        return self.masks[np.arange(len(self)), self.best_index]

    def to_instances(self, *, all_candidates: bool = False) -> Instances:
        """Convert to `Instances` of source "prompt", with the scores; `object_ids` number the prompts from 1.

        Args:
            all_candidates: include all candidates of each prompt instead of the one with the highest score, numbered
                from 1 in the column `candidate`, int64 [N].
        """
        prompts, candidates = np.arange(len(self)), self.best_index
        if all_candidates:
            prompts = np.repeat(prompts, self.candidates)
            candidates = np.concatenate([np.arange(count) for count in self.candidates.tolist()])
        rles = [encode_masks(self.masks[place])[0] for place in zip(prompts, candidates, strict=True)]
        return Instances.from_rles(
            rles,
            (self.masks.shape[2], self.masks.shape[3]),
            scores=self.scores[prompts, candidates],
            object_ids=prompts + 1,
            sources="prompt",
            columns={"candidate": candidates + 1} if all_candidates else None,
        )

    def refine(
        self,
        points_xy: npt.ArrayLike | None = None,
        labels: npt.ArrayLike | None = None,
        box_xyxy: npt.ArrayLike | None = None,
        *,
        prompt: int = 0,
        candidate: int | None = None,
    ) -> Prompt:
        """Make the next prompt for the same object from its points, new points, and low-res logits as mask prompt.

        Args:
            points_xy, labels: points [N, 2] and labels [N] to add to those of the prompt.
            box_xyxy: replaces the box of the prompt; [4].
            prompt: index of the prompt to refine.
            candidate: index of the mask to refine; by default the one with the highest score.

        Raises:
            PromptError: there is no such prompt or candidate, or the points or the box are invalid.
        """
        if not 0 <= prompt < len(self):
            raise PromptError(f"There are {len(self)} prompts, so {prompt} is none of them.")
        earlier = self.prompts[prompt]
        chosen = int(self.best_index[prompt]) if candidate is None else candidate
        if not 0 <= chosen < int(self.candidates[prompt]):
            raise PromptError(f"Prompt {prompt} has {self.candidates[prompt]} candidates, so {chosen} is none of them.")
        points, point_labels = checked_points(points_xy, labels)
        if points is None or point_labels is None:
            points, point_labels = earlier.points_xy, earlier.labels
        elif earlier.points_xy is not None and earlier.labels is not None:
            points = np.concatenate([earlier.points_xy, points])
            point_labels = np.concatenate([earlier.labels, point_labels])
        return Prompt(
            points_xy=points,
            labels=point_labels,
            box_xyxy=earlier.box_xyxy if box_xyxy is None else box_xyxy,
            mask_logits=self.low_res_logits[prompt, chosen],
        )
