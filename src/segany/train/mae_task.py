"""Masked autoencoding as a `Task`, and loading a pre-trained encoder into SAM."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from segany.core.arrays import PixelArray, SizeHW
from segany.core.errors import CheckpointError, ConfigError
from segany.data.item import TrainingItem
from segany.kernels.processor import TensorProcessor
from segany.models.configs import EMBEDDING_STRIDE
from segany.models.promptable import PromptableModel
from segany.train.mae import (
    MaeConfig,
    MaskedAutoencoder,
    cut_patches,
    join_patches,
    patch_statistics,
    reconstruction_loss,
    visible_count,
)
from segany.train.parameters import decay_groups
from segany.train.task import ItemLoss

_MASK = 0x3AE
"""Stream of random numbers for the choice of masked patches, to keep it independent of other uses of the seed."""

_ENCODER = "encoder."

_GRAY = 128


class MaeTask:
    """Pre-trains an image encoder on images without masks; a `Task`.

    Only patches that lie completely inside the image take part. Padding, and up to 15 pixels at the right and bottom
    of the image, are neither visible nor reconstructed.

    Args:
        model: the model whose image encoder is trained in place, on its device. The other parts are not used.
        config: configuration of masking and of the decoder.
        val_items: the validation items. `samples` draws a few of them.
        side: side of the items in pixels; by default that of the model's input. See `grid` of `MaskedAutoencoder`.

    Raises:
        ConfigError: the model's image encoder is not a plain ViT, or `side` is larger than that of its input.
    """

    module: MaskedAutoencoder

    def __init__(
        self,
        model: PromptableModel,
        config: MaeConfig | None = None,
        *,
        val_items: Sequence[TrainingItem] = (),
        side: int | None = None,
    ) -> None:
        if not model.config.encoder.encodes_patches:
            raise ConfigError(
                f"Masked autoencoding needs a plain ViT, and the image encoder of {model.name!r} is not one. "
                "Choose a model such as sam_vit_b, or distill."
            )
        self.config = config or MaeConfig()
        self.model = model
        grid = None if side is None else -(-side // EMBEDDING_STRIDE)
        self.module = MaskedAutoencoder(model.image_encoder, self.config, grid=grid).to(model.device)
        self.processor = TensorProcessor(model.preprocessing)
        self.val_items = tuple(val_items)

    def losses(self, items: Sequence[TrainingItem]) -> list[ItemLoss]:
        """Run the items with equal numbers of rows and columns of patches in one batch."""
        groups: dict[SizeHW, list[int]] = defaultdict(list)
        for index, item in enumerate(items):
            groups[_grid(item)].append(index)
        totals: dict[int, Tensor] = {}
        for size_hw, indices in groups.items():
            some = [items[index] for index in indices]
            patches, visible = self._patches(some), self._visible(some)
            predicted = self.module(patches, size_hw, visible)
            losses = reconstruction_loss(predicted, patches, visible, normalize=self.config.normalize)
            totals |= zip(indices, losses.unbind(), strict=True)
        return [
            ItemLoss(total=totals[index], parts={"reconstruction": float(totals[index].detach())})
            for index in range(len(items))
        ]

    def parameter_groups(self) -> list[dict[str, object]]:
        return decay_groups(self.module.trained(), self.config.weight_decay)

    def saved_module(self) -> PromptableModel:
        """The model with the pre-trained encoder. Its other parts are unchanged."""
        return self.model

    def blocks(self) -> list[nn.Module]:
        """The decoder's blocks, for compilation and activation checkpointing. They take most of the memory.

        The encoder's blocks are left out, because `MaskedAutoencoder` does not call their `forward`.
        """
        return list(self.module.decoder_blocks)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The negative mean loss on the validation items, for which higher is better; and the loss."""
        if not self.val_items:
            return {}
        losses = [self.losses([item])[0].parts["reconstruction"] for item in self.val_items]
        loss = float(np.mean(losses))
        return {"minus_reconstruction": -loss, "val_loss": loss}

    @torch.no_grad()
    def samples(self, count: int = 4) -> list[PixelArray]:
        """Pictures of validation items, uint8 [H, 3 W, 3]: the visible patches, the reconstruction, and the image.

        With normalized targets, the mean and standard deviation of each patch are those of the image.
        """
        return [self._picture(item) for item in self.val_items[:count]]

    def _picture(self, item: TrainingItem) -> PixelArray:
        size_hw = _grid(item)
        patches, visible = self._patches([item]), self._visible([item])
        predicted = self.module(patches, size_hw, visible).float()
        if self.config.normalize:
            mean, deviation = patch_statistics(patches)
            predicted = predicted * deviation + mean
        seen = torch.zeros_like(patches[..., :1]).scatter(1, visible[..., None], 1.0).bool()
        told = self._pixels(torch.where(seen, patches, predicted), size_hw)
        shown = self._pixels(seen.float().expand_as(patches), size_hw, raw=True)
        truth = self._pixels(patches, size_hw)
        return np.concatenate([np.where(shown > 0, truth, np.uint8(_GRAY)), told, truth], axis=1)

    def _pixels(self, patches: Tensor, size_hw: SizeHW, *, raw: bool = False) -> PixelArray:
        pixels = join_patches(patches, size_hw)[0].permute(1, 2, 0)
        if not raw:
            mean, std = self._statistics()
            pixels = pixels * std + mean
        return pixels.round().clamp(0, 255).to(torch.uint8).cpu().numpy()

    def _patches(self, items: Sequence[TrainingItem]) -> Tensor:
        """Cut items with equal numbers of rows and columns of patches into [B, T, 768], normalized for the model."""
        height, width = (side * EMBEDDING_STRIDE for side in _grid(items[0]))
        mean, std = self._statistics()
        pixels = torch.zeros(len(items), height, width, 3, device=mean.device)
        for row, item in zip(pixels, items, strict=True):
            image = torch.from_numpy(item.image[:height, :width]).to(mean.device)
            row[: image.shape[0], : image.shape[1]].copy_(image).sub_(mean).div_(std)
        return cut_patches(pixels.permute(0, 3, 1, 2))

    def _visible(self, items: Sequence[TrainingItem]) -> Tensor:
        """Indices of the visible patches of items of one size, int64 [B, V]. They depend on the items' seeds only."""
        height, width = _grid(items[0])
        count = visible_count(height * width, self.config.mask_ratio)
        rows = [np.random.default_rng([item.seed, _MASK]).permutation(height * width)[:count] for item in items]
        return torch.from_numpy(np.sort(np.stack(rows))).to(self.module.mask_token.device)

    def _statistics(self) -> tuple[Tensor, Tensor]:
        return self.processor.statistics(self.module.mask_token.device)


def load_encoder(model: PromptableModel, state: Mapping[str, Tensor]) -> PromptableModel:
    """Load the image encoder of a `MaskedAutoencoder` into a model.

    Args:
        model: a model with a plain ViT of the same architecture. It is changed in place and returned.
        state: the state dict of the `MaskedAutoencoder`.

    Raises:
        CheckpointError: the state dict holds no encoder, or one of another size.
    """
    encoder = {key.removeprefix(_ENCODER): value for key, value in state.items() if key.startswith(_ENCODER)}
    if not encoder:
        raise CheckpointError("This is not a checkpoint of masked autoencoding: none of its tensors is of an encoder.")
    _load(model.image_encoder, encoder)
    return model


def _load(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    try:
        module.load_state_dict(dict(state))
    except RuntimeError as error:
        raise CheckpointError(f"The encoder of this checkpoint does not have this model's size: {error}") from error


def _grid(item: TrainingItem) -> SizeHW:
    """Numbers of rows and columns of patches that lie completely inside an item's image; at least one each."""
    height, width = item.image.shape[:2]
    return max(1, height // EMBEDDING_STRIDE), max(1, width // EMBEDDING_STRIDE)
