from __future__ import annotations

import pytest
import torch
from tests.models_for_tests import SMALL_SAM2_CONFIGS, SMALL_TINY_VIT, SMALL_VIT

from segany.models.sam.model import Sam
from segany.models.sam2.model import Sam2
from segany.train.init import initialize


def test_weights_follow_from_the_seed_alone() -> None:
    states = []
    for noise, seed in ((1, 0), (2, 0), (3, 1)):
        torch.manual_seed(noise)
        for model in (
            Sam(SMALL_VIT, "a"),
            Sam(SMALL_TINY_VIT, "b"),
        ):
            initialize(model, seed)
            states.append(model.state_dict())
    for key, value in (*states[0].items(), *states[1].items()):
        assert value.isfinite().all(), key
    for first, second in ((0, 2), (1, 3)):
        for key, value in states[first].items():
            assert torch.equal(value, states[second][key]), key
    matrix = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
    assert not torch.equal(states[0][matrix], states[4][matrix])


def test_the_global_random_state_is_left_alone() -> None:
    model = Sam(SMALL_VIT, "a")
    before = torch.get_rng_state()
    initialize(model, 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_layers_of_the_encoder_are_xavier_uniform() -> None:
    """As in the code of masked autoencoding; the patch embedding as a linear layer."""
    model = Sam(SMALL_VIT, "a")
    initialize(model, 0)
    encoder = model.image_encoder
    for weight in (encoder.blocks[0].attn.qkv.weight, encoder.patch_embed.proj.weight.flatten(1)):
        bound = (6 / sum(weight.shape)) ** 0.5
        assert weight.abs().max().item() == pytest.approx(bound, rel=0.01)
        assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.03)


def test_a_fresh_model_tells_positions_and_images_apart() -> None:
    torch.manual_seed(0)
    for model in (Sam(SMALL_VIT, "a"), Sam2(SMALL_SAM2_CONFIGS["sam2.1"], "b")):
        initialize(model, 0)
        model.eval()
        with torch.no_grad():
            flat = model.encode_features(torch.zeros(1, 3, 256, 256))[0]
            noise = model.encode_features(torch.randn(1, 3, 256, 256))[0]
        assert flat.std(dim=(2, 3)).mean() > 1e-3
        assert (noise - flat).abs().mean() > 1e-3
