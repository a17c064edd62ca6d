"""SAM's interactive training: several prompts for each object, with a loss on each predicted mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from segany.core.arrays import PixelArray
from segany.core.errors import ConfigError, TrainingError
from segany.data.item import TrainingItem
from segany.kernels.processor import TensorProcessor
from segany.models.promptable import PromptableModel
from segany.runtime.torch_model import TorchModel
from segany.train.adapters import merged_copy
from segany.train.click_simulation import ClickSimulation
from segany.train.losses import ObjectLosses, object_losses
from segany.train.parameters import freeze_parts, parameter_groups
from segany.train.prompts import draw_prompts
from segany.train.recipe import TrainContext, TrainingRecipe
from segany.train.sam_recipe import SamRecipe
from segany.train.task import ItemLoss
from segany.train.validation import (
    LOSS_IMAGES,
    LOSS_MASKS,
    AutomaticScore,
    ClickScores,
    ValidatedRecipe,
    val_items,
)

FeatureSource: TypeAlias = Callable[[TrainingItem], Sequence[Tensor]]
"""A function from an item to its cached features, those of `encode_features` without the axis B."""

Validation: TypeAlias = Callable[[TorchModel], dict[str, float]]

_DROPS = 0xD0
"""Stream of random numbers for drop path, to keep them independent of other uses of the seed."""


class SamTask:
    """SAM's training algorithm (Segment Anything, section A) as a `Task`.

    The image of an item is encoded once. Each of its objects is prompted `iterations` times: first with a point or a
    box, then with one more point from the error region of the previous prediction, together with that prediction's
    low-res logits as the mask prompt, without gradients. The losses of all iterations are added, as in SAM 2's
    published training (SAM's paper does not say), and the loss of an item is the mean over its objects.

    Attributes:
        module: the model.
        recipe: the hyperparameters.
    """

    def __init__(
        self,
        model: PromptableModel,
        recipe: SamRecipe,
        features: FeatureSource | None = None,
        validation: Validation | None = None,
        val_items: Sequence[TrainingItem] = (),
    ) -> None:
        """Freeze the parameters that are not trained.

        Args:
            model: a model of any family, which is trained in place.
            recipe: the hyperparameters.
            features: a source of cached features. With it, the image encoder does not run.
            validation: computes scores of the model on the validation set; the first selects the best checkpoint.
            val_items: validation items, for which `validate` computes the loss.

        Raises:
            ConfigError: the recipe does not fit the model, or trains the image encoder with cached features.
        """
        if features is not None and recipe.train != "decoder":
            raise ConfigError('The image encoder cannot be trained with cached features: set train to "decoder".')
        encoder = model.config.encoder
        if recipe.train == "all" and recipe.drop_path > 0 and not encoder.has_drop_path:
            raise ConfigError(f"{encoder.title} has no drop path: set drop_path to 0, got {recipe.drop_path}.")
        size = model.config.input_size
        if recipe.loss_side is not None and recipe.loss_side > size:
            raise ConfigError(f"loss_side {recipe.loss_side} is larger than the side of the model's input, {size}.")
        self.module: nn.Module = model
        self.recipe = recipe
        self._model = model
        self._processor = TensorProcessor(model.preprocessing)
        self._features = features
        self._validation = validation
        self._val_items = tuple(val_items)
        freeze_parts(model, recipe.train)

    def parameter_groups(self) -> list[dict[str, object]]:
        """See `train.parameters.parameter_groups`."""
        recipe = self.recipe
        return parameter_groups(
            self._model,
            weight_decay=recipe.weight_decay,
            layer_decay=recipe.layer_decay,
            encoder_lr_scale=recipe.encoder_lr_scale,
        )

    def validate(self) -> dict[str, float]:
        """The scores of the validation, then `val_loss`. Empty without a validation set."""
        self._model.eval()
        scores = {} if self._validation is None else dict(self._validation(TorchModel(self._model)))
        if self._val_items:
            with torch.no_grad():
                losses = [float(self._losses([item], in_training=False)[0].total) for item in self._val_items]
            scores["val_loss"] = sum(losses) / len(losses)
        return scores

    def saved_module(self) -> PromptableModel:
        """The model, or a copy with merged adapters if it has adapters."""
        return merged_copy(self._model)

    def samples(self) -> Sequence[PixelArray]:
        """Pictures of predictions on validation images, uint8 [H, W, 3], if the validation draws any."""
        return self._validation.pictures(TorchModel(self._model)) if isinstance(self._validation, ClickScores) else ()

    def losses(self, items: Sequence[TrainingItem]) -> list[ItemLoss]:
        """Encode the items in one batch, and decode all objects whose prompts have the same shape in one batch.

        Raises:
            TrainingError: an item has no masks, or they do not have the size of the model's input.
        """
        self._set_modes()
        return self._losses(items, in_training=True)

    def _losses(self, items: Sequence[TrainingItem], *, in_training: bool) -> list[ItemLoss]:
        for item in items:
            self._check_fits(item)
        features = self._encode(items, self._drop_path_scales(items) if in_training else None)
        interactions = [one for number, item in enumerate(items) for one in self._start(number, item)]
        for iteration in range(self.recipe.iterations):
            for alike in self._groups(interactions, iteration):
                self._answer(features, alike)
        return [_item_loss([one for one in interactions if one.item == number]) for number in range(len(items))]

    def _check_fits(self, item: TrainingItem) -> None:
        size = self._model.config.input_size
        if not len(item.masks) or item.masks.shape[1:] != (size, size):
            raise TrainingError(
                f"{item.name}: its masks have the shape {item.masks.shape}, and the model takes N x {size} x {size} of "
                "at least one object. Make items at the side of the model's input."
            )

    def _set_modes(self) -> None:
        """Set trained parts to training mode, and frozen ones to evaluation mode."""
        self._model.train()
        if self.recipe.train == "decoder":
            self._model.image_encoder.eval()
        elif not self.recipe.batch_statistics:
            for module in self._model.image_encoder.modules():
                # A convolution and its norm are one module, which fuses them in evaluation mode.
                if isinstance(module, nn.BatchNorm2d) or any(isinstance(x, nn.BatchNorm2d) for x in module.children()):
                    module.training = False

    def _encode(self, items: Sequence[TrainingItem], drop_path_scales: Tensor | None) -> list[Tensor]:
        """The features of the items, [B, C, h, w] each, from the cache or the image encoder."""
        if self._features is not None:
            kept = [self._features(item) for item in items]
            return [torch.stack(list(rows)).to(self._model.device) for rows in zip(*kept, strict=True)]
        pixels = self._processor.normalize([item.image for item in items], self._model)
        if self.recipe.train == "decoder":
            with torch.no_grad():
                return list(self._model.encode_features(pixels))
        return list(self._model.encode_features(pixels, drop_path_scales))

    def _drop_path_scales(self, items: Sequence[TrainingItem]) -> Tensor | None:
        if self.recipe.drop_path == 0 or self.recipe.train == "decoder":
            return None
        depth = len(self._model.image_encoder.encoder_blocks())
        scales = drop_path_scales([item.seed for item in items], depth, self.recipe.drop_path)
        return torch.from_numpy(scales).to(self._model.device, self._model.dtype)

    def _start(self, number: int, item: TrainingItem) -> list[ClickSimulation]:
        recipe = self.recipe
        plan = draw_prompts(
            item.seed,
            len(item.masks),
            iterations=recipe.iterations,
            repeats=recipe.repeats,
            box_chance=recipe.box_chance,
            uniform_boxes=recipe.box_noise_kind == "uniform",
        )
        device = self._model.device
        kinds = np.unique(plan.starts_with_box).tolist()
        return [ClickSimulation(number, item, plan, recipe, device, boxes=boxes) for boxes in kinds]

    def _groups(self, interactions: list[ClickSimulation], iteration: int) -> list[list[ClickSimulation]]:
        """Add the prompts of an iteration, and group objects whose prompts have the same shape.

        Prompts of different shapes do not share a batch, because the decoder attends to padding points too.
        """
        groups: dict[tuple[int, bool], list[ClickSimulation]] = {}
        for one in interactions:
            one.prompt(iteration)
            _, labels = one.padded(pads_boxes=self._model.pads_boxes)
            form = (labels.shape[1], one.is_ambiguous(box_multimask=self.recipe.box_multimask))
            groups.setdefault(form, []).append(one)
        return list(groups.values())

    def _answer(self, features: list[Tensor], alike: list[ClickSimulation]) -> None:
        """Decode the masks, compute the losses, and keep the candidate with the highest predicted IoU."""
        multimask = alike[0].is_ambiguous(box_multimask=self.recipe.box_multimask)
        prompts = [one.padded(pads_boxes=self._model.pads_boxes) for one in alike]
        points, labels = (torch.cat(parts) for parts in zip(*prompts, strict=True))
        before = [one.mask_logits for one in alike if one.mask_logits is not None]
        counts = [len(one) for one in alike]
        images = torch.tensor([one.item for one in alike for _ in range(len(one))], device=points.device)
        one_image = len({one.item for one in alike}) == 1
        chosen = [feature[alike[0].item] if one_image else feature[images] for feature in features]
        objects, truth = (torch.cat([getattr(one, name) for one in alike]) for name in ("masks", "truth"))
        masks = torch.cat(before) if before else None
        low_res, iou = self._model.decode_features(chosen, points, labels, masks, multimask=multimask)
        losses = object_losses(low_res, iou, objects, self.recipe.loss_weights, truth=truth)
        each = torch.arange(len(low_res), device=low_res.device)
        logits = low_res[each, iou.argmax(dim=1)].detach().float()
        pieces = zip(*(values.split(counts) for values in losses), strict=True)
        for one, next_logits, piece in zip(alike, logits.split(counts), pieces, strict=True):
            one.mask_logits = next_logits
            one.losses.append(ObjectLosses(*piece))


def drop_path_scales(seeds: Sequence[int], depth: int, rate: float) -> npt.NDArray[np.float64]:
    """The factors by which drop path scales the residual branches of an image encoder.

    Args:
        seeds: seeds of the B items.
        depth: number of blocks, with two branches each.
        rate: drop path rate of the last block. It increases linearly from 0 at the first block.

    Returns:
        float64 [depth, 2, B]: 0 for a dropped branch, and 1 / keep probability otherwise.
    """
    kept = 1 - np.linspace(0, rate, depth)[:, None]
    draws = [np.random.default_rng([_DROPS, seed]).random((depth, 2)) for seed in seeds]
    return np.stack([(draw < kept) / kept for draw in draws], axis=-1)


def build_sam_task(recipe: TrainingRecipe, given: TrainContext, features: FeatureSource | None = None) -> SamTask:
    """Build the task of a recipe whose `task` is a `ValidatedRecipe`, with its validation.

    Args:
        recipe: the recipe.
        given: the context. Its model may have adapters.
        features: as for `SamTask`.

    Raises:
        ConfigError: the items do not fit the model's input, or as for `SamTask`.
    """
    given.check_fits(recipe.items)
    numbers: ValidatedRecipe = recipe.task
    val, most = given.data.val, numbers.max_val_images
    loss_images = LOSS_IMAGES if most is None else min(LOSS_IMAGES, most)
    items = val_items(val, replace(recipe.items, max_masks=min(LOSS_MASKS, recipe.items.max_masks)), loss_images)
    validation = ClickScores(val, most, automatic=AutomaticScore.of(given.model, val))
    return SamTask(given.model, numbers, features, validation, items)


def _item_loss(interactions: list[ClickSimulation]) -> ItemLoss:
    """The sum of the losses over the iterations, averaged over the objects of an item.

    For the log, the parts are means over the iterations; `first_iou` and `last_iou` are the mean true IoU of the best
    candidate in the first and the last iteration.
    """
    count = sum(len(one) for one in interactions)
    answers = [losses for one in interactions for losses in one.losses]
    total = torch.cat([losses.total for losses in answers]).sum() / count
    names = ("focal", "dice", "iou_loss")
    sums = [torch.cat([getattr(losses, name) for losses in answers]).sum() for name in names]
    means = torch.stack(sums) / (count * len(interactions[0].losses))
    ends = [torch.cat([one.losses[end].true_iou.amax(dim=1) for one in interactions]).mean() for end in (0, -1)]
    values = torch.cat([means, torch.stack(ends)]).tolist()
    return ItemLoss(total, dict(zip((*names, "first_iou", "last_iou"), values, strict=True)))
