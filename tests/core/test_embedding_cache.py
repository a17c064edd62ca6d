from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from segany.core.embedding import Embedding
from segany.core.embedding_cache import CacheCounts, EmbeddingCache
from segany.core.preprocessing import Preprocessing

FEATURES = (np.random.default_rng(0).normal(size=(8, 4, 5)).astype(np.float32),)
PREPROCESSING = Preprocessing()


def test_what_is_stored_is_found(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path, "mobile_sam", "weights", PREPROCESSING)
    assert cache.find("image") is None
    path = cache.store("image", FEATURES, (30, 20))
    for found in (cache.find("image"), Embedding.load(path)):
        assert found is not None
        assert (found.size_hw, found.content_id, found.model, found.encoder_id) == (
            (30, 20), "image", "mobile_sam", "weights",
        )  # fmt: skip
        np.testing.assert_array_equal(found.features[0], FEATURES[0])
    assert cache.counts == CacheCounts(found=1, stored=1)


@pytest.mark.parametrize(
    "other",
    [
        ("sam_vit_b", "weights", PREPROCESSING, {}),
        ("mobile_sam", "tuned", PREPROCESSING, {}),
        ("mobile_sam", "weights", Preprocessing(input_size=512), {}),
        ("mobile_sam", "weights", PREPROCESSING, {"precision": "fp16"}),
    ],
)
def test_what_others_stored_is_not_found(tmp_path: Path, other: tuple) -> None:
    EmbeddingCache(tmp_path, "mobile_sam", "weights", PREPROCESSING).store("image", FEATURES, (30, 20))
    *arguments, options = other
    assert EmbeddingCache(tmp_path, *arguments, **options).find("image") is None


def test_channels_last_lie_so_in_memory(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path, "mobile_sam", "weights", PREPROCESSING, precision="fp16", channels_last=True)
    rounded = FEATURES[0].astype(np.float16).astype(np.float32)
    cache.store("image", (rounded,), (30, 20))
    found = cache.find("image")
    assert found is not None
    (feature,) = found.features
    np.testing.assert_array_equal(feature, rounded)
    assert feature.transpose(1, 2, 0).flags.c_contiguous


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_file_is_missing_and_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str) -> None:
    cache = EmbeddingCache(tmp_path, "mobile_sam", "weights", PREPROCESSING)
    path = cache.store("image", FEATURES, (30, 20))
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[-3] ^= 1
    path.write_bytes({"cut": data[:-1], "flip": data, "empty": b""}[damage])
    assert cache.find("image") is None
    assert str(path) in caplog.text
    cache.store("image", FEATURES, (30, 20))
    assert cache.find("image") is not None
    assert cache.counts == CacheCounts(found=1, stored=2, damaged=1)


def test_what_was_not_used_for_longest_makes_way(tmp_path: Path) -> None:
    old = EmbeddingCache(tmp_path, "mobile_sam", "old", PREPROCESSING).store("0", FEATURES, (30, 20))
    size = used_before(old)
    cache = EmbeddingCache(tmp_path, "mobile_sam", "weights", PREPROCESSING, max_bytes=int(5.2 * size))
    for image in "1234":
        used_before(cache.store(image, FEATURES, (30, 20)))
    assert cache.find("1") is not None
    assert cache.store("5", FEATURES, (30, 20)).exists()
    assert [image for image in "12345" if cache.find(image) is not None] == ["1", "3", "4", "5"]
    assert not list(tmp_path.rglob("0.safetensors")), "of other encoders too"
    assert folder_size(tmp_path) <= 5.2 * size


def test_the_last_embedding_stays_however_large(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path, "mobile_sam", "weights", PREPROCESSING, max_bytes=0)
    for image in "123":
        cache.store(image, FEATURES, (30, 20))
        assert cache.find(image) is not None
    assert [path.stem for path in tmp_path.rglob("*.safetensors")] == ["3"]


def test_caches_that_share_a_folder_delete_and_read_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    size = EmbeddingCache(tmp_path, "m", "w", PREPROCESSING).store("0", FEATURES, (30, 20)).stat().st_size

    def work(seed: int) -> int:
        cache = EmbeddingCache(tmp_path, "m", "w", PREPROCESSING, max_bytes=4 * size)
        draw = np.random.default_rng(seed)
        for image in map(str, draw.integers(0, 12, 150)):
            found = cache.find(image)
            if found is None:
                cache.store(image, FEATURES, (30, 20))
            else:
                np.testing.assert_array_equal(found.features[0], FEATURES[0])
        return cache.counts.damaged

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(work, range(4))) == 0
    assert caplog.text == ""
    EmbeddingCache(tmp_path, "m", "w", PREPROCESSING, max_bytes=4 * size).store("x", FEATURES, (30, 20))
    assert folder_size(tmp_path) <= 4 * size


def used_before(path: Path) -> int:
    """Let a file be used last long ago, in the order of the files' numbers, and return its size."""
    os.utime(path, (int(path.stem), int(path.stem)))
    return path.stat().st_size


def folder_size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
