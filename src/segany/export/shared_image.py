"""An image shared by many prompts, as two graphs: what is multiplied once, and what each prompt does with it.

The arithmetic is that of `kernels.shared_image`, with all prompts as one batch.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from segany.kernels.shared_image import SharedImage, share_image
from segany.models.promptable import PromptableModel
from segany.models.sam.mask_decoder import arrange_high_res
from segany.models.sam.two_way_transformer import HighResFeatures, ImageTokens

_HIGH_RES = ("high_res_stride8", "high_res_stride4")


class SharedImageGraph(nn.Module):
    """The features of an image, each with an axis of 1, to all that prompts will need of it: `image_products`."""

    def __init__(self, model: PromptableModel) -> None:
        super().__init__()
        self.model = model
        prompt_encoder, _ = model.heads()
        self.register_buffer("positions", prompt_encoder.image_positions().detach())

    def forward(self, *features: Tensor) -> tuple[Tensor, ...]:
        return tuple(image_products(self.share(features)).values())

    def share(self, features: Sequence[Tensor]) -> SharedImage:
        prompt_encoder, mask_decoder = self.model.heads()
        tokens = (features[0] + prompt_encoder.encode_no_mask()).flatten(2).transpose(1, 2)
        high_res_features = arrange_high_res(features[1][0], features[2][0]) if len(features) > 1 else None
        image = ImageTokens(tokens, self.get_buffer("positions"), high_res_features)
        return share_image(mask_decoder, image, in_place=False)


def image_products(shared: SharedImage) -> dict[str, Tensor]:
    """What of a shared image depends on the image, by name."""
    features = shared.high_res_features
    return shared.products | ({} if features is None else dict(zip(_HIGH_RES, features, strict=True)))


class ProposalsGraph(nn.Module):
    """Prompts without masks on a shared image to three masks each."""

    def __init__(self, model: PromptableModel, shared: SharedImage) -> None:
        """Keep what depends on weights alone.

        Args:
            model: the model.
            shared: any image.
        """
        super().__init__()
        self.model = model
        self.names = tuple(image_products(shared))
        self.constants = tuple(shared.constants)
        for name, value in shared.constants.items():
            self.register_buffer(name, value.detach().clone())

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Decode.

        Args:
            inputs: points [P, N, 2] in pixels of the model's input; labels [P, N]; `image_products`.

        Returns:
            Low-res logits [P, 3, 4h, 4w] and predicted IoU [P, 3].
        """
        points, labels, *tensors = inputs
        products = dict(zip(self.names, tensors, strict=True))
        features = HighResFeatures(*(products[name] for name in _HIGH_RES)) if _HIGH_RES[0] in products else None
        prompt_encoder, mask_decoder = self.model.heads()
        constants = {name: self.get_buffer(name) for name in self.constants}
        rows = products["rows"]
        image = SharedImage(
            rows,
            rows,
            features,
            transformer=mask_decoder.transformer,
            products=products,
            constants=constants,
            scratch=None,
        )
        prompt_tokens = prompt_encoder.encode_points(points, labels)
        tokens, finished = image.transform(mask_decoder.with_output_tokens(prompt_tokens))
        (upscaled,) = finished.rows(slice(None), len(rows))
        decoded = mask_decoder.read_tokens(tokens, upscaled, multimask=True)
        return mask_decoder.output_upscaling.masks_of_rows(upscaled, decoded.mask_weights, features), decoded.iou
