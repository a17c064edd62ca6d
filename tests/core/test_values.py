from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from segany import ConfigError, EmbeddingError, MaskPrediction, Preprocessing, Prompt, PromptError
from segany.core.embedding import Embedding


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "empty"),
        ({"points_xy": []}, "empty"),
        ({"points_xy": [[1, 2, 3]]}, r"\[N, 2\]"),
        ({"points_xy": [1, 2]}, r"\[N, 2\]"),
        ({"points_xy": [["a", "b"]]}, "numbers"),
        ({"points_xy": [[1, float("nan")]]}, "finite"),
        ({"points_xy": [[1, 2]], "labels": [1, 0]}, "1 points but labels of shape"),
        ({"points_xy": [[1, 2]], "labels": 1}, "1 points but labels of shape"),
        ({"points_xy": [[1, 2]], "labels": [2]}, "1 .foreground. or 0 .background., got"),
        ({"points_xy": [[1, 2]], "labels": [-1]}, "1 .foreground. or 0 .background., got"),
        ({"points_xy": [[1, 2]], "labels": [0.5]}, "1 .foreground. or 0 .background., got"),
        ({"labels": [1]}, "without points_xy"),
        ({"points_xy": [[10**400, 1]]}, "numbers"),
        ({"points_xy": [[1e39, 1]]}, "finite"),
        ({"points_xy": [[1, 2], [3, 4]], "labels": [[1], [0, 1]]}, "labels must be an array of numbers"),
        ({"mask_logits": np.zeros((256, 256), dtype=bool)}, "boolean mask at the size of the image as `mask`"),
        ({"mask": np.zeros((20, 30), dtype=bool)}, "mask is empty"),
        ({"mask": np.ones((20, 30), dtype=np.uint8)}, r"bool \[H, W\], got uint8 \[20, 30\]"),
        ({"mask": np.ones((1, 20, 30), dtype=bool)}, r"bool \[H, W\], got bool \[1, 20, 30\]"),
        ({"mask": np.ones((20, 30), dtype=bool), "mask_logits": np.ones((4, 4))}, "not both"),
        ({"box_xyxy": [1, 2, 3]}, "four numbers"),
        ({"box_xyxy": [5, 1, 5, 9]}, "no area"),
        ({"box_xyxy": [9, 1, 5, 9]}, "no area"),
        ({"box_xyxy": [1, 9, 5, 9]}, "no area"),
        ({"box_xyxy": [0, 0, 1, float("inf")]}, "finite"),
        ({"mask_logits": np.zeros((1, 256, 256))}, r"\[h, w\]"),
        ({"mask_logits": np.full((256, 256), np.nan)}, "finite"),
    ],
)
def test_prompt_refuses_what_makes_no_sense(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(PromptError, match=message):
        Prompt(**arguments)  # type: ignore[arg-type]


def test_prompt_labels_default_to_foreground() -> None:
    prompt = Prompt(points_xy=[[1, 2], [3, 4]])
    assert prompt.labels is not None
    assert prompt.labels.tolist() == [1, 1]


def test_prompt_copies_and_freezes_its_arrays() -> None:
    points = np.array([[1.0, 2.0]], dtype=np.float32)
    prompt = Prompt(points_xy=points)
    points[0, 0] = 99
    assert prompt.points_xy is not None
    assert prompt.points_xy[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        prompt.points_xy[0, 0] = 5
    with pytest.raises(dataclasses.FrozenInstanceError):
        prompt.points_xy = None  # type: ignore[misc]


@pytest.mark.parametrize(
    ("prompt", "ambiguous"),
    [
        (Prompt(points_xy=[[1, 1]]), True),
        (Prompt(points_xy=[[1, 1]], labels=[0]), True),
        (Prompt(points_xy=[[1, 1], [2, 2]]), False),
        (Prompt(box_xyxy=[0, 0, 1, 1]), False),
        (Prompt(points_xy=[[1, 1]], box_xyxy=[0, 0, 2, 2]), False),
        (Prompt(points_xy=[[1, 1]], mask_logits=np.zeros((4, 4))), False),
        (Prompt(mask_logits=np.zeros((4, 4))), False),
        (Prompt(points_xy=[[1, 1]], mask=np.ones((4, 4), dtype=np.bool_)), False),
    ],
)
def test_only_a_single_point_is_ambiguous(prompt: Prompt, ambiguous: bool) -> None:
    assert prompt.is_ambiguous is ambiguous


@pytest.mark.parametrize("point", [(-1, 5), (5, -0.5), (30.5, 5), (5, 20.5)])
def test_prompt_outside_the_image(point: tuple[float, float]) -> None:
    with pytest.raises(PromptError, match=r"outside the image, which is 30 wide and 20 high"):
        Prompt(points_xy=[point]).check_fits((20, 30))


def test_mask_of_another_size_than_the_image() -> None:
    prompt = Prompt(mask=np.ones((20, 30), dtype=np.bool_))
    prompt.check_fits((20, 30))
    with pytest.raises(PromptError, match=r"mask is 30 wide and 20 high, but the image is 20 wide and 30 high"):
        prompt.check_fits((30, 20))


def test_prompt_on_the_edge_of_the_image_fits() -> None:
    Prompt(points_xy=[[0, 0], [30, 20]], box_xyxy=[0, 0, 30, 20]).check_fits((20, 30))


def test_box_outside_the_image() -> None:
    with pytest.raises(PromptError, match=r"Box corner \(31, 10\)"):
        Prompt(box_xyxy=[0, 0, 31, 10]).check_fits((20, 30))


@pytest.mark.parametrize(
    ("size_hw", "resized"),
    [((1200, 1800), (683, 1024)), ((1800, 1200), (1024, 683)), ((512, 512), (1024, 1024)), ((1, 5000), (1, 1024))],
)
def test_longest_side_is_resized_to_the_input(size_hw: tuple[int, int], resized: tuple[int, int]) -> None:
    assert Preprocessing().resized_hw(size_hw) == resized


def test_square_preprocessing_stretches() -> None:
    square = Preprocessing(resize="square")
    assert square.resized_hw((1200, 1800)) == (1024, 1024)
    np.testing.assert_allclose(square.to_input_xy(np.float32([[900, 600]]), (1200, 1800)), [[512, 512]])


@pytest.mark.parametrize("arguments", [{"input_size": 0}, {"resize": "nearest"}])
def test_preprocessing_refuses_nonsense(arguments: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Preprocessing(**arguments)  # type: ignore[arg-type]


def make_prediction() -> MaskPrediction:
    """Two prompts: the first with three candidates, the second with one."""
    masks = np.zeros((2, 3, 4, 5), dtype=bool)
    masks[0, 1, 2, 2] = masks[1, 0, 1, 1] = True
    return MaskPrediction(
        masks=masks,
        scores=np.array([[0.1, 0.9, 0.3], [0.5, -np.inf, -np.inf]], dtype=np.float32),
        low_res_logits=np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
        candidates=np.array([3, 1]),
        prompts=(Prompt(points_xy=[[1, 1]]), Prompt(box_xyxy=[0, 0, 2, 2])),
    )


def test_prediction_best_keeps_its_rank() -> None:
    prediction = make_prediction()
    assert prediction.best_index.tolist() == [1, 0]
    assert prediction.best().shape == (2, 4, 5)
    assert prediction.best()[0, 2, 2]
    assert prediction.best()[1, 1, 1]


def test_prediction_of_one_prompt_has_only_its_candidates() -> None:
    first, second = make_prediction()
    assert first.masks.shape == (1, 3, 4, 5)
    assert second.masks.shape == (1, 1, 4, 5)
    assert second.scores.tolist() == [[0.5]]
    assert second.prompts[0].box_xyxy is not None
    assert make_prediction()[-1].masks.shape == (1, 1, 4, 5)


def test_prediction_is_read_only() -> None:
    prediction = make_prediction()
    for array in (prediction.masks, prediction.scores, prediction.low_res_logits, prediction.candidates):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_refine_adds_clicks_and_the_best_mask() -> None:
    prompt = make_prediction().refine(points_xy=[[3, 2]], labels=[0])
    assert prompt.points_xy is not None
    assert prompt.labels is not None
    assert prompt.points_xy.tolist() == [[1, 1], [3, 2]]
    assert prompt.labels.tolist() == [1, 0]
    np.testing.assert_array_equal(prompt.mask_logits, make_prediction().low_res_logits[0, 1])


def test_refine_keeps_the_box_and_takes_a_candidate() -> None:
    prediction = make_prediction()
    assert prediction.refine(points_xy=[[1, 1]], prompt=1).box_xyxy is not None
    np.testing.assert_array_equal(prediction.refine(candidate=2).mask_logits, prediction.low_res_logits[0, 2])
    with pytest.raises(PromptError, match="There are 2 prompts, so 7 is none"):
        prediction.refine(prompt=7)
    with pytest.raises(PromptError, match="has 1 candidates"):
        prediction.refine(prompt=1, candidate=1)


def test_embedding_is_read_only_and_knows_its_model() -> None:
    embedding = Embedding((np.zeros((2, 3, 3), np.float32),), (4, 5), Preprocessing(), "a", "id", "hash")
    with pytest.raises(ValueError, match="read-only"):
        embedding.features[0][0] = 1
    embedding.check_model("a", "id", Preprocessing())
    with pytest.raises(EmbeddingError, match="made by 'a' and cannot be used with 'b'"):
        embedding.check_model("b", "id", Preprocessing())
    with pytest.raises(EmbeddingError, match="other image-encoder weights"):
        embedding.check_model("a", "other", Preprocessing())
    with pytest.raises(EmbeddingError, match=r"input_size=1024.*but the model takes.*input_size=512"):
        embedding.check_model("a", "id", Preprocessing(input_size=512))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int64])
def test_tensors_of_any_dtype_are_arrays(dtype: torch.dtype) -> None:
    points = torch.tensor([[5, 7], [1, 2]], dtype=dtype)
    if dtype.is_floating_point:
        points.requires_grad_()
    prompt = Prompt(points_xy=points, labels=torch.tensor([1, 0]), box_xyxy=torch.tensor([1, 2, 30, 40], dtype=dtype))
    assert prompt.points_xy is not None
    assert prompt.points_xy.tolist() == [[5, 7], [1, 2]]
    assert prompt.labels is not None
    assert prompt.labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    "values",
    [
        {"points_xy": [[1, 2], [3]]},
        {"points_xy": np.array([[1 + 2j, 3]])},
        {"points_xy": [["1", "2"]]},
        {"points_xy": np.ma.masked_array([[1.0, 2.0]], mask=[[True, False]])},
        {"points_xy": [[1, 2]], "labels": [[1], [0, 1]]},
        {"points_xy": [[1, 2]], "labels": ["a"]},
        {"box_xyxy": [object()] * 4},
        {"mask_logits": np.full((256, 256), 1e38, dtype=np.float32)},
        {"mask_logits": np.full((2000, 2000), np.nan, dtype=np.float32)},
        {"mask": [[1, 0], [0]]},
        {"points_xy": list(range(100_000))},
        {"points_xy": [[1, 2]] * 3, "labels": [7] * 100_000},
    ],
)
def test_values_that_are_no_prompt_are_refused_in_few_words(values: dict[str, Any]) -> None:
    with pytest.raises(PromptError) as caught:
        Prompt(**values)
    assert len(str(caught.value)) < 600


def test_points_that_have_no_values_or_end_are_refused():
    nested: list = []
    for _ in range(5000):
        nested = [nested]
    structured = np.zeros(1, dtype=[("a", "f4")])
    for points in (torch.ones(1, 2, device="meta"), nested):
        with pytest.raises(PromptError, match=r"points_xy must be (an array of )?numbers"):
            Prompt(points_xy=points)
    with pytest.raises(PromptError, match="labels must be 1"):
        Prompt(points_xy=[[1, 1]], labels=structured)
    with pytest.raises(PromptError, match="filled"):
        Prompt(points_xy=[np.ma.MaskedArray([1, 2], mask=[True, False])])
