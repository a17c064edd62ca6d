from __future__ import annotations

import pytest
import torch
from tests.models_for_tests import seed_weights, small_sam

from segany.models.sam.mask_decoder import upscale_and_project
from segany.models.sam.two_way_transformer import Attention


@pytest.fixture(scope="module")
def attention() -> Attention:
    module = Attention(32, heads=4, inner_width=16)
    seed_weights(module)
    return module


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("count", [1, 3, 7, 40])
@pytest.mark.parametrize("prompts", [1, 5])
def test_either_grouping_of_the_products_is_plain_attention(
    attention: Attention, prompts: int, count: int, shared: bool
) -> None:
    torch.manual_seed(0)
    tokens, values = torch.randn(2, prompts, count, 32)
    image, image_values = torch.randn(2, 1 if shared else prompts, 64, 32)
    expected = attention(tokens, image, image_values)
    expected_image = attention(image.expand(prompts, -1, -1), tokens, values)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            to_image = attention.tokens_to_image(tokens, image, image_values)
            from_image = attention.image_to_tokens(image, tokens, values)
        torch.testing.assert_close(to_image, expected, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(from_image, expected_image, atol=1e-5, rtol=1e-4)


def test_the_cheaper_grouping_depends_on_the_numbers(attention: Attention) -> None:
    tokens, image = torch.zeros(1, 3, 32), torch.zeros(1, 64, 32)
    assert not attention._projecting_is_cheaper(tokens, image)
    assert attention._projecting_is_cheaper(tokens.expand(8, -1, -1), image)
    assert attention._projecting_is_cheaper(torch.zeros(1, 40, 32), image)


def test_upscaling_is_the_official_layers_in_order() -> None:
    torch.manual_seed(0)
    layers = small_sam().mask_decoder.output_upscaling
    tokens, weights = torch.randn(2, 4 * 6, 256), torch.randn(2, 3, 32)
    upscaled = layers(tokens.transpose(1, 2).unflatten(2, (4, 6)))
    expected = torch.einsum("pmc,pchw->pmhw", weights, upscaled)
    torch.testing.assert_close(upscale_and_project(layers, tokens, weights, (4, 6)), expected, atol=1e-4, rtol=1e-4)
    with torch.inference_mode():
        fast = upscale_and_project(layers, tokens, weights, (4, 6))
    torch.testing.assert_close(fast, expected, atol=1e-4, rtol=1e-4)


def test_padding_points_have_no_position() -> None:
    encoder = small_sam().prompt_encoder
    points = torch.tensor([[[10.0, 20.0], [200.0, 7.0]]])
    padding = encoder.encode_points(points, torch.tensor([[-1, -1]]))
    torch.testing.assert_close(padding[0, 0], padding[0, 1])
    torch.testing.assert_close(padding[0, 0], encoder.not_a_point_embed.weight[0])
    kinds = encoder.encode_points(points[:, :1].expand(4, -1, -1), torch.tensor([[0], [1], [2], [3]]))
    assert len({tuple(row.tolist()) for row in kinds[:, 0]}) == 4


def test_gradients_reach_every_parameter() -> None:
    model = small_sam()
    points, labels = torch.rand(2, 2, 2) * 256, torch.tensor([[1, -1], [0, 1]])
    low_res, iou = model(torch.randn(3, 256, 256), points, labels, multimask=True)
    (low_res.square().mean() + iou.square().mean()).backward()
    without = {name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()}
    # These take part only in prompts with boxes or masks, and in single-mask output.
    expected = ("point_embeddings.2", "point_embeddings.3", "mask_downscaling", "hypernetworks_mlps.0")
    assert all(any(part in name for part in expected) or name.endswith("k_proj.bias") for name in without), without
