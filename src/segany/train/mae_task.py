"""Masked autoencoding as a task: items in, losses out; and its encoder back into SAM."""

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
"""Purpose of a random generator: which patches are masked."""

_ENCODER = "encoder."

_GRAY = 128


class MaeTask:
    """Learns an image encoder from images alone; a `Task`.

    Only patches that lie in the image with all their pixels take part: the padding around it, and up to 15
    pixels at its right and bottom, are neither seen nor told.

    Args:
        model: of which the image encoder is trained in place. Nothing else of it is used. It is already on
            the device that it is trained on.
        config: what is masked and how it is reconstructed.
        val_items: what `validate` measures on; a few of them are shown by `samples`.
        side: of the items in pixels; by default that of the model's input. See `MaskedAutoencoder` on its grid.

    Raises:
        ConfigError: the model's image encoder is no plain ViT, or `side` is more than that of its input.
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
                f"Masked autoencoding is for the plain ViT of SAM; the image encoder of {model.name!r} is another. "
                "Choose a model such as sam_vit_b, or distil."
            )
        self.config = config or MaeConfig()
        self.model = model
        grid = None if side is None else -(-side // EMBEDDING_STRIDE)
        self.module = MaskedAutoencoder(model.image_encoder, self.config, grid=grid).to(model.device)
        self.processor = TensorProcessor(model.preprocessing)
        self.val_items = tuple(val_items)

    def losses(self, items: Sequence[TrainingItem]) -> list[ItemLoss]:
        """Items with the same number of patches in each direction run together."""
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
        """What is of use afterwards: the model with the encoder that was trained, and the rest as it was given."""
        return self.model

    def blocks(self) -> list[nn.Module]:
        """What may be compiled, or recomputed for gradients. Most memory goes to these: they see all patches.

        The blocks of the encoder are not called as a whole here, see `MaskedAutoencoder`.
        """
        return list(self.module.decoder_blocks)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The mean loss on held-out items, first as its negative, for which higher is better; nothing without any."""
        if not self.val_items:
            return {}
        losses = [self.losses([item])[0].parts["reconstruction"] for item in self.val_items]
        loss = float(np.mean(losses))
        return {"minus_reconstruction": -loss, "val_loss": loss}

    @torch.no_grad()
    def samples(self, count: int = 4) -> list[PixelArray]:
        """Pictures of held-out items, uint8 [H, 3 W, 3]: what the encoder saw, what was told, what was there.

        Where patches are told relative to their mean and deviation, these are taken from the image.
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
        """Items of one size in patches to [B, T, 768], normalized as for the model."""
        height, width = (side * EMBEDDING_STRIDE for side in _grid(items[0]))
        mean, std = self._statistics()
        pixels = torch.zeros(len(items), height, width, 3, device=mean.device)
        for row, item in zip(pixels, items, strict=True):
            image = torch.from_numpy(item.image[:height, :width]).to(mean.device)
            row[: image.shape[0], : image.shape[1]].copy_(image).sub_(mean).div_(std)
        return cut_patches(pixels.permute(0, 3, 1, 2))

    def _visible(self, items: Sequence[TrainingItem]) -> Tensor:
        """Of items of one size: which patches are visible, int64 [B, V], by the items' seeds alone."""
        height, width = _grid(items[0])
        count = visible_count(height * width, self.config.mask_ratio)
        rows = [np.random.default_rng([item.seed, _MASK]).permutation(height * width)[:count] for item in items]
        return torch.from_numpy(np.sort(np.stack(rows))).to(self.module.mask_token.device)

    def _statistics(self) -> tuple[Tensor, Tensor]:
        return self.processor.statistics(self.module.mask_token.device)


def load_encoder(model: PromptableModel, state: Mapping[str, Tensor]) -> PromptableModel:
    """Give a model the image encoder that masked autoencoding trained.

    Args:
        model: with a plain ViT as that was; changed in place and returned.
        state: the state dict of a `MaskedAutoencoder`.

    Raises:
        CheckpointError: it holds no such encoder.
    """
    encoder = {key.removeprefix(_ENCODER): value for key, value in state.items() if key.startswith(_ENCODER)}
    if not encoder:
        raise CheckpointError("This is no checkpoint of masked autoencoding: none of its tensors is of an encoder.")
    _load(model.image_encoder, encoder)
    return model


def _load(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    try:
        module.load_state_dict(dict(state))
    except RuntimeError as error:
        raise CheckpointError(f"The encoder of this checkpoint is not of this model's size: {error}") from error


def _grid(item: TrainingItem) -> SizeHW:
    """Patches of an item that lie in its image with all their pixels, by rows and columns; at least one each."""
    height, width = item.image.shape[:2]
    return max(1, height // EMBEDDING_STRIDE), max(1, width // EMBEDDING_STRIDE)
