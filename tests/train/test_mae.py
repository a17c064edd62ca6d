from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.items_for_tests import make_item
from tests.models_for_tests import SMALL_TINY_VIT, seed_weights, small_sam, small_sam2

from segany.core.errors import CheckpointError, ConfigError
from segany.data.item import TrainingItem
from segany.models.sam.config import SamConfig, VitConfig
from segany.models.sam.model import Sam
from segany.train.mae import (
    PATCH_VALUES,
    MaeConfig,
    MaskedAutoencoder,
    cut_patches,
    join_patches,
    reconstruction_loss,
    sine_positions,
    visible_count,
)
from segany.train.mae_task import MaeTask, load_encoder

TINY = VitConfig(width=32, depth=2, heads=2, global_blocks=(1,), input_size=128)
SMALL_DECODER = MaeConfig(decoder_depth=1, decoder_width=16, decoder_heads=2)


def tiny_model(config: VitConfig = TINY) -> Sam:
    """A model as it is built: random weights, positions of zero."""
    torch.manual_seed(0)
    return Sam(SamConfig(config), name="tiny")


def small_item(seed: int = 0, size_hw: tuple[int, int] = (128, 128)) -> TrainingItem:
    return make_item(f"item{seed}", size_hw, side=128, seed=seed)


@pytest.fixture
def task() -> MaeTask:
    return MaeTask(tiny_model(), SMALL_DECODER)


def test_paper_values_are_the_defaults() -> None:
    config = MaeConfig()
    assert (config.mask_ratio, config.decoder_depth, config.decoder_width, config.normalize) == (0.75, 8, 512, True)
    decoder = MaskedAutoencoder(tiny_model().image_encoder, config)  # type: ignore[arg-type]
    assert len(decoder.decoder_blocks) == 8
    assert decoder.predict.out_features == 16 * 16 * 3
    # qkv and projection, two layers of four times the width, two norms
    block = (4 * 512 * 512 + 4 * 512) + (8 * 512 * 512 + 5 * 512) + 4 * 512
    assert sum(parameter.numel() for parameter in decoder.decoder_blocks.parameters()) == 8 * block


@pytest.mark.parametrize(("size_hw", "patches"), [((128, 128), 64), ((128, 70), 32), ((33, 128), 16), ((9, 128), 8)])
def test_a_quarter_of_the_patches_inside_the_image_is_visible(
    task: MaeTask, size_hw: tuple[int, int], patches: int
) -> None:
    item = small_item(size_hw=size_hw)
    visible = task._visible([item])
    assert visible.shape == (1, patches // 4)
    assert len(set(visible[0].tolist())) == patches // 4
    assert 0 <= int(visible.min()) <= int(visible.max()) < patches
    assert task._patches([item]).shape == (1, patches, PATCH_VALUES)


def test_masks_come_from_the_seed_and_cover_all_patches_alike(task: MaeTask) -> None:
    rows = task._visible([small_item(seed) for seed in range(400)])
    assert torch.equal(rows, task._visible([small_item(seed) for seed in range(400)]))
    counts = torch.bincount(rows.flatten(), minlength=64) / 400
    # Binomial with p = 0.25: within five deviations
    assert float((counts - 0.25).abs().max()) < 5 * math.sqrt(0.25 * 0.75 / 400)


@pytest.mark.parametrize(("patches", "ratio", "count"), [(64, 0.75, 16), (63, 0.75, 15), (1, 0.75, 1), (10, 0.5, 5)])
def test_visible_count(patches: int, ratio: float, count: int) -> None:
    assert visible_count(patches, ratio) == count


def test_patches_are_squares_of_the_image_row_by_row() -> None:
    pixels = torch.randn(2, 3, 32, 48)
    patches = cut_patches(pixels)
    assert patches.shape == (2, 6, PATCH_VALUES)
    assert torch.equal(patches[1, 4].reshape(3, 16, 16), pixels[1, :, 16:, 16:32])
    assert torch.equal(join_patches(patches, (2, 3)), pixels)


def test_encoder_projects_patches_as_its_convolution_does(task: MaeTask) -> None:
    encoder = task.module.encoder
    encoder.blocks = torch.nn.ModuleList()
    pixels, everything = torch.randn(1, 3, 128, 128), torch.arange(64)[None]
    expected = (encoder.patch_embed(pixels) + encoder.pos_embed).flatten(1, 2)
    tokens = task.module.encode(cut_patches(pixels), (8, 8), everything)
    torch.testing.assert_close(tokens, task.module.norm(expected))


def test_encoder_is_the_vit_where_all_is_visible_and_all_blocks_are_global() -> None:
    """With tables of zeros for relative positions, which is how they start, the encoder is SAM's own."""
    model = tiny_model(replace(TINY, global_blocks=(0, 1)))
    autoencoder = MaskedAutoencoder(model.image_encoder, SMALL_DECODER)  # type: ignore[arg-type]
    pixels = torch.randn(1, 3, 128, 128)
    x = autoencoder.encoder.patch_embed(pixels) + autoencoder.encoder.pos_embed
    for block in autoencoder.encoder.blocks:
        x = block(x)
    tokens = autoencoder.encode(cut_patches(pixels), (8, 8), torch.arange(64)[None])
    torch.testing.assert_close(tokens, autoencoder.norm(x).flatten(1, 2), atol=1e-5, rtol=1e-5)


def test_encoder_sees_visible_patches_alone(task: MaeTask) -> None:
    patches, visible = torch.randn(1, 64, PATCH_VALUES), torch.tensor([[3, 10, 40]])
    before = task.module(patches, (8, 8), visible)
    for place, changes in ((4, False), (10, True)):
        other = patches.clone()
        other[0, place] += 1
        assert torch.equal(task.module(other, (8, 8), visible), before) is not changes


def test_tokens_return_to_their_places(task: MaeTask) -> None:
    tokens = torch.arange(1.0, 7.0).reshape(2, 3, 1).expand(-1, -1, 16)
    task.module.mask_token.data.fill_(-1)
    placed = task.module.put_in_place(tokens, 5, torch.tensor([[4, 0, 2], [1, 2, 3]]))
    assert placed[..., 0].tolist() == [[2, -1, 3, -1, 1], [-1, 4, 5, 6, -1]]


def test_order_of_visible_patches_does_not_matter(task: MaeTask) -> None:
    patches, visible = torch.randn(1, 64, PATCH_VALUES), torch.randperm(64)[None, :16]
    sorted_, shuffled = (task.module(patches, (8, 8), places) for places in (visible.sort().values, visible))
    torch.testing.assert_close(sorted_, shuffled, atol=1e-5, rtol=1e-5)


def test_loss_is_over_masked_patches_alone() -> None:
    patches, predicted = torch.randn(2, 6, PATCH_VALUES), torch.randn(2, 6, PATCH_VALUES)
    visible = torch.tensor([[0, 5], [1, 2]])
    losses = reconstruction_loss(predicted, patches, visible, normalize=False)
    by_hand = (predicted[0, 1:5] - patches[0, 1:5]).square().mean()
    torch.testing.assert_close(losses[0], by_hand)
    predicted[0, 5] += 100
    patches[1, 1] -= 100
    assert torch.equal(reconstruction_loss(predicted, patches, visible, normalize=False), losses)
    predicted[1, 0] += 1
    assert float(reconstruction_loss(predicted, patches, visible, normalize=False)[1]) != float(losses[1])


def test_target_is_the_patch_without_its_mean_and_deviation() -> None:
    patch = torch.zeros(PATCH_VALUES)
    patch[: PATCH_VALUES // 2] = 10.0  # mean 5; squared deviations of 25 over n - 1
    deviation = math.sqrt(25 * PATCH_VALUES / (PATCH_VALUES - 1))
    predicted = torch.where(patch > 0, 5 / deviation, -5 / deviation)
    patches = torch.stack([patch, patch])[None]
    seen = torch.tensor([[0]])
    right = reconstruction_loss(torch.stack([predicted, predicted])[None], patches, seen, normalize=True)
    assert float(right) < 1e-9
    wrong = reconstruction_loss(torch.stack([predicted, predicted + 0.5])[None], patches, seen, normalize=True)
    assert float(wrong) == pytest.approx(0.25)


def test_positions_are_sines_of_columns_and_rows() -> None:
    table = sine_positions((2, 3), 8)
    assert table.shape == (6, 8)
    # place 5 is row 1, column 2; frequencies 1 and 1 / 100
    of_column = [math.sin(2), math.sin(0.02), math.cos(2), math.cos(0.02)]
    of_row = [math.sin(1), math.sin(0.01), math.cos(1), math.cos(0.01)]
    assert table[5].tolist() == pytest.approx(of_column + of_row)


def test_positions_are_set_unless_they_are_to_stay_and_never_trained(task: MaeTask) -> None:
    table = task.module.encoder.patch_positions
    torch.testing.assert_close(table[0].flatten(0, 1), sine_positions((8, 8), 32))
    assert not any(parameter is table for parameter in task.module.trained())
    model = tiny_model()
    seed_weights(model)
    before = model.image_encoder.patch_positions.clone()
    kept = replace(SMALL_DECODER, positions="kept")
    assert torch.equal(MaeTask(model, kept).module.encoder.patch_positions, before)


def test_positions_of_a_smaller_training_size_are_stretched_over_all_of_the_table() -> None:
    """Training on 64 px uses 4 x 4 positions; the table of 8 x 8 for 128 px lies between them, corner to corner."""
    task = MaeTask(tiny_model(), SMALL_DECODER, side=64)
    integers = sine_positions((4, 4), 32)
    torch.testing.assert_close(task.module._positions((4, 4)), integers)
    table = task.module.encoder.pos_embed[0]
    # Four cells of the table share a cell of training: their mean is near to its position.
    means = table.unflatten(0, (4, 2)).unflatten(2, (4, 2)).mean(dim=(1, 3)).flatten(0, 1)
    torch.testing.assert_close(means, integers, atol=0.05, rtol=0)
    kept = MaeTask(tiny_model(), replace(SMALL_DECODER, positions="kept"), side=64)
    kept.module.encoder.pos_embed.data[..., 0] = torch.arange(8.0)[None, :, None]
    torch.testing.assert_close(
        kept.module._positions((4, 4))[::4, 0], torch.tensor([0.5, 2.5, 4.5, 6.5]), atol=0.1, rtol=0
    )
    with pytest.raises(ConfigError, match="9 patches a side"):
        MaeTask(tiny_model(), SMALL_DECODER, side=144)


def test_positions_of_smaller_images_are_those_of_the_top_left(task: MaeTask) -> None:
    task.module.encoder.blocks = torch.nn.ModuleList()
    patches = torch.zeros(1, 1, PATCH_VALUES)
    here = task.module.encode(patches, (2, 3), torch.tensor([[4]]))  # row 1, column 1
    there = task.module.encode(patches, (8, 8), torch.tensor([[9]]))
    assert torch.equal(here, there)


def test_all_that_is_trained_gets_a_gradient(task: MaeTask) -> None:
    sum(loss.total for loss in task.losses([small_item()])).backward()  # type: ignore[union-attr]
    grouped = [parameter for group in task.parameter_groups() for parameter in group["params"]]  # type: ignore[attr-defined]
    with_gradient = [name for name, parameter in task.module.named_parameters() if parameter.grad is not None]
    names = {id(parameter): name for name, parameter in task.module.named_parameters()}
    assert sorted(names[id(parameter)] for parameter in grouped) == sorted(with_gradient)
    assert not any(part in name for name in with_gradient for part in ("neck", "rel_pos", "pos_embed"))
    for group in task.parameter_groups():
        decays = {parameter.ndim > 1 for parameter in group["params"]}  # type: ignore[attr-defined]
        assert decays == {group["weight_decay"] == 0.05}
        assert group["lr_scale"] == 1


def test_losses_do_not_depend_on_the_batch(task: MaeTask) -> None:
    items = [small_item(0), small_item(1, (128, 64)), small_item(2), small_item(3, (48, 128))]
    together = torch.stack([loss.total for loss in task.losses(items)])
    alone = torch.stack([task.losses([item])[0].total for item in items])
    torch.testing.assert_close(together, alone)
    assert len(set(alone.tolist())) == 4


def test_padding_and_pixels_of_cut_patches_take_no_part(task: MaeTask) -> None:
    item = small_item(size_hw=(120, 70))
    cut = replace(item, image=item.image[:112, :64])
    assert torch.equal(task.losses([item])[0].total, task.losses([cut])[0].total)


def test_images_smaller_than_a_patch_cost_nothing(task: MaeTask) -> None:
    loss = task.losses([small_item(size_hw=(10, 12))])[0].total
    assert float(loss.detach()) == 0
    loss.backward()


def test_loss_falls() -> None:
    items = [small_item(seed) for seed in range(2)]
    task = MaeTask(tiny_model(), replace(SMALL_DECODER, decoder_width=64), val_items=items)
    groups = [{"params": group["params"]} for group in task.parameter_groups()]
    optimizer = torch.optim.AdamW(groups, lr=3e-3)
    before = task.validate()
    for _ in range(40):
        optimizer.zero_grad()
        torch.stack([loss.total for loss in task.losses(items)]).mean().backward()
        optimizer.step()
    after = task.validate()
    assert list(after) == ["minus_reconstruction", "val_loss"]
    assert after["val_loss"] == -after["minus_reconstruction"]
    assert after["minus_reconstruction"] > 0.5 * before["minus_reconstruction"]  # both are below zero
    assert MaeTask(tiny_model(), SMALL_DECODER).validate() == {}


def test_encoder_goes_into_sam_unchanged(task: MaeTask) -> None:
    for parameter in task.module.parameters():
        parameter.data.add_(0.01)
    model = tiny_model()
    keys = list(model.state_dict())
    pixels = torch.randn(1, 3, 128, 128)
    before = model.encode_image(pixels)
    assert load_encoder(model, task.module.state_dict()) is model
    assert list(model.state_dict()) == keys
    assert not torch.allclose(model.encode_image(pixels), before)
    torch.testing.assert_close(model.encode_image(pixels), task.module.encoder(pixels))


def test_what_is_saved_is_the_model_with_its_encoder(task: MaeTask) -> None:
    saved = task.saved_module()
    assert isinstance(saved, Sam)
    assert saved.image_encoder is task.module.encoder


def test_decoder_starts_the_same_for_a_seed() -> None:
    states = []
    for config in (SMALL_DECODER, SMALL_DECODER, replace(SMALL_DECODER, seed=1)):
        encoder = tiny_model().image_encoder
        torch.manual_seed(len(states))
        states.append(MaskedAutoencoder(encoder, config).state_dict())  # type: ignore[arg-type]
    first, again, other = states
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["decoder_blocks.0.qkv.weight"], other["decoder_blocks.0.qkv.weight"])


def test_blocks_that_may_be_compiled_are_called(task: MaeTask) -> None:
    called: list[torch.nn.Module] = []
    for block in task.blocks():
        block.register_forward_hook(lambda module, *_: called.append(module))
    task.losses([small_item()])
    assert called == task.blocks()


def test_encoders_of_other_sizes_are_refused(task: MaeTask) -> None:
    with pytest.raises(CheckpointError, match="size"):
        load_encoder(small_sam(), task.module.state_dict())
    with pytest.raises(CheckpointError, match="none of its tensors"):
        load_encoder(small_sam(), small_sam().mask_decoder.state_dict())


def test_pictures_show_what_was_seen_told_and_there(task: MaeTask) -> None:
    item = small_item(size_hw=(128, 96))
    task.val_items = (item, small_item(2))
    first, second = task.samples()
    assert first.dtype == np.uint8
    assert (first.shape, second.shape) == ((128, 3 * 96, 3), (128, 3 * 128, 3))
    seen, told, truth = (first[:, 96 * i : 96 * (i + 1)] for i in range(3))
    assert np.array_equal(truth, item.image)
    visible = task._visible([item])[0].tolist()
    for place in range(48):
        row, column = divmod(place, 6)
        square = (slice(16 * row, 16 * row + 16), slice(16 * column, 16 * column + 16))
        if place in visible:
            assert np.array_equal(seen[square], truth[square])
            assert np.array_equal(told[square], truth[square])
        else:
            assert (seen[square] == 128).all()
            assert not np.array_equal(told[square], truth[square])


@pytest.mark.parametrize("build", [lambda: small_sam(SMALL_TINY_VIT), small_sam2])
def test_only_plain_vits(build: object) -> None:
    with pytest.raises(ConfigError, match="plain ViT"):
        MaeTask(build())  # type: ignore[operator]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mask_ratio", 0.0), ("mask_ratio", 1.0), ("decoder_depth", 0), ("decoder_width", 510),
        ("decoder_heads", 7), ("mlp_ratio", 0), ("weight_decay", -1.0), ("positions", "learned"),
    ],
)  # fmt: skip
def test_config_refuses(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=field):
        MaeConfig(**{field: value})  # type: ignore[arg-type]
