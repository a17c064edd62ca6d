"""The learning rate, against the numbers of the paper."""

import itertools

import pytest

from segany.core.errors import ConfigError
from segany.train.loop_config import LoopConfig, learning_rate
from segany.train.overrides import override
from segany.train.sam_recipe import SamRecipe


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 8e-4 / 250),
        (124, 4e-4),
        (249, 8e-4),
        (250, 8e-4),
        (59_999, 8e-4),
        (60_000, 8e-5),
        (86_665, 8e-5),
        (86_666, 8e-6),
        (89_999, 8e-6),
    ],
)
def test_the_papers_schedule(step, rate):
    assert learning_rate(LoopConfig(steps=90_000), step, 90_000) == pytest.approx(rate, rel=1e-9)


def test_cosine_falls_from_the_full_rate_to_nothing():
    config = LoopConfig(steps=110, lr_schedule="cosine", lr=1.0, warmup_steps=10)
    rates = [learning_rate(config, step, 110) for step in range(110)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10] == 1.0
    assert rates[60] == pytest.approx(0.5)
    assert rates[109] == pytest.approx(0.0, abs=1e-3)
    assert all(one > other for one, other in itertools.pairwise(rates[10:]))


def test_without_warmup_the_first_step_has_the_peak_rate():
    assert learning_rate(LoopConfig(steps=5, warmup_steps=0, decay_steps=()), 0, 5) == 8e-4


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0),
        ("epochs", 0),
        ("batch_size", -1),
        ("micro_batch_size", 0),
        ("lr", 0.0),
        ("lr", float("nan")),
        ("betas", (0.9, 1.0)),
        ("betas", (0.9,)),
        ("warmup_steps", -1),
        ("lr_schedule", "linear"),
        ("decay_steps", (5, 5)),
        ("decay_steps", (0,)),
        ("decay_factor", 0.0),
        ("clip_norm", 0.0),
        ("precision", "fp16"),
        ("validate_every", 0),
        ("patience", 0),
        ("keep_last_n", -1),
        ("workers", -1),
    ],
)
def test_a_field_out_of_range_is_named(field, value):
    with pytest.raises(ConfigError, match=rf"{field} must"):
        LoopConfig(**{**({} if field == "epochs" else {"steps": 5}), field: value})


def test_warmup_is_a_tenth_of_the_steps_at_most():
    """20 images in batches of 4, for 10 epochs, are 50 steps: they are not all warm-up."""
    config = LoopConfig(epochs=10, batch_size=4, lr=1.0, warmup_steps=50, lr_schedule="cosine")
    total = config.total_steps(batches=5)
    rates = [learning_rate(config, step, total) for step in range(total)]
    assert total == 50
    assert rates[:6] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])
    assert rates[27] == pytest.approx(0.5, abs=0.02)


def test_steps_or_epochs_but_not_both():
    assert LoopConfig(steps=7).total_steps(10) == 7
    assert LoopConfig(epochs=3).total_steps(10) == 30
    for wrong in ({"steps": 7, "epochs": 3}, {}):
        with pytest.raises(ConfigError, match="either steps or epochs"):
            LoopConfig(**wrong)


@pytest.mark.parametrize(
    "setting",
    [
        "seed=100000000000000000000", "steps=100000000000000000000", "workers=5000", "lr=nan", "lr=inf",
        "betas=nan,0.9",
        "clip_norm=nan", "clip_norm=inf", "decay_factor=nan", "seed=-1", "keep_last_n=100000000000000000000",
        "decay_steps=5,100000000000000000000",
    ],
)  # fmt: skip
def test_numbers_that_nothing_can_hold_are_refused(setting: str) -> None:
    name = setting.partition("=")[0]
    with pytest.raises(ConfigError, match=name):
        override(LoopConfig(epochs=None, steps=10), [setting])


@pytest.mark.parametrize(
    "setting", ["encoder_lr_scale=inf", "focal_weight=inf", "layer_decay=nan", "loss_side=1" + "0" * 20]
)
def test_numbers_of_tasks_are_finite(setting: str) -> None:
    with pytest.raises(ConfigError, match=setting.partition("=")[0]):
        override(SamRecipe(), [setting])
