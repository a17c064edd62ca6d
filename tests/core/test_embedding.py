"""Embeddings survive the round trip through a file; every broken file is an EmbeddingError."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from segany.core import embedding as embedding_file
from segany.core.embedding import Embedding
from segany.core.errors import ConfigError, EmbeddingError, OutputError
from segany.core.preprocessing import Preprocessing

RNG = np.random.default_rng(0)


def embedding(*features: np.ndarray) -> Embedding:
    return Embedding(
        features=features or (RNG.normal(size=(4, 3, 2)).astype(np.float32),),
        size_hw=(30, 20),
        preprocessing=Preprocessing(input_size=512),
        model="mobile_sam",
        encoder_id="abc",
        content_id="def",
    )


def test_loading_restores_what_was_saved(tmp_path: Path) -> None:
    original = embedding(*(RNG.normal(size=(2, i + 1, 3)).astype(np.float32) for i in range(12)))
    assert original.save(tmp_path / "new" / "e.safetensors") == tmp_path / "new" / "e.safetensors"
    copy = Embedding.load(tmp_path / "new" / "e.safetensors")
    assert len(copy.features) == 12
    for one, other in zip(original.features, copy.features, strict=True):
        np.testing.assert_array_equal(one, other)
        assert other.dtype == np.float32
        assert not other.flags.writeable
    for name in ("size_hw", "preprocessing", "model", "encoder_id", "content_id"):
        assert getattr(copy, name) == getattr(original, name)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["e.safetensors"]


def test_half_precision_takes_half_the_space(tmp_path: Path) -> None:
    original = embedding(RNG.normal(size=(8, 64, 64)).astype(np.float32), np.float32([6e4, 1e-7, -0.0]))
    whole, half = original.save(tmp_path / "whole"), original.save(tmp_path / "half", precision="fp16")
    assert original.to_bytes() == whole.read_bytes()
    assert original.to_bytes(precision="fp16") == half.read_bytes()
    assert half.stat().st_size < 0.52 * whole.stat().st_size
    copy = Embedding.load(half)
    for one, other in zip(original.features, copy.features, strict=True):
        np.testing.assert_array_equal(other, one.astype(np.float16))
        assert other.dtype == np.float32
    assert copy.encoder_id == original.encoder_id


def test_what_half_precision_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EmbeddingError, match=r"float16 cannot hold, up to 70000"):
        embedding(np.float32([7e4])).save(tmp_path / "half", precision="fp16")
    with pytest.raises(ConfigError, match="'fp32' or 'fp16', got 'fp8'"):
        embedding().save(tmp_path / "half", precision="fp8")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_layout_of_memory_does_not_matter(tmp_path: Path) -> None:
    base = RNG.normal(size=(4, 6, 8)).astype(np.float32)
    strided, turned = base[::2, 1::2, ::-1], base.transpose(2, 0, 1)
    big_endian = base.astype(">f4")
    embedding(strided, turned, big_endian).save(tmp_path / "e")
    for one, other in zip((strided, turned, base), Embedding.load(tmp_path / "e").features, strict=True):
        np.testing.assert_array_equal(one, other)


def test_missing_folder_and_foreign_files(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    (tmp_path / "empty").touch()
    save_file({"weight": np.zeros(3, np.float32)}, tmp_path / "weights")
    for name, message in [
        ("missing", "There is no file"),
        (".", "is a folder"),
        ("text", "damaged, or not an embedding"),
        ("empty", "damaged, or not an embedding|cannot be read"),
        ("weights", "not an embedding that segany wrote"),
    ]:
        with pytest.raises(EmbeddingError, match=message):
            Embedding.load(tmp_path / name)


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    data = embedding().save(tmp_path / "e").read_bytes()
    for length in range(0, len(data), 37):
        (tmp_path / "cut").write_bytes(data[:length])
        with pytest.raises(EmbeddingError, match="cut"):
            Embedding.load(tmp_path / "cut")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 3}, r"format version 3.*Install a newer segany"),
        ({"size_hw": [3]}, r"header of .* is damaged"),
        ({"preprocessing": {"input_size": 0, "mean_rgb": [], "std_rgb": []}}, r"header of .* is damaged"),
        ({"preprocessing": {"crop": 1}}, r"header of .* is damaged"),
        ({"model": None}, None),
    ],
)
def test_headers_are_checked(tmp_path: Path, change: dict, message: str | None) -> None:
    embedding().save(tmp_path / "e")
    header = {
        "format_version": 2, "model": "m", "encoder_id": "e", "content_id": "i", "size_hw": [3, 4],
        "preprocessing": {"input_size": 8, "resize": "square", "mean_rgb": [1, 2, 3], "std_rgb": [1, 2, 3]},
    }  # fmt: skip
    header.update(change)
    header = {key: value for key, value in header.items() if value is not None}
    save_file(load_file(tmp_path / "e"), tmp_path / "e2", metadata={"segany_embedding": json.dumps(header)})
    with pytest.raises(EmbeddingError, match=message or "damaged"):
        Embedding.load(tmp_path / "e2")


def test_missing_feature_is_noticed(tmp_path: Path) -> None:
    embedding().save(tmp_path / "e")
    with embedding_file.safe_open(tmp_path / "e", framework="numpy") as file:
        metadata = file.metadata()
    save_file({"features.1": np.zeros(2, np.float32)}, tmp_path / "e2", metadata=metadata)
    with pytest.raises(EmbeddingError, match="damaged"):
        Embedding.load(tmp_path / "e2")


def test_saving_to_an_unwritable_path_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"e\.safetensors could not be written"):
        embedding().save(tmp_path / "file" / "e.safetensors")


def test_names_too_long_and_circles_of_links(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path / ("x" * 300), tmp_path / "loop"):
        with pytest.raises(EmbeddingError):
            Embedding.load(path)


def test_a_pipe_is_refused_without_waiting_for_a_writer(tmp_path):
    os.mkfifo(tmp_path / "a.safetensors")
    with pytest.raises(EmbeddingError, match=r"a\.safetensors is not a file but a pipe"):
        Embedding.load(tmp_path / "a.safetensors")
