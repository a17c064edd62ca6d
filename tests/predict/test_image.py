from __future__ import annotations

import dataclasses
import io
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.models_for_tests import SMALL_TINY_VIT, loaded, small_sam

from segany import EmbeddingError, ImageError, ImagePredictor, MaskPrediction, Prompt, PromptError
from segany.core.embedding import Embedding
from segany.core.errors import OutOfMemoryError
from segany.core.prompt import MaskMode
from segany.imaging.pixels import PixelOptions
from segany.imaging.prompt_masks import mask_to_logits
from segany.models.sam.config import SamConfig, VitConfig

SIZE_HW = (90, 140)


@pytest.fixture(scope="module")
def predictor() -> ImagePredictor:
    return ImagePredictor(loaded(small_sam()))


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (*SIZE_HW, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def embedding(predictor: ImagePredictor, image: np.ndarray) -> Embedding:
    return predictor.embed(image)


def some_mask() -> np.ndarray:
    return np.random.default_rng(5).normal(0, 4, (64, 64)).astype(np.float32)


MIXED = [
    Prompt(points_xy=[[20, 30]]),
    Prompt(points_xy=[[20, 30], [100, 80], [5, 5], [60, 60], [130, 10]], labels=[1, 0, 1, 1, 0]),
    Prompt(box_xyxy=[10, 10, 90, 70]),
    Prompt(box_xyxy=[10, 10, 90, 70], points_xy=[[40, 40], [80, 20]], labels=[1, 0]),
    Prompt(points_xy=[[20, 30]], mask_logits=some_mask()),
    Prompt(box_xyxy=[10, 10, 90, 70], mask_logits=some_mask()),
    Prompt(mask_logits=some_mask()),
    Prompt(points_xy=[[30, 30]], mask=np.tri(*SIZE_HW, dtype=np.bool_)),
    Prompt(points_xy=[[70, 45]]),
]


def assert_same(a: MaskPrediction, b: MaskPrediction) -> None:
    """Equal but for the rounding of sums taken in another order."""
    assert a.masks.shape == b.masks.shape
    np.testing.assert_allclose(a.low_res_logits, b.low_res_logits, atol=1e-4)
    np.testing.assert_allclose(a.scores, b.scores, atol=1e-5)
    assert (a.masks == b.masks).mean() > 0.9999


@pytest.mark.parametrize("masks", ["auto", "multi", "single"])
def test_mixed_prompts_give_what_each_gives_alone(predictor: ImagePredictor, embedding: Embedding, masks: str) -> None:
    together = predictor.predict(embedding, MIXED, masks=masks)  # type: ignore[arg-type]
    most = 1 if masks == "single" else 3
    assert together.masks.shape == (len(MIXED), most, *SIZE_HW)
    assert together.scores.shape == (len(MIXED), most)
    assert together.low_res_logits.shape == (len(MIXED), most, 64, 64)
    for index, prompt in enumerate(MIXED):
        alone = predictor.predict(embedding, prompt, masks=masks)  # type: ignore[arg-type]
        assert alone.masks.shape[0] == 1
        assert_same(together[index], alone)


def test_many_prompts_give_what_each_gives_alone(predictor: ImagePredictor, embedding: Embedding) -> None:
    prompts = [Prompt(points_xy=[[x, y]]) for x in range(5, 140, 14) for y in (20, 60)]
    together = predictor.predict(embedding, prompts)
    for index in (0, 7, 8, 19):
        assert_same(together[index], predictor.predict(embedding, prompts[index]))


def test_auto_gives_three_candidates_only_where_the_prompt_is_ambiguous(
    predictor: ImagePredictor, embedding: Embedding
) -> None:
    prediction = predictor.predict(embedding, MIXED)
    assert prediction.candidates.tolist() == [3 if prompt.is_ambiguous else 1 for prompt in MIXED]
    assert not prediction.masks[1, 1:].any()
    assert np.isneginf(prediction.scores[1, 1:]).all()
    assert (prediction.best_index[1:4] == 0).all()


def test_one_prompt_and_a_list_of_one_are_the_same(predictor: ImagePredictor, embedding: Embedding) -> None:
    one = predictor.predict(embedding, MIXED[0])
    assert one.masks.shape == (1, 3, *SIZE_HW)
    assert_same(one, predictor.predict(embedding, [MIXED[0]]))


def test_logits_on_request_are_those_of_the_masks(predictor: ImagePredictor, embedding: Embedding) -> None:
    prompts = [MIXED[0], MIXED[2]]  # three candidates and one: two places stay unused
    plain = predictor.predict(embedding, prompts)
    with_logits = predictor.predict(embedding, prompts, with_logits=True)
    assert plain.logits is None
    assert with_logits.logits is not None
    assert with_logits.logits.dtype == np.float32
    assert np.isneginf(with_logits.logits[1, 1:]).all()
    assert np.isfinite(with_logits.logits[0]).all()
    np.testing.assert_array_equal(with_logits.logits > 0, with_logits.masks)
    assert_same(plain, with_logits)


def test_low_res_logits_feed_the_next_prompt(predictor: ImagePredictor, embedding: Embedding) -> None:
    first = predictor.predict(embedding, MIXED[0])
    refined = predictor.predict(embedding, first.refine(points_xy=[[100, 80]], labels=[0]))
    without_mask = predictor.predict(embedding, Prompt(points_xy=[[20, 30], [100, 80]], labels=[1, 0]))
    assert refined.masks.shape == (1, 1, *SIZE_HW)
    assert np.abs(refined.low_res_logits - without_mask.low_res_logits).max() > 1e-2


@pytest.mark.parametrize("masks", ["auto", "multi", "single"])
def test_low_res_prediction_is_that_of_the_whole(
    predictor: ImagePredictor, embedding: Embedding, masks: MaskMode
) -> None:
    prompts = [Prompt(points_xy=[[40, 30]]), Prompt(points_xy=[[40, 30], [60, 50]], labels=[1, 0])]
    whole = predictor.predict(embedding, prompts, masks=masks)
    low_res, scores, candidates = predictor.predict_low_res(embedding, prompts, masks=masks)
    np.testing.assert_array_equal(low_res, whole.low_res_logits)
    np.testing.assert_array_equal(scores, whole.scores)
    np.testing.assert_array_equal(candidates, whole.candidates)


def test_foreground_and_background_points_differ(predictor: ImagePredictor, embedding: Embedding) -> None:
    foreground = predictor.predict(embedding, Prompt(points_xy=[[20, 30]], labels=[1]))
    background = predictor.predict(embedding, Prompt(points_xy=[[20, 30]], labels=[0]))
    assert np.abs(foreground.low_res_logits - background.low_res_logits).max() > 1e-2


def test_threads_share_a_predictor(predictor: ImagePredictor, embedding: Embedding) -> None:
    expected = [predictor.predict(embedding, prompt) for prompt in MIXED]
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda prompt: predictor.predict(embedding, prompt), MIXED * 3))
    for index, prediction in enumerate(got):
        assert_same(prediction, expected[index % len(MIXED)])


def test_threads_may_embed_at_once(predictor: ImagePredictor, image: np.ndarray, embedding: Embedding) -> None:
    with ThreadPoolExecutor(3) as pool:
        for other in pool.map(predictor.embed, [image] * 3):
            np.testing.assert_allclose(other.features[0], embedding.features[0], atol=1e-5)


def test_a_list_of_images_of_different_sizes(predictor: ImagePredictor, image: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(image[:50]).save(tmp_path / "part.png")
    embeddings = predictor.embed([image, Image.fromarray(image[:, :60]), tmp_path / "part.png"])
    assert [e.size_hw for e in embeddings] == [SIZE_HW, (90, 60), (50, 140)]
    np.testing.assert_allclose(embeddings[2].features[0], predictor.embed(image[:50]).features[0], atol=1e-5)
    assert len({e.content_id for e in embeddings}) == 3


def test_exif_orientation_is_applied(predictor: ImagePredictor, image: np.ndarray, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side: turn clockwise to show
    Image.fromarray(image).save(tmp_path / "turned.png", exif=exif)
    turned = predictor.embed(tmp_path / "turned.png")
    assert turned.size_hw == (140, 90)
    np.testing.assert_array_equal(turned.features[0], predictor.embed(np.rot90(image, -1)).features[0])


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 500), (500, 1), (256, 256), (300, 40)])
def test_images_of_any_shape(predictor: ImagePredictor, size_hw: tuple[int, int]) -> None:
    embedding = predictor.embed(np.full(size_hw, 128, np.uint8))
    prediction = predictor.predict(embedding, Prompt(points_xy=[[size_hw[1] / 2, size_hw[0] / 2]]))
    assert prediction.masks.shape == (1, 3, *size_hw)


def test_saved_embedding_predicts_the_same(predictor: ImagePredictor, embedding: Embedding, tmp_path: Path) -> None:
    loaded = Embedding.load(embedding.save(tmp_path / "image.safetensors"))
    assert (loaded.size_hw, loaded.model, loaded.content_id) == (SIZE_HW, "small", embedding.content_id)
    assert_same(predictor.predict(loaded, MIXED), predictor.predict(embedding, MIXED))


def test_embedding_of_another_model_is_refused(embedding: Embedding) -> None:
    other = small_sam(SMALL_TINY_VIT)
    with pytest.raises(EmbeddingError, match="other image-encoder weights"):
        ImagePredictor(loaded(other)).predict(embedding, MIXED[0])
    other.name = "another"
    with pytest.raises(EmbeddingError, match="made by 'small' and cannot be used with 'another'"):
        ImagePredictor(loaded(other)).predict(embedding, MIXED[0])


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([], "no prompts"),
        ([[1, 2]], "must be `segany.Prompt`s"),
        (Prompt(points_xy=[[141, 5]]), "outside the image"),
        (Prompt(box_xyxy=[0, 0, 10, 91]), "outside the image"),
        (Prompt(mask_logits=np.zeros(SIZE_HW)), r"\[90, 140\], but the model takes \[64, 64\]"),
        (Prompt(mask=np.ones((64, 64), dtype=np.bool_)), "mask is 64 wide and 64 high, but the image is 140 wide"),
    ],
)
def test_prompts_that_do_not_fit(
    predictor: ImagePredictor, embedding: Embedding, prompts: Prompt | list[Prompt], message: str
) -> None:
    with pytest.raises(PromptError, match=message):
        predictor.predict(embedding, prompts)


def test_boolean_mask_is_a_prompt(predictor: ImagePredictor, embedding: Embedding) -> None:
    mask = np.tri(*SIZE_HW, dtype=np.bool_)
    logits = mask_to_logits(mask, embedding.preprocessing, predictor.model.low_res_size)
    given, converted = (
        predictor.predict(embedding, prompt) for prompt in (Prompt(mask=mask), Prompt(mask_logits=logits))
    )
    assert_same(given, converted)
    assert given.prompts[0].mask is not None
    refined = given.refine([[5, 5]])
    assert refined.mask is None
    np.testing.assert_array_equal(refined.mask_logits, given.low_res_logits[0, 0])


def test_bytes_and_files_are_embedded_as_paths_are(
    predictor: ImagePredictor, image: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(image).save(path)
    data = path.read_bytes()
    expected = predictor.embed(path)
    for embedding in [*predictor.embed([data, io.BytesIO(data), image]), predictor.embed(data)]:
        assert embedding.content_id == expected.content_id
        np.testing.assert_allclose(embedding.features[0], expected.features[0], atol=1e-5)


def test_unknown_mask_mode(predictor: ImagePredictor, embedding: Embedding) -> None:
    with pytest.raises(PromptError, match="'auto', 'multi' or 'single'"):
        predictor.predict(embedding, MIXED[0], masks="both")  # type: ignore[arg-type]


def test_images_beyond_the_pixel_limit_are_refused(image: np.ndarray) -> None:
    with pytest.raises(ImageError, match="pixels"):
        ImagePredictor(loaded(small_sam()), max_pixels=100).embed(image)


def test_a_long_list_is_not_decoded_all_at_once(monkeypatch: pytest.MonkeyPatch, image: np.ndarray) -> None:
    predictor, sizes = ImagePredictor(loaded(small_sam())), []
    embed = predictor.model.embed
    monkeypatch.setattr(predictor.model, "embed", lambda images: sizes.append(len(images)) or embed(images))
    assert len(predictor.embed([image[:20]] * 6)) == 6
    assert max(sizes) <= 4


@pytest.mark.parametrize("input_size", [256, 512])
@pytest.mark.parametrize("family", ["vit", "tiny_vit"])
def test_other_input_sizes(image: np.ndarray, input_size: int, family: str) -> None:
    encoder = (
        VitConfig(width=64, depth=2, heads=2, global_blocks=(1,), input_size=input_size)
        if family == "vit"
        else type(SMALL_TINY_VIT.encoder)(input_size=input_size)
    )
    predictor = ImagePredictor(loaded(small_sam(SamConfig(encoder))))
    embedding = predictor.embed(image)
    assert embedding.features[0].shape == (256, input_size // 16, input_size // 16)
    prediction = predictor.predict(embedding, MIXED[0])
    assert prediction.low_res_logits.shape == (1, 3, input_size // 4, input_size // 4)
    assert prediction.masks.shape == (1, 3, *SIZE_HW)


def test_a_model_upscales_read_only_logits(predictor: ImagePredictor, embedding: Embedding) -> None:
    prediction = predictor.predict(embedding, MIXED[0])
    masks = predictor.model.processor.upscale_masks(prediction.low_res_logits, SIZE_HW)
    np.testing.assert_array_equal(masks, prediction.masks)


def test_values_that_are_no_numbers_are_refused(predictor: ImagePredictor, image: np.ndarray) -> None:
    embedding = predictor.embed(image)
    damaged = dataclasses.replace(embedding, features=tuple(np.full_like(one, np.nan) for one in embedding.features))
    with pytest.raises(EmbeddingError, match="not numbers"):
        predictor.predict(damaged, Prompt(points_xy=[[5, 5]]))


def test_masks_that_would_not_fit_are_refused_before_anything_is_computed(
    predictor: ImagePredictor, image: np.ndarray
) -> None:
    embedding = dataclasses.replace(predictor.embed(image), size_hw=(20_000, 20_000))
    with pytest.raises(OutOfMemoryError, match="predict_instances"):
        predictor.predict(embedding, [Prompt(points_xy=[[5, 5]])] * 100)


def test_instances_of_many_prompts_are_those_of_each(
    predictor: ImagePredictor, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segany.predict.image.CHUNK_BYTES", 2 * 3 * image.shape[0] * image.shape[1])
    embedding = predictor.embed(image)
    prompts = [Prompt(points_xy=[[x, 20]]) for x in (10, 30, 50, 60, 70)]
    instances = predictor.predict_instances(embedding, prompts)
    assert instances.object_ids.tolist() == [1, 2, 3, 4, 5]
    for index, prompt in enumerate(prompts):
        np.testing.assert_array_equal(instances.mask(index), predictor.predict(embedding, prompt).best()[0])


def test_the_predictor_reads_images_by_its_options(predictor: ImagePredictor) -> None:
    dark = np.linspace(0, 4095, 60 * 80).astype(np.uint16).reshape(60, 80)
    with pytest.raises(ImageError, match="12 bits"):
        predictor.embed(dark)
    chosen = ImagePredictor(predictor.model, pixel_options=PixelOptions(value_range=(0, 4095))).embed(dark)
    assert chosen.size_hw == (60, 80)


def test_features_may_stay_where_the_encoder_left_them(
    predictor: ImagePredictor, embedding: Embedding, tmp_path: Path
) -> None:
    on_device = replace(
        embedding, features=tuple(torch.from_numpy(array.copy()).half() for array in embedding.features)
    )
    rounded = on_device.to_cpu()
    assert rounded.features[0].dtype == np.float32
    np.testing.assert_array_equal(rounded.features[0], embedding.features[0].astype(np.float16))
    stored = Embedding.load(on_device.save(tmp_path / "image.safetensors"))
    for one in (rounded, stored, pickle.loads(pickle.dumps(on_device))):
        np.testing.assert_array_equal(
            predictor.predict(one, MIXED[0]).low_res_logits, predictor.predict(on_device, MIXED[0]).low_res_logits
        )
