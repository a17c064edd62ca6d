from __future__ import annotations

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
