"""The hyperparameters of SAM's training (Segment Anything, section A)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from segany.core.errors import check, check_numbers
from segany.train.losses import LossWeights


@dataclass(frozen=True)
class SamRecipe:
    """Prompts, losses and regularization of SAM's training; the defaults are the paper's for ViT-H.

    Learning rate, batch size and steps are fields of `LoopConfig`, and augmentation is configured by `ItemConfig`.

    Attributes:
        train: "all", or "decoder": only the prompt encoder and the mask decoder, with a frozen image encoder.
        iterations: number of prompt iterations of an object. The losses of all iterations are added.
        repeats: number of iterations that add no point, so that the model learns to refine its own mask: 1 is the
            last iteration, 2 also a random one.
        box_chance: probability that the first prompt is a box instead of a point.
        box_noise: noise on the corners of boxes, as a share of the side of the box: its standard deviation if the
            noise is normal, its maximum if it is uniform.
        box_noise_kind: "normal" (SAM's paper) or "uniform" (SAM 2's code).
        box_noise_limit: largest displacement of a corner by noise, in pixels of the model's input.
        box_multimask: whether the model predicts three masks for a single box, as for a single point (SAM's paper).
            The predictors ask for one mask, as in SAM 2's training. Set it to false if boxes matter most.
        focal_weight: weight of the focal loss.
        dice_weight: weight of the dice loss.
        iou_weight: weight of the loss of the predicted IoU.
        supervise_all_iou: whether the IoU loss is the mean over all candidates (SAM 2), or that of the candidate with
            the lowest mask loss (SAM).
        iou_use_l1_loss: whether the IoU loss is the absolute error (SAM 2) or the squared error (SAM).
        focal_gamma: focusing parameter of the focal loss, which down-weights well-classified pixels.
        focal_alpha: weight of foreground in the focal loss; the weight of background is 1 - focal_alpha.
        loss_side: side in pixels of the masks in the focal and dice loss; None is the side of the model's input. A
            quarter of that, the side of low-res logits, is fastest. The target of the predicted IoU is always measured
            at the side of the model's input.
        weight_decay: weight decay of AdamW, for weights of linear layers and convolutions; not for biases, norms,
            position embeddings and tokens.
        layer_decay: layer-wise learning rate decay: factor from each block of the image encoder to the one before.
        encoder_lr_scale: factor on the learning rate of the whole image encoder.
        drop_path: drop path rate of the last block of the image encoder; it increases linearly from 0 at the first
            block. For ViT and Hiera.
        batch_statistics: whether batch norms, which TinyViT has, use and update batch statistics. Otherwise their
            running statistics are frozen, and the loss of an item does not depend on its batch.
    """

    train: Literal["all", "decoder"] = "all"
    iterations: int = 11
    repeats: int = 2
    box_chance: float = 0.5
    box_noise: float = 0.1
    box_noise_kind: Literal["normal", "uniform"] = "normal"
    box_noise_limit: float = 20.0
    box_multimask: bool = True
    focal_weight: float = 20.0
    dice_weight: float = 1.0
    iou_weight: float = 1.0
    supervise_all_iou: bool = False
    iou_use_l1_loss: bool = False
    focal_gamma: float = 2.0
    focal_alpha: float = 0.25
    loss_side: int | None = None
    weight_decay: float = 0.1
    layer_decay: float = 0.8
    encoder_lr_scale: float = 1.0
    drop_path: float = 0.4
    batch_statistics: bool = False

    def __post_init__(self) -> None:
        check_numbers(self)
        check(self.train in {"all", "decoder"}, f'train must be "all" or "decoder", got {self.train!r}.')
        check(0 <= self.repeats <= 2, f"repeats must be 0, 1 or 2, got {self.repeats}.")
        check(
            self.iterations >= (1, 2, 3)[self.repeats],
            f"iterations must be at least {(1, 2, 3)[self.repeats]} for {self.repeats} repeats, got {self.iterations}.",
        )
        check(self.loss_side is None or self.loss_side > 0, f"loss_side must be positive, got {self.loss_side}.")
        for name in ("box_chance", "focal_alpha"):
            check(0 <= getattr(self, name) <= 1, f"{name} must be in 0..1, got {getattr(self, name)}.")
        check(0 < self.layer_decay <= 1, f"layer_decay must be above 0 and at most 1, got {self.layer_decay}.")
        check(self.encoder_lr_scale > 0, f"encoder_lr_scale must be positive, got {self.encoder_lr_scale}.")
        check(self.box_noise_kind in {"normal", "uniform"},
              f"box_noise_kind must be 'normal' or 'uniform', got {self.box_noise_kind!r}.")  # fmt: skip
        check(0 <= self.drop_path < 1, f"drop_path must be at least 0 and below 1, got {self.drop_path}.")
        not_negative = ("focal_weight", "dice_weight", "iou_weight", "focal_gamma", "weight_decay")
        for name in (*not_negative, "box_noise", "box_noise_limit"):
            check(getattr(self, name) >= 0, f"{name} must not be negative, got {getattr(self, name)}.")

    @property
    def loss_weights(self) -> LossWeights:
        return LossWeights(
            self.focal_weight,
            self.dice_weight,
            self.iou_weight,
            self.focal_gamma,
            self.focal_alpha,
            self.supervise_all_iou,
            self.iou_use_l1_loss,
        )

    def void_fields(self) -> Mapping[str, str]:
        """Fields that have no effect with the values of the others, each with the reason."""
        void: dict[str, str] = {}
        if self.train == "decoder":
            of_encoder = ("layer_decay", "encoder_lr_scale", "drop_path", "batch_statistics")
            void |= dict.fromkeys(of_encoder, "the image encoder is not trained")
        if self.box_chance == 0:
            of_boxes = ("box_noise", "box_noise_kind", "box_noise_limit", "box_multimask")
            void |= dict.fromkeys(of_boxes, "box_chance is 0")
        elif self.box_noise == 0:
            void |= dict.fromkeys(("box_noise_kind", "box_noise_limit"), "box_noise is 0")
        if self.focal_weight == 0:
            void |= dict.fromkeys(("focal_gamma", "focal_alpha"), "focal_weight is 0")
        if self.iou_weight == 0:
            void |= dict.fromkeys(("supervise_all_iou", "iou_use_l1_loss"), "iou_weight is 0")
        return void
