"""Forms for CPU inference compute what the plain modules compute, and run only where they may."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from tests.models_for_tests import SMALL_SAM2_CONFIGS, SMALL_TINY_VIT, SMALL_VIT, seed_weights
from torch import Tensor, nn

from segany.kernels import optimize
from segany.kernels.forms import FORMS
from segany.models.promptable import PromptableModel
from segany.models.registry import build_model
from segany.nn.layers import MLP

CONFIGS = {"vit": SMALL_VIT, "tiny_vit": SMALL_TINY_VIT, "sam2.1": SMALL_SAM2_CONFIGS["sam2.1"]}


@pytest.fixture(params=list(CONFIGS), scope="module")
def plain(request: pytest.FixtureRequest) -> PromptableModel:
    model = build_model(CONFIGS[request.param], "small")
    seed_weights(model)
    return model


@pytest.fixture(scope="module")
def fast(plain: PromptableModel) -> PromptableModel:
    return optimize(copy.deepcopy(plain))


def answers(model: PromptableModel, images: int = 1) -> list[Tensor]:
    """Features, and masks for prompts on one image or on an image each."""
    random = torch.Generator().manual_seed(0)
    pixels = torch.randn(images, 3, 256, 256, generator=random)
    points, labels = torch.rand(3, 2, 2, generator=random) * 256, torch.tensor([[1, 0], [1, -1], [2, 3]])
    mask_logits = torch.randn(3, 64, 64, generator=random) * 5
    features = model.encode_features(pixels)
    chosen = [feature[0] if images == 1 else feature for feature in features]
    without = model.decode_features(chosen, points, labels, multimask=False)
    with_masks = model.decode_features(chosen, points, labels, mask_logits, multimask=True)
    return [*features, *without, *with_masks]


@pytest.mark.parametrize("images", [1, 3])
def test_a_model_with_forms_computes_the_same(plain: PromptableModel, fast: PromptableModel, images: int) -> None:
    with torch.inference_mode():
        for ours, theirs in zip(answers(fast, images), answers(plain, images), strict=True):
            torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=1e-3)


def test_the_plain_modules_run_where_gradients_are_on(plain: PromptableModel, fast: PromptableModel) -> None:
    for ours, theirs in zip(answers(fast), answers(plain), strict=True):
        torch.testing.assert_close(ours, theirs, atol=0, rtol=0)


def test_the_plain_modules_run_in_mixed_precision(plain: PromptableModel, fast: PromptableModel) -> None:
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for ours, theirs in zip(answers(fast), answers(plain), strict=True):
            torch.testing.assert_close(ours, theirs, atol=0, rtol=0)


def test_parameters_keep_their_names_and_memory() -> None:
    model = build_model(SMALL_VIT, "small")
    before = {name: value.data_ptr() for name, value in model.state_dict().items()}
    assert optimize(model) is model
    assert {name: value.data_ptr() for name, value in model.state_dict().items()} == before


def test_modules_with_forms_are_copied_and_pickled(fast: PromptableModel) -> None:
    again = pickle.loads(pickle.dumps(fast))
    assert [type(module) for module in again.modules()] == [type(module) for module in fast.modules()]
    assert any(type(module) in FORMS.values() for module in again.modules())


def test_every_form_is_a_subclass_of_what_it_stands_for() -> None:
    assert all(issubclass(form, plain) for plain, form in FORMS.items())


class Doubling(MLP):
    """A layer of somebody's own, which computes something else than what it is derived from."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def test_a_subclass_without_a_form_stays_as_it_is() -> None:
    layer = optimize(Doubling(4, 8, 4, 2))
    assert type(layer) is Doubling
    assert all(type(part) is not nn.Linear for part in layer.layers)
