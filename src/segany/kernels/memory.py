"""CPU forms of SAM 2's frame encoding, memory attention and memory encoder."""

from __future__ import annotations

from torch import Tensor, nn

from segany.kernels.attention import attend
from segany.kernels.compute import fast_cpu, fast_form, linear
from segany.kernels.strips import by_rows
from segany.models.sam2.fpn import ImageEncoderHiera
from segany.models.sam2.memory_attention import MemoryAttentionLayer, RotaryAttention
from segany.models.sam2.memory_encoder import FuserBlock
from segany.models.sam2.model import Sam2
from segany.models.sam2.tracking import FrameFeatures
from segany.nn.positions import Rotations, halves_first
from segany.nn.replaced import is_hooked, is_plain, is_unmodified


class FastSam2(Sam2):
    """Computes high-resolution features without their wide intermediates, and memory attention with batch size 1."""

    def encode_frame(self, pixels: Tensor, drop_path_scales: Tensor | None = None) -> FrameFeatures:
        encoder, decoder = self.image_encoder, self.sam_mask_decoder
        if not isinstance(encoder, ImageEncoderHiera) or drop_path_scales is not None or not fast_cpu(pixels):
            return super().encode_frame(pixels, drop_path_scales)
        projections = (encoder.neck.conv(3), decoder.conv_s0, encoder.neck.conv(2), decoder.conv_s1)
        if not is_plain(*projections) or not is_unmodified(encoder.neck) or is_hooked(encoder):
            return super().encode_frame(pixels, drop_path_scales)
        stride4, stride8, stride16, stride32 = encoder.trunk(pixels)
        feat_s0 = _through_both(stride4, encoder.neck.conv(3), decoder.conv_s0)
        feat_s1 = _through_both(stride8, encoder.neck.conv(2), decoder.conv_s1)
        image = encoder.neck.image_embedding(stride16, stride32)
        return FrameFeatures(*(x.permute(0, 3, 1, 2) for x in (image, feat_s0, feat_s1)))

    @property
    def objects_at_once(self) -> int:  # type: ignore[override]
        # On a CPU, one object keeps all cores busy and fits the cache.
        return 1 if self.device.type == "cpu" else super().objects_at_once


def _through_both(x: Tensor, first: nn.Conv2d, second: nn.Conv2d) -> Tensor:
    """Apply two consecutive 1x1 convolutions to a channels-last map as one linear layer."""
    assert first.bias is not None
    assert second.bias is not None
    weight1, weight2 = first.weight.flatten(1), second.weight.flatten(1)
    return linear(x, weight2 @ weight1, weight2 @ first.bias + second.bias)


class FastRotaryAttention(RotaryAttention):
    """Attends in chunks whose scores fit the cache."""

    def forward(
        self, x: Tensor, keys: Tensor, values: Tensor, rotations: Rotations, num_k_exclude_rope: int | None = None
    ) -> Tensor:
        if not fast_cpu(x):
            return super().forward(x, keys, values, rotations, num_k_exclude_rope)
        query = rotations.rotate(self.project(x, self.q_proj))
        key = self.rotated_keys(keys, rotations, num_k_exclude_rope)
        if is_plain(self.v_proj) and values.shape[-1] < self.v_proj.out_features:
            # Attention weights sum to one, so the projection commutes with attention. The values have fewer channels
            # before the projection.
            attended = self.v_proj(attend(query[:, None], key[:, None], values[:, None])[:, 0])
        else:
            attended = attend(query[:, None], key[:, None], self.v_proj(values)[:, None])[:, 0]
        out: Tensor = self.out_proj(attended)
        return out

    def project(self, x: Tensor, layer: nn.Linear) -> Tensor:
        if not is_plain(layer):
            return super().project(x, layer)
        return linear(x, halves_first(layer.weight), halves_first(layer.bias))


class FastMemoryAttentionLayer(MemoryAttentionLayer):
    """Runs the MLP in chunks of rows."""

    def feed_forward(self, x: Tensor) -> Tensor:
        if not fast_form(self, x):
            return super().feed_forward(x)
        return by_rows(super().feed_forward, x, self.linear1.out_features)


class FastFuserBlock(FuserBlock):
    """Runs the pointwise layers in chunks of rows."""

    def by_position(self, x: Tensor) -> Tensor:
        if not fast_form(self, x):
            return super().by_position(x)
        return by_rows(super().by_position, x, self.pwconv1.out_features)


FORMS: tuple[type[nn.Module], ...] = (FastSam2, FastRotaryAttention, FastMemoryAttentionLayer, FastFuserBlock)
