"""What the SAM families share: an image encoder, a prompt encoder, a mask decoder, and how predictors use them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from segany.core.arrays import IMAGES_AT_ONCE, PROMPTS_AT_ONCE, BoolArray, FloatArray, IntArray, PixelArray, SizeHW
from segany.core.preprocessing import Preprocessing
from segany.imaging.amg import Proposals
from segany.imaging.interpolate import interpolate_logits
from segany.imaging.resize import resize_pixels, upscale_masks
from segany.kernels.compute import fast_cpu
from segany.models.sam.config import SamConfig
from segany.models.sam.mask_decoder import DecodedTokens, MaskDecoder, arrange_detail
from segany.models.sam.prompt_encoder import PromptEncoder
from segany.models.sam.shared_image import SharedImage
from segany.models.sam.two_way_transformer import HighResFeatures, ImageTokens


class PromptableModel(nn.Module):
    """A promptable segmentation model.

    The parameters have the names of the official checkpoints. Nothing here keeps state between
    calls, so threads may share a model.

    Attributes:
        config: the architecture.
        name: the registry's name, written into embeddings.
        encoder_id: digest of the image encoder's weights; empty until weights are loaded.
        pads_boxes: whether prompts with a box get a padding point, as those without one always do.
        pred_iou_thresh: what the authors ask of a mask found automatically.
    """

    image_encoder: nn.Module
    pads_boxes: bool
    pred_iou_thresh: float

    def __init__(self, config: SamConfig, name: str) -> None:
        super().__init__()
        self.config = config
        self.name = name
        self.encoder_id = ""

    # What a family is made of.

    def heads(self) -> tuple[PromptEncoder, MaskDecoder]:
        """The prompt encoder and the mask decoder, whatever the checkpoint calls them."""
        raise NotImplementedError

    def encode_features(self, pixels: Tensor, drop_path_scales: Tensor | None = None) -> tuple[Tensor, ...]:
        """[B, 3, S, S], as `preprocess` makes it, to the features of an `Embedding`, each with an axis B.

        The first is the image embedding; what else there is goes to `arrange_detail`. For training,
        `drop_path_scales` [blocks, 2, B] drop and enlarge branches of the blocks, see `drop_path_residual`.
        """
        raise NotImplementedError

    # What is the same for all.

    @property
    def preprocessing(self) -> Preprocessing:
        return self.config.preprocessing

    @property
    def low_res_size(self) -> int:
        return self.config.low_res_size

    @property
    def device(self) -> torch.device:
        return self._parameter.device

    @property
    def dtype(self) -> torch.dtype:
        return self._parameter.dtype

    @property
    def _parameter(self) -> Tensor:
        prompt_encoder, _ = self.heads()
        return prompt_encoder.no_mask_embed.weight

    def decode_features(
        self,
        features: Sequence[Tensor],
        points: Tensor,
        labels: Tensor,
        mask_logits: Tensor | None = None,
        *,
        multimask: bool,
    ) -> tuple[Tensor, Tensor]:
        """Masks for P prompts on one image.

        Args:
            features: of that image, as `encode_features` makes them, without the axis B. For training they
                may have an axis P instead: an image for each prompt.
            points: [P, N, 2], pixels of the model's input; boxes are two points.
            labels: [P, N], -1 padding, 0 background, 1 foreground, 2 and 3 the corners of a box.
            mask_logits: [P, 4h, 4w], or None where no prompt has a mask.
            multimask: three candidates a prompt instead of one.

        Returns:
            Low-res logits [P, M, 4h, 4w] and predicted IoU [P, M].
        """
        if features[0].dim() == 4 and fast_cpu(features[0]):  # whose forms are for prompts that share an image
            each = (slice(index, index + 1) for index in range(len(points)))
            answers = [
                self.decode_features(
                    [feature[one][0] for feature in features],
                    points[one],
                    labels[one],
                    None if mask_logits is None else mask_logits[one],
                    multimask=multimask,
                )
                for one in each
            ]
            return torch.cat([low_res for low_res, _ in answers]), torch.cat([iou for _, iou in answers])
        prompt_encoder, mask_decoder = self.heads()
        image = self._image_tokens(features, mask_logits)
        prompt_tokens = prompt_encoder.encode_points(points, labels)
        low_res, iou = mask_decoder(image, prompt_tokens, multimask=multimask)
        return low_res, iou

    def _image_tokens(self, features: Sequence[Tensor], mask_logits: Tensor | None) -> ImageTokens:
        prompt_encoder, _ = self.heads()
        dense = prompt_encoder.encode_dense(mask_logits)
        embedding = features[0] if features[0].dim() == 4 else features[0][None]
        tokens = (embedding + dense).flatten(2).transpose(1, 2)
        return ImageTokens((tokens.contiguous(),), prompt_encoder.image_positions(), detail=_detail(features))

    # What predictors call: arrays in, arrays out, no gradients.

    def preprocess(self, images: Sequence[PixelArray]) -> Tensor:
        """uint8 images [H, W, 3] of any sizes to the encoder's input [B, 3, S, S]: resize, normalize, pad."""
        return self._normalize([resize_pixels(image, self.preprocessing) for image in images])

    def _normalize(self, images: Sequence[PixelArray | FloatArray]) -> Tensor:
        """Images [H, W, 3] in units of 0..255, resized, to the encoder's input [B, 3, S, S]."""
        preprocessing = self.preprocessing
        size = preprocessing.input_size
        mean = torch.tensor(preprocessing.mean_rgb, device=self.device)
        std = torch.tensor(preprocessing.std_rgb, device=self.device)
        batch = torch.zeros(len(images), size, size, 3, device=self.device, dtype=self.dtype)
        for row, image in zip(batch, images, strict=True):
            resized = torch.from_numpy(image).to(self.device)
            row[: resized.shape[0], : resized.shape[1]].copy_(resized).sub_(mean).div_(std)
        return batch.permute(0, 3, 1, 2)  # channels last, which the first convolution likes best

    def embed(self, images: Sequence[PixelArray]) -> list[tuple[FloatArray, ...]]:
        """uint8 images [H, W, 3] of any sizes to the features of an `Embedding` each: [C, h, w] first."""
        together = 1 if self.device.type == "cpu" else IMAGES_AT_ONCE
        embeddings: list[tuple[FloatArray, ...]] = []
        with torch.inference_mode():
            for first in range(0, len(images), together):
                features = self.encode_features(self.preprocess(images[first : first + together]))
                batches = [feature.float().cpu().numpy() for feature in features]
                # On an accelerator a row is copied, so that it does not keep the whole batch.
                embeddings.extend(
                    tuple(row.copy(order="K") if together > 1 else row for row in rows)
                    for rows in zip(*batches, strict=True)
                )
        return embeddings

    def predict_low_res(
        self,
        features: Sequence[FloatArray],
        points: FloatArray,
        labels: IntArray,
        mask_logits: FloatArray | None,
        *,
        multimask: bool,
    ) -> tuple[FloatArray, FloatArray]:
        """`decode_features` for any number of prompts, some at a time.

        Args:
            features: of an `Embedding`.
            points, labels, mask_logits, multimask: as for `decode_features`.

        Returns:
            Low-res logits float32 [P, M, 4h, 4w] and predicted IoU float32 [P, M].
        """
        together = self._prompts_at_once
        low_res, iou = [], []
        with torch.inference_mode():
            tensors = [self._tensor(feature) for feature in features]
            for first in range(0, len(points), together):
                piece = slice(first, first + together)
                masks = None if mask_logits is None else self._tensor(mask_logits[piece])
                piece_points = torch.tensor(points[piece], device=self.device)
                piece_labels = torch.tensor(labels[piece], device=self.device)
                outputs = self.decode_features(tensors, piece_points, piece_labels, masks, multimask=multimask)
                low_res.append(outputs[0].float().cpu())
                iou.append(outputs[1].float().cpu())
        return torch.cat(low_res).numpy(), torch.cat(iou).numpy()

    def propose(
        self,
        features: Sequence[FloatArray],
        points: FloatArray,
        labels: IntArray,
        min_score: float,
        together: int | None = None,
    ) -> Iterator[Proposals]:
        """Masks with a predicted IoU above `min_score`, of many prompts, some prompts at a time.

        The others are never made. Prompts are as for `predict_low_res`, three candidates each;
        `together` says how many are decoded at once.
        """
        together = together or self._prompts_at_once
        image = self._shared_image(features)
        for first in range(0, len(points), together):
            piece = slice(first, first + together)
            # Inference mode ends before the caller goes on with what is yielded.
            yield self._propose(image, points[piece], labels[piece], first, min_score)

    @torch.inference_mode()
    def _shared_image(self, features: Sequence[FloatArray]) -> ImageTokens | SharedImage:
        _, mask_decoder = self.heads()
        tokens = self._image_tokens([self._tensor(feature) for feature in features], None)
        share = fast_cpu(tokens.positions) and self.dtype == torch.float32
        return mask_decoder.prepare(tokens) if share else tokens

    @torch.inference_mode()
    def _propose(
        self, image: ImageTokens | SharedImage, points: FloatArray, labels: IntArray, first: int, min_score: float
    ) -> Proposals:
        prompt_encoder, mask_decoder = self.heads()
        prompts = prompt_encoder.encode_points(
            torch.tensor(points, device=self.device), torch.tensor(labels, device=self.device)
        )
        decoded = mask_decoder.transform(image, prompts, multimask=True)
        return self._proposals(decoded, image.detail, first, min_score)

    def _proposals(
        self, decoded: DecodedTokens, detail: HighResFeatures | None, first: int, min_score: float
    ) -> Proposals:
        _, mask_decoder = self.heads()
        good = decoded.iou.float() > min_score  # [P, M]
        low_res = [some.float() for some in mask_decoder.wanted_masks(decoded, detail, good)]
        side = self.low_res_size
        chosen = torch.cat(low_res) if low_res else decoded.iou.new_zeros(0, side, side).float()
        return Proposals(
            prompts=(first + good.nonzero()[:, 0]).cpu().numpy(),
            scores=decoded.iou[good].float().cpu().numpy(),
            low_res=chosen.numpy() if chosen.device.type == "cpu" else chosen,
            done=first + len(good),
        )

    def upscale(self, low_res: FloatArray, size_hw: SizeHW) -> FloatArray:
        """Low-res logits [P, M, h, w] to logits at the size of the image, [P, M, H, W]."""
        with torch.inference_mode():
            return interpolate_logits(_cpu_tensor(low_res), self.preprocessing, size_hw).numpy()

    def upscale_masks(self, low_res: FloatArray, size_hw: SizeHW) -> BoolArray:
        """Low-res logits [P, M, h, w] to masks at the size of the image, [P, M, H, W]."""
        return upscale_masks(low_res, self.preprocessing, size_hw)

    @property
    def _prompts_at_once(self) -> int:
        return PROMPTS_AT_ONCE["cpu" if self.device.type == "cpu" else "gpu"]

    def _tensor(self, array: FloatArray) -> Tensor:
        return _cpu_tensor(array).to(device=self.device, dtype=self.dtype)


def _detail(features: Sequence[Tensor]) -> HighResFeatures | None:
    """What the features have beyond the image embedding, of one image or of one a prompt."""
    if len(features) == 1:
        return None
    if features[0].dim() == 3:
        return arrange_detail(features[1], features[2])
    details = [arrange_detail(fine, half) for fine, half in zip(features[1], features[2], strict=True)]
    return HighResFeatures(*(torch.cat(parts) for parts in zip(*details, strict=True)))


def _cpu_tensor(array: FloatArray) -> Tensor:
    """A tensor of the array's numbers: a copy where the array is read-only, which tensors cannot be.

    The copy keeps the order in memory: image embeddings leave the encoder with their channels together.
    """
    return torch.from_numpy(array if array.flags.writeable else array.copy(order="K"))
