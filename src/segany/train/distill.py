"""Decoupled distillation: a student image encoder learns the teacher's embeddings (MobileSAM, section 3.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segany.core.errors import ConfigError, check, check_numbers
from segany.data.item import TrainingItem
from segany.kernels.processor import TensorProcessor
from segany.models.configs import EMBEDDING_STRIDE
from segany.models.convert import encoder_id
from segany.models.promptable import PromptableModel
from segany.train.parameters import decay_groups
from segany.train.task import ItemLoss

TeacherFeatures = Callable[[TrainingItem], tuple[Tensor, ...]]
"""A function such as `EmbeddingStore.features`. The first tensor that it returns is the image embedding [C, h, w]."""


@dataclass(frozen=True)
class DistillConfig:
    """Configuration of the distillation loss and of the student's training.

    Attributes:
        padding_weight: weight in the loss of the positions of the embedding that cover only padding. The decoder
            attends to these positions too, so that 1, MobileSAM's weight, counts them like the others; 0 ignores
            them.
        batch_statistics: whether batch norms of the student use and update batch statistics, which a student with
            random weights needs. The loss of an item then depends on the other items of its micro-batch, and so
            on the number of processes and on `micro_batch_size`. False freezes the running statistics, which
            suits a student that is already trained.
        weight_decay: weight decay of everything except biases and norms. The paper gives none; this is SAM's.
    """

    padding_weight: float = 1.0
    batch_statistics: bool = True
    weight_decay: float = 0.1

    def __post_init__(self) -> None:
        check_numbers(self)
        check(0 <= self.padding_weight <= 1, f"padding_weight must be in 0..1, got {self.padding_weight}.")
        check(self.weight_decay >= 0, f"weight_decay must not be negative, got {self.weight_decay}.")


class DistillTask:
    """Trains a student's image encoder to predict the teacher's image embeddings; a `Task`.

    From the start, the student has copies of the teacher's prompt encoder and mask decoder, which are frozen. Every
    checkpoint is therefore a complete model, as `assemble` returns it.

    Args:
        teacher: the teacher. It does not change, and stays on its device.
        student: the model whose image encoder is trained in place. Its prompt encoder and decoder are replaced.
        config: configuration of the loss.
        features: cached teacher features, such as `EmbeddingStore(folder, teacher).features`. Without them the
            teacher computes its embeddings in every epoch.
        val_items: the validation items.
        automatic: computes scores of automatic masks, such as `AutomaticScore`.

    Raises:
        ConfigError: a model is not of the SAM family, or the sizes of embeddings or decoders differ.
    """

    module: PromptableModel

    def __init__(
        self,
        teacher: PromptableModel,
        student: PromptableModel,
        config: DistillConfig | None = None,
        *,
        features: TeacherFeatures | None = None,
        val_items: Sequence[TrainingItem] = (),
        automatic: Callable[[PromptableModel], dict[str, float]] | None = None,
    ) -> None:
        self.config = config or DistillConfig()
        self.teacher = _checked(teacher)
        self.module = assemble(student, teacher)
        for head in self.module.heads():
            head.requires_grad_(False)
        self.features = features
        self.val_items = tuple(val_items)
        self.automatic = automatic

    def losses(self, items: Sequence[TrainingItem]) -> list[ItemLoss]:
        self.module.image_encoder.train(self.config.batch_statistics)
        return self._losses(items)

    def parameter_groups(self) -> list[dict[str, object]]:
        return decay_groups(self.module.image_encoder.parameters(), self.config.weight_decay)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Means over the validation items of the cosine similarity of the two embeddings and of the squared error,
        which is the loss; then the scores of `automatic`. Empty without validation items.
        """
        if not self.val_items:
            return {}
        self.module.image_encoder.eval()
        parts = [self._losses([item])[0].parts for item in self.val_items]
        means = {name: float(np.mean([part[name] for part in parts])) for name in ("cosine", "squared_error")}
        scores = {**means, "val_loss": means["squared_error"]}
        return scores if self.automatic is None else {**scores, **self.automatic(self.module)}

    def _losses(self, items: Sequence[TrainingItem]) -> list[ItemLoss]:
        ours = self._encode(self.module, items).float()
        theirs = torch.stack(self._targets(items)).to(ours)
        return [
            embedding_loss(our, their, position_weights(item, our, self.config.padding_weight))
            for item, our, their in zip(items, ours, theirs, strict=True)
        ]

    @torch.no_grad()
    def _targets(self, items: Sequence[TrainingItem]) -> list[Tensor]:
        """The teacher's image embeddings, [C, h, w] each."""
        if self.features is not None:
            return [self.features(item)[0] for item in items]
        self.teacher.eval()
        return list(self._encode(self.teacher, items))

    def _encode(self, model: PromptableModel, items: Sequence[TrainingItem]) -> Tensor:
        """Image embeddings [B, C, h, w]."""
        pixels = TensorProcessor(model.preprocessing).normalize([item.image for item in items], model)
        (embeddings,) = model.encode_features(pixels)
        return embeddings


def position_weights(item: TrainingItem, embedding: Tensor, padding_weight: float) -> Tensor:
    """Weights [h, w] of the positions of an embedding [C, h, w] in the loss.

    They are 1 where a position covers any pixel of the item's image, and `padding_weight` elsewhere.
    """
    height, width = (-(-side // EMBEDDING_STRIDE) for side in item.image.shape[:2])
    weights = torch.full_like(embedding[0], padding_weight)
    weights[:height, :width] = 1.0
    return weights


def embedding_loss(ours: Tensor, theirs: Tensor, weights: Tensor) -> ItemLoss:
    """Mean squared error of an image embedding (MobileSAM, section 3.2).

    Args:
        ours: [C, h, w], with gradients.
        theirs: [C, h, w].
        weights: [h, w], weights of the positions, not all zero.
    """
    error = ((ours - theirs).square().mean(0) * weights).sum() / weights.sum()
    with torch.no_grad():
        cosine = (F.cosine_similarity(ours, theirs, dim=0) * weights).sum() / weights.sum()
    return ItemLoss(total=error, parts={"squared_error": float(error.detach()), "cosine": float(cosine)})


def assemble(student: PromptableModel, teacher: PromptableModel) -> PromptableModel:
    """Replace the student's prompt encoder and mask decoder by copies of the teacher's.

    The student is changed in place and returned.

    Raises:
        ConfigError: a model is not of the SAM family, or the sizes of embeddings or decoders differ.
    """
    student, teacher = _checked(student), _checked(teacher)
    ours, theirs = ((m.config.encoder.out_channels, m.config.embedding_size) for m in (student, teacher))
    check(
        ours == theirs,
        f"The image embeddings differ: {theirs[0]} channels and {theirs[1]} positions a side of the teacher "
        f"{teacher.name!r}, {ours[0]} and {ours[1]} of the student {student.name!r}. Give both the same input_size "
        "and out_channels.",
    )
    decoders = [(model.config.decoder, model.config.mask_channels) for model in (student, teacher)]
    check(
        decoders[0] == decoders[1],
        f"The decoders of {teacher.name!r} and {student.name!r} differ. Build the student with the teacher's.",
    )
    device, dtype = student.device, student.dtype
    prompt_encoder, mask_decoder = deepcopy(teacher.heads())
    student.set_heads(prompt_encoder.to(device, dtype), mask_decoder.to(device, dtype))
    student.encoder_id = encoder_id(student.image_encoder)
    return student


def _checked(model: PromptableModel) -> PromptableModel:
    """The model, if the image embedding is the only feature that its decoder takes."""
    if len(model.feature_names) > 1:
        raise ConfigError(f"Distillation needs a model of the SAM family, and {model.name!r} is not one.")
    return model
