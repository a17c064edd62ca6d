from __future__ import annotations

import pytest
import torch
from tests.models_for_tests import seed_weights, small_sam
from torch.utils.flop_counter import FlopCounterMode

from segany.kernels import optimize
from segany.models.sam.two_way_transformer import Attention, ImageTokens


@pytest.fixture(scope="module")
def attention() -> Attention:
    module = Attention(32, heads=4, inner_width=16)
    seed_weights(module)
    return optimize(module)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("count", [1, 3, 7, 40])
@pytest.mark.parametrize("prompts", [1, 5])
@pytest.mark.parametrize("grad", [True, False])
def test_either_grouping_of_the_products_is_plain_attention(
    attention: Attention, prompts: int, count: int, shared: bool, grad: bool
) -> None:
    torch.manual_seed(0)
    tokens, values = torch.randn(2, prompts, count, 32)
    image, positions = torch.randn(1 if shared else prompts, 64, 32), torch.randn(64, 32)
    expected = attention(tokens, image + positions, image)
    expected_image = attention((image + positions).expand(prompts, -1, -1), tokens, values)
    with torch.set_grad_enabled(grad):
        to_image = attention.tokens_to_image(tokens, image, positions)
        from_image = attention.image_to_tokens(image, positions, tokens, values)
    torch.testing.assert_close(to_image, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(from_image, expected_image, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("count", "is_cheaper"), [(3, True), (40, False)])
def test_products_are_regrouped_where_that_is_cheaper(attention: Attention, count: int, is_cheaper: bool) -> None:
    tokens, image, positions = torch.randn(1, count, 32), torch.randn(1, 4096, 32), torch.randn(4096, 32)
    operations = []
    with torch.inference_mode():
        for compute in (
            lambda: attention(tokens, image + positions, image),
            lambda: attention.tokens_to_image(tokens, image, positions),
            lambda: attention(image + positions, tokens, tokens),
            lambda: attention.image_to_tokens(image, positions, tokens, tokens),
        ):
            with FlopCounterMode(display=False) as counter:
                compute()
            operations.append(counter.get_total_flops())
    plain_to_image, to_image, plain_from_image, from_image = operations
    assert (to_image < plain_to_image, from_image < plain_from_image) == (is_cheaper, is_cheaper)
    assert max(to_image / plain_to_image, from_image / plain_from_image) <= 1


@pytest.mark.parametrize("count", [2, 40])
def test_an_image_prepared_for_many_prompts_decodes_the_same(count: int) -> None:
    torch.manual_seed(0)
    decoder = small_sam().mask_decoder
    image = ImageTokens(torch.randn(1, 16, 256), torch.randn(16, 256))
    prompts = torch.randn(3, count, 256)
    expected = decoder(image, prompts, multimask=True)
    with torch.inference_mode():
        prepared = decoder.prepare(image)
        together = decoder(prepared, prompts, multimask=True)
        alone = decoder(prepared, prompts[1:2], multimask=True)
    for got, one, want in zip(together, alone, expected, strict=True):
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(one[0], want[1], atol=1e-4, rtol=1e-4)


def test_upscaling_is_the_official_layers_in_order() -> None:
    torch.manual_seed(0)
    layers = small_sam().mask_decoder.output_upscaling
    tokens, weights = torch.randn(2, 6 * 6, 256), torch.randn(2, 3, 32)
    upscaled = layers(tokens.transpose(1, 2).unflatten(2, (6, 6)))
    expected = torch.einsum("pmc,pchw->pmhw", weights, upscaled)
    for inference in (False, True):
        with torch.inference_mode(inference):
            masks = layers.masks(tokens, weights, None)
        torch.testing.assert_close(masks, expected, atol=1e-4, rtol=1e-4)


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
