from __future__ import annotations

import threading
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.live_for_tests import add_picture, model_ref, picture, serving, until

from segany import (
    AutomaticConfig,
    AutomaticMaskGenerator,
    Embedding,
    ImageError,
    ImagePredictor,
    MaskPrediction,
    ModelRef,
    Prompt,
    load,
)
from segany.core.errors import SeganyError
from segany.core.progress import ProgressEvent
from segany.export import to_onnx
from segany.runtime.manifest import read_manifest
from segany.server.embeddings import Urgency
from segany.server.model_host import ModelHost
from segany.server.page_decoder import PageDecoder


@pytest.fixture(scope="module")
def ref(tmp_path_factory: pytest.TempPathFactory) -> ModelRef:
    return model_ref(tmp_path_factory.mktemp("model"))


def write_picture(folder: Path, seed: int) -> Path:
    path = folder / f"{seed}.png"
    path.write_bytes(picture(seed))
    return path


def request(host: ModelHost, folder: Path, seed: int, urgency: Urgency = Urgency.OPENED) -> Future[Embedding]:
    return host.embeddings.request(f"sha256 of {seed}", lambda: write_picture(folder, seed), urgency)


def test_model_is_loaded_and_told_of(tmp_path: Path, ref: ModelRef) -> None:
    told: list[dict[str, Any]] = []
    host = ModelHost(ref, tmp_path, told.append)
    assert (host.description()["state"], host.model_version) == ("loading", None)
    host.start()
    try:
        until(lambda: host.description()["state"] == "ready")
        shape = {"input_size": 256, "resize": "longest_side"}
        assert host.description() == {"name": "small", "state": "ready", "message": "", "preprocessing": shape}
        assert host.model_version == f"small@{ref.load().weights_sha256[:16]}"
        assert told[0] == {"type": "model", "name": "small.safetensors", "state": "loading", "message": ""}
        assert told[-1] == {"type": "model", **host.description()}
    finally:
        host.close()


@pytest.mark.parametrize("name", ["missing.pt", "no_such_model"])
def test_model_that_cannot_be_loaded_says_why(tmp_path: Path, name: str) -> None:
    with serving(tmp_path, ModelRef(str(tmp_path / name) if "." in name else name)) as state:
        host = state.model_host
        early = request(host, tmp_path, 0)
        until(lambda: host.description()["state"] == "failed")
        assert name in host.description()["message"]
        assert state.events.told[-1] == {"type": "model", **host.description()}
        assert host.model_version is None
        for future in (early, request(host, tmp_path, 1)):
            with pytest.raises(SeganyError, match=name):
                future.result(10)
        with pytest.raises(SeganyError, match=name):
            host.model_for_jobs()
        assert host.embedding_bytes("sha256 of 0") is None


def test_server_without_a_model_says_so(tmp_path: Path) -> None:
    with serving(tmp_path, None) as state:
        until(lambda: state.model_host.description()["state"] == "failed")
        assert "None was chosen" in state.model_host.description()["message"]


def test_embedding_file_is_that_of_the_image_in_float16(tmp_path: Path, ref: ModelRef) -> None:
    with serving(tmp_path, ref) as state:
        assert state.model_host.embedding_bytes("sha256 of 0") is None
        embedding = request(state.model_host, tmp_path, 0).result(60)
        data = state.model_host.embedding_bytes("sha256 of 0")
        assert data is not None
        (tmp_path / "file").write_bytes(data)
        read = Embedding.load(tmp_path / "file")
        assert (read.content_id, read.encoder_id, read.size_hw) == (
            embedding.content_id,
            embedding.encoder_id,
            embedding.size_hw,
        )
        expected = embedding.arrays()[0].astype(np.float16).astype(np.float32)
        np.testing.assert_array_equal(read.arrays()[0], expected)


def test_embedding_that_left_the_memory_comes_from_disk(tmp_path: Path, ref: ModelRef) -> None:
    with serving(tmp_path, ref, max_embedding_bytes=1) as state:
        host = state.model_host
        first = request(host, tmp_path, 0).result(60)
        assert host.embeddings.get("sha256 of 0") is first
        request(host, tmp_path, 1).result(60)
        assert host.embeddings.get("sha256 of 0") is None
        assert host.embedding_bytes("sha256 of 0") is not None
        again = request(host, tmp_path, 0).result(60)
        np.testing.assert_array_equal(again.arrays()[0], first.arrays()[0])
        np.testing.assert_array_equal(again.arrays()[0], ImagePredictor(ref.load()).embed(picture(0)).arrays()[0])


def test_embeddings_on_disk_are_bounded(tmp_path: Path, ref: ModelRef) -> None:
    host = ModelHost(ref, tmp_path, lambda _: None, max_disk_bytes=0)
    host.start()
    try:
        for seed in range(3):
            request(host, tmp_path, seed).result(60)
    finally:
        host.close()
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1


def test_opened_image_is_encoded_before_all_others(tmp_path: Path, ref: ModelRef) -> None:
    order: list[int] = []
    host = ModelHost(ref, tmp_path / "cache", lambda _message: None)

    def note(seed: int) -> Path:
        order.append(seed)
        return write_picture(tmp_path, seed)

    asked = [(0, Urgency.PREFETCH), (1, Urgency.JOB), (2, Urgency.OPENED), (3, Urgency.OPENED), (4, Urgency.PREFETCH)]
    futures = [host.embeddings.request(str(seed), lambda seed=seed: note(seed), urgency) for seed, urgency in asked]
    urgent_now = host.embeddings.request("0", lambda: note(0), Urgency.OPENED)
    withdrawn = futures.pop()
    assert withdrawn.cancel()
    host.start()
    try:
        for future in (*futures, urgent_now):
            future.result(60)
        assert order == [0, 3, 2, 1]
    finally:
        host.close()


def test_unreadable_image_fails_alone(tmp_path: Path, ref: ModelRef) -> None:
    (tmp_path / "text.png").write_text("no image")
    with serving(tmp_path, ref) as state:
        bad = state.model_host.embeddings.request("bad", lambda: tmp_path / "text.png")
        with pytest.raises(ImageError, match=r"text\.png"):
            bad.result(60)
        assert request(state.model_host, tmp_path, 0).result(60).size_hw == (120, 180)


def test_embedding_is_kept_in_memory_where_the_disk_cannot_be_written(
    tmp_path: Path, ref: ModelRef, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "taken").write_text("a file where a folder is wanted")
    host = ModelHost(ref, tmp_path / "taken", lambda _message: None)
    host.start()
    try:
        assert request(host, tmp_path, 0).result(60).size_hw == (120, 180)
        assert host.embeddings.get("sha256 of 0") is not None
        assert "in memory only" in caplog.text
    finally:
        host.close()


def test_clicks_are_answered_while_automatic_masks_are_searched(tmp_path: Path, ref: ModelRef) -> None:
    with serving(tmp_path, ref) as state:
        host = state.model_host
        embedding = request(host, tmp_path, 0).result(60)
        prompt = Prompt(points_xy=[[90, 60]])
        alone = host.decode(lambda predictor: predictor.predict(embedding, prompt)).result(60)
        model, version = host.model_for_jobs()
        assert version == host.model_version
        seen: list[int] = []
        clicks: list[Future[Any]] = []
        answered_at: list[int] = []

        def click(event: ProgressEvent) -> None:
            seen.append(event.done)
            if len(clicks) < 3:
                clicks.append(host.decode(lambda predictor: predictor.predict(embedding, prompt)))
                clicks[-1].add_done_callback(lambda _future: answered_at.append(seen[-1]))

        config = AutomaticConfig(points_per_side=12)
        found = AutomaticMaskGenerator(model, config).generate(embedding, progress=click)
        assert len(answered_at) == 3
        assert max(answered_at) < 12 * 12  # before the end of the search
        for future in clicks:
            np.testing.assert_array_equal(future.result().low_res_logits, alone.low_res_logits)
        expected = AutomaticMaskGenerator(ref.load(), config).generate(embedding)
        assert found.rle_counts == expected.rle_counts


def test_encoding_and_clicks_at_once_give_the_same_values(tmp_path: Path, ref: ModelRef) -> None:
    with serving(tmp_path, ref) as state:
        host, prompt = state.model_host, Prompt(points_xy=[[90, 60]])
        embedding = request(host, tmp_path, 0).result(60)
        alone = host.decode(lambda predictor: predictor.predict(embedding, prompt)).result(60)
        encoding = [request(host, tmp_path, seed) for seed in range(1, 4)]
        while not all(future.done() for future in encoding):
            click = host.decode(lambda predictor: predictor.predict(embedding, prompt)).result(60)
            np.testing.assert_array_equal(click.low_res_logits, alone.low_res_logits)
        predictor = ImagePredictor(ref.load())
        for seed, future in enumerate(encoding, start=1):
            np.testing.assert_array_equal(future.result().arrays()[0], predictor.embed(picture(seed)).arrays()[0])


def test_closing_ends_what_waits(tmp_path: Path, ref: ModelRef) -> None:
    host = ModelHost(ref, tmp_path / "cache", lambda _message: None)
    waiting = [request(host, tmp_path, seed) for seed in range(3)]
    host.start()
    host.close()
    for future in waiting:
        assert future.done()
    with pytest.raises(SeganyError, match="stopping"):
        request(host, tmp_path, 9).result(10)
    assert not any(thread.name == "model" for thread in threading.enumerate())


@pytest.mark.weights
def test_mobile_sam_answers_with_the_predictors_masks(tmp_path: Path, mobile_sam_path: Path) -> None:
    predictor, prompt = ImagePredictor(ModelRef(str(mobile_sam_path)).load()), Prompt(points_xy=[[450, 300]])
    expected = predictor.predict(predictor.embed(picture(0, (600, 900))), prompt)
    for _ in range(2):  # computed, then from disk
        with serving(tmp_path, ModelRef(str(mobile_sam_path))) as state:
            first = next(state.store.items.iterate(), None)
            item = state.store.items.get(add_picture(state.store, 0, (600, 900))) if first is None else first
            host = state.model_host
            embedding = host.embeddings.request(item.sha256, partial(state.store.items.file, item.id)).result(120)
            click = host.decode(partial(_predict, embedding, prompt)).result(60)
            np.testing.assert_array_equal(click.masks, expected.masks)
            np.testing.assert_array_equal(click.low_res_logits, expected.low_res_logits)


def _predict(embedding: Embedding, prompt: Prompt, predictor: ImagePredictor) -> MaskPrediction:
    return predictor.predict(embedding, prompt)


@pytest.mark.slow
def test_the_decoder_is_exported_when_a_page_wants_it_and_only_its_files_are_given(
    tmp_path: Path, ref: ModelRef
) -> None:
    exported = tmp_path / "export"
    to_onnx(load(ref.model, device="cpu"), exported)
    host = ModelHost(ModelRef(str(exported)), tmp_path, lambda _: None, page_decoder=PageDecoder(tmp_path / "decoders"))
    host.start()
    try:
        until(lambda: host.description()["state"] == "ready")
        assert host.decoder_file("manifest.json") is None
        host.export_decoder()
        until(lambda: host.description().get("decoder"))
        assert host.decoder_file("manifest.json") == exported / "manifest.json"
        decoder = read_manifest(exported).files["decoder"].path
        assert host.decoder_file(decoder) == exported / decoder
        for name in ("../export/manifest.json", read_manifest(exported).files["encoder"].path, "", "manifest.json/"):
            assert host.decoder_file(name) is None
    finally:
        host.close()


def test_a_host_without_a_decoder_for_pages_gives_none(tmp_path: Path, ref: ModelRef) -> None:
    host = ModelHost(ref, tmp_path, lambda _: None)
    host.export_decoder()
    assert host.decoder_file("manifest.json") is None
    host.close()
