"""SAM's training: objects are prompted several times, and each predicted mask is compared with the true one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
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
"""What `encode_features` makes of an item, without the axis B, from wherever it was kept."""

Validation: TypeAlias = Callable[[TorchModel], dict[str, float]]

_DROPS = 0xD0
"""Sets the numbers drawn for dropped branches apart from others that come from the same seed."""


class SamTask:
    """SAM's training algorithm (Segment Anything, section A) as a `Task`.

    An item is encoded once. Each of its objects is prompted `iterations` times: with a point or a box, then
    with one point more where the answer before was wrong, along with that answer's logits as a mask, which
    carry no gradients. The losses of all iterations add up, as in SAM 2's published training (the paper of SAM
    does not say), and an item's loss is the mean over its objects.

    Attributes:
        module: the model.
        recipe: the numbers.
    """

    def __init__(
        self,
        model: PromptableModel,
        recipe: SamRecipe,
        features: FeatureSource | None = None,
        validation: Validation | None = None,
        val_items: Sequence[TrainingItem] = (),
    ) -> None:
        """Freeze what is not trained.

        Args:
            model: of any family; its weights are trained in place.
            recipe: the numbers.
            features: where embeddings come from that were computed before; then the encoder never runs.
            validation: scores of the model on held-out data; the first decides which checkpoint is the best.
            val_items: held-out items, of which `validate` reports the loss.

        Raises:
            ConfigError: the recipe cannot be followed with this model, or trains what never runs.
        """
        if features is not None and recipe.train != "decoder":
            raise ConfigError('Features computed before leave the encoder as it is: set train to "decoder".')
        encoder = model.config.encoder
        if recipe.train == "all" and recipe.drop_path > 0 and not encoder.drops_branches:
            raise ConfigError(f"{encoder.title} has no branches to drop: set drop_path to 0, got {recipe.drop_path}.")
        size = model.config.input_size
        if recipe.loss_side is not None and recipe.loss_side > size:
            raise ConfigError(f"loss_side {recipe.loss_side} is more than the side of the model's input, {size}.")
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
        """The scores of the validation, then `val_loss`; nothing without held-out data."""
        self._model.eval()
        scores = {} if self._validation is None else dict(self._validation(TorchModel(self._model)))
        if self._val_items:
            with torch.no_grad():
                losses = [float(self._losses([item], in_training=False)[0].total) for item in self._val_items]
            scores["val_loss"] = sum(losses) / len(losses)
        return scores

    def saved_module(self) -> PromptableModel:
        """The model; where it has adapters, a copy with these merged, which anything loads."""
        return merged_copy(self._model)

    def samples(self) -> Sequence[PixelArray]:
        """Pictures of answers on held-out images, where the validation draws any; see `ClickScores`."""
        return self._validation.pictures(TorchModel(self._model)) if isinstance(self._validation, ClickScores) else ()

    def losses(self, items: Sequence[TrainingItem]) -> list[ItemLoss]:
        """Encode the items together, and decode all objects together whose prompts are alike.

        Raises:
            TrainingError: an item has no masks, or they do not fit the model's input.
        """
        self._set_modes()
        return self._losses(items, in_training=True)

    def _losses(self, items: Sequence[TrainingItem], *, in_training: bool) -> list[ItemLoss]:
        for item in items:
            self._check_fits(item)
        features = self._encode(items, self._branch_scales(items) if in_training else None)
        interactions = [one for number, item in enumerate(items) for one in self._start(number, item)]
        for iteration in range(self.recipe.iterations):
            for alike in self._groups(interactions, iteration):
                self._answer(features, alike)
        return [_item_loss([one for one in interactions if one.item == number]) for number in range(len(items))]

    def _check_fits(self, item: TrainingItem) -> None:
        size = self._model.config.input_size
        if not len(item.masks) or item.masks.shape[1:] != (size, size):
            raise TrainingError(
                f"{item.name}: its masks are {item.masks.shape}, and the model takes N x {size} x {size} of at "
                "least one object. Make items at the side of the model's input."
            )

    def _set_modes(self) -> None:
        """Training for what is trained, evaluation for the rest."""
        self._model.train()
        if self.recipe.train == "decoder":
            self._model.image_encoder.eval()
        elif not self.recipe.batch_statistics:
            for module in self._model.image_encoder.modules():
                # A convolution and its norm are one module, which folds them in evaluation.
                if isinstance(module, nn.BatchNorm2d) or any(isinstance(x, nn.BatchNorm2d) for x in module.children()):
                    module.training = False

    def _encode(self, items: Sequence[TrainingItem], branch_scales: Tensor | None) -> list[Tensor]:
        """Features with an axis B."""
        if self._features is not None:
            kept = [self._features(item) for item in items]
            return [torch.stack(list(rows)).to(self._model.device) for rows in zip(*kept, strict=True)]
        pixels = self._processor.normalize([item.image for item in items], self._model)
        if self.recipe.train == "decoder":
            with torch.no_grad():
                return list(self._model.encode_features(pixels))
        return list(self._model.encode_features(pixels, branch_scales))

    def _branch_scales(self, items: Sequence[TrainingItem]) -> Tensor | None:
        """0 for the branches that are dropped and 1 / (share kept) for the others, [blocks, 2, B]."""
        if self.recipe.drop_path == 0 or self.recipe.train == "decoder":
            return None
        depth = len(self._model.image_encoder.encoder_blocks())
        kept = 1 - np.linspace(0, self.recipe.drop_path, depth)[:, None]
        draws = [np.random.default_rng([_DROPS, item.seed]).random((depth, 2)) for item in items]
        scales = np.stack([(draw < kept) / kept for draw in draws], axis=-1)
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
        """Prompt all objects, and put together those whose prompts have the same shape: padding is a point."""
        groups: dict[tuple[int, bool], list[ClickSimulation]] = {}
        for one in interactions:
            one.prompt(iteration)
            _, labels = one.padded(pads_boxes=self._model.pads_boxes)
            form = (labels.shape[1], one.is_ambiguous(box_multimask=self.recipe.box_multimask))
            groups.setdefault(form, []).append(one)
        return list(groups.values())

    def _answer(self, features: list[Tensor], alike: list[ClickSimulation]) -> None:
        """Decode, compare, and keep the candidate that the model thinks best for the next iteration."""
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


def build_sam_task(recipe: TrainingRecipe, given: TrainContext, features: FeatureSource | None = None) -> SamTask:
    """The task of a recipe whose numbers are a `ValidatedRecipe`, with its validation.

    Args:
        recipe: of the training.
        given: the context. Its model may have adapters already.
        features: as for `SamTask`.

    Raises:
        ConfigError: the items are not what the model takes, or as for `SamTask`.
    """
    given.check_fits(recipe.items)
    numbers: ValidatedRecipe = recipe.task
    val, most = given.data.val, numbers.max_val_images
    loss_images = LOSS_IMAGES if most is None else min(LOSS_IMAGES, most)
    items = val_items(val, replace(recipe.items, max_masks=min(LOSS_MASKS, recipe.items.max_masks)), loss_images)
    validation = ClickScores(val, most, automatic=AutomaticScore.of(given.model, val))
    return SamTask(given.model, numbers, features, validation, items)


def _item_loss(interactions: list[ClickSimulation]) -> ItemLoss:
    """Losses of all iterations added, the mean over the objects.

    For the log, the parts are means over the iterations, and `first_iou` and `last_iou` are what the best
    candidates of those iterations reach.
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
