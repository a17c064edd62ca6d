"""The front end in Chromium, with MobileSAM's real weights: it makes PyTorch's masks from what an export holds.

`make browser` installs what this needs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save
from tests.export.exported import FAMILIES, exported, small_model

import segany
from segany import Embedding, Prompt
from segany.core.preprocessing import Preprocessing
from segany.export import onnx as exporting
from segany.export.check import scenes, tolerant_mask_iou
from segany.export.graphs import Graph, make_graphs
from segany.predict.image import labeled_points

pytest.importorskip("benchmarks", reason="the front end is in the repository only")

from benchmarks.web_decoder import WebDecoder
from benchmarks.web_page import open_browser, open_page, what_is_missing

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from segany.models.promptable import PromptableModel

Scene: TypeAlias = Callable[[], tuple[np.ndarray, dict[str, Prompt]]]

IMAGES = Path(__file__).parents[2] / "examples" / "images"

MIN_IOU_SAME_EMBEDDING = 0.999
MIN_IOU_OF_FLOAT16 = 0.995
"""Of masks from an embedding in float16 with those from the same in float32; 0.998 was the lowest of 84."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if missing := what_is_missing():
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def predictor(mobile_sam_path: Path) -> segany.ImagePredictor:
    return segany.ImagePredictor(segany.load(mobile_sam_path, device="cpu"))


@pytest.fixture(scope="module")
def folder(browser: Browser, predictor: segany.ImagePredictor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `to_onnx` writes, less the checks and all files that no page loads: they take a minute."""
    folder, export = tmp_path_factory.mktemp("web"), exporting._export

    def listed(model: PromptableModel) -> list[Graph]:
        return [graph for graph in make_graphs(model) if graph.name in ("encoder", "decoder")]

    def only_the_decoder(graph: Graph, path: Path, opset: int) -> None:
        if graph.name == "decoder":
            export(graph, path, opset)
        else:
            path.touch()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "make_graphs", listed)
        patch.setattr(exporting, "_export", only_the_decoder)
        exporting._write(predictor.model, folder, "fp32", [], exporting.DEFAULT_OPSET, None)  # type: ignore[arg-type]
    return folder


@pytest.fixture(scope="module")
def page(browser: Browser, folder: Path) -> Iterator[Page]:
    with open_page(browser, folder) as page:
        yield page


def landscape() -> tuple[np.ndarray, dict[str, Prompt]]:
    with Image.open(IMAGES / "coffee.png") as picture:
        image = np.array(picture.convert("RGB"))
    return image, {
        "point": Prompt(points_xy=[[480, 180]]),
        "several points": Prompt(points_xy=[[168, 124], [330, 248]], labels=[1, 0]),
        "box": Prompt(box_xyxy=[60, 40, 420, 340]),
        "box and point": Prompt(points_xy=[[300, 200]], box_xyxy=[60, 40, 420, 340]),
    }


def portrait() -> tuple[np.ndarray, dict[str, Prompt]]:
    with Image.open(IMAGES / "chelsea.png") as picture:
        image = np.array(picture.convert("RGB")).transpose(1, 0, 2)
    return image, {
        "point": Prompt(points_xy=[[93, 126]]),
        "several points": Prompt(points_xy=[[93, 126], [150.5, 200.25], [20, 400]], labels=[1, 1, 0]),
        "box": Prompt(box_xyxy=[75, 90, 240, 316]),
        "box and point": Prompt(points_xy=[[93, 126]], labels=[0], box_xyxy=[75, 90, 240, 316]),
    }


@pytest.fixture(scope="module")
def embed(predictor: segany.ImagePredictor) -> Callable[[Scene], Embedding]:
    """The embedding of a scene, computed once."""
    return cache(lambda scene: predictor.embed(scene()[0]))


@pytest.mark.weights
@pytest.mark.parametrize("scene", [landscape, portrait])
def test_masks_are_those_of_torch(
    scene: Scene,
    embed: Callable[[Scene], Embedding],
    predictor: segany.ImagePredictor,
    folder: Path,
    page: Page,
) -> None:
    _, prompts = scene()
    exact = embed(scene)
    path = exact.save(folder / f"{scene.__name__}.safetensors", precision="fp16")
    assert 2 * 2**20 < path.stat().st_size < 2 * 2**20 + 1024
    rounded = Embedding.load(path)
    web = WebDecoder(page, "/files/manifest.json", f"/files/{path.name}", threads=1)

    first = web.decode(prompts["point"])
    earlier = first.low_res_logits[first.best]
    prompts["mask"] = Prompt(mask_logits=earlier)
    prompts["mask and point"] = Prompt(points_xy=prompts["point"].points_xy, mask_logits=earlier)
    for kind, prompt in prompts.items():
        found, same = web.decode(prompt), predictor.predict(rounded, prompt)
        assert found.masks.shape == same.masks[0].shape, kind  # as many candidates, chosen by the same rule
        assert found.best == same.best_index[0]
        np.testing.assert_allclose(found.scores, same.scores[0], atol=1e-4)
        np.testing.assert_allclose(found.low_res_logits, same.low_res_logits[0], atol=1e-2)
        whole = predictor.predict(exact, prompt)
        for mask, of_torch, of_float32 in zip(found.masks, same.masks[0], whole.masks[0], strict=True):
            assert mask.any()
            assert tolerant_mask_iou(mask, of_torch) >= MIN_IOU_SAME_EMBEDDING, kind
            assert tolerant_mask_iou(mask, of_float32) >= MIN_IOU_OF_FLOAT16, kind


@pytest.mark.weights
def test_threads_make_the_same_masks(
    embed: Callable[[Scene], Embedding], folder: Path, page: Page, browser: Browser
) -> None:
    _, prompts = landscape()
    embed(landscape).save(folder / "threads.safetensors")  # in float32, which the page reads as well
    opened = ("/files/manifest.json", "/files/threads.safetensors")
    expected = WebDecoder(page, *opened).decode(prompts["box"])
    with open_page(browser, folder) as other:
        assert other.evaluate("crossOriginIsolated")
        found = WebDecoder(other, *opened, threads=2).decode(prompts["box"])
    np.testing.assert_allclose(found.low_res_logits, expected.low_res_logits, atol=1e-2)
    assert tolerant_mask_iou(found.masks[0], expected.masks[0]) >= MIN_IOU_SAME_EMBEDDING


@pytest.mark.weights
def test_a_click_takes_less_than_two_seconds(
    embed: Callable[[Scene], Embedding],
    folder: Path,
    page: Page,
    browser: Browser,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, prompts = landscape()
    path = embed(landscape).save(folder / "timed.safetensors", precision="fp16")
    web = WebDecoder(page, "/files/manifest.json", f"/files/{path.name}")
    seconds = median(web.seconds(prompts["point"], repeats=9))
    with capsys.disabled():
        print(f"\nChromium {browser.version}: MobileSAM decodes a click in {1000 * seconds:.0f} ms", end=" ")
    assert seconds < 2


@pytest.mark.weights
def test_clicks_may_overlap(embed: Callable[[Scene], Embedding], folder: Path, page: Page) -> None:
    _, prompts = landscape()
    embed(landscape).save(folder / "overlap.safetensors")
    WebDecoder(page, "/files/manifest.json", "/files/overlap.safetensors")
    x, y = prompts["point"].points_xy[0].tolist()  # type: ignore[index]
    alone, *together = page.evaluate(
        """async ([x, y]) => {
            const one = { pointsXY: [[x, y]] }, other = { pointsXY: [[x / 2, y / 2]] };
            const found = [await decoder.decode(embedding, one)];
            found.push(...await Promise.all([decoder.decode(embedding, other), decoder.decode(embedding, one)]));
            return found.map(({ scores }) => [...scores]);
        }""",
        [x, y],
    )
    assert together[1] == alone
    assert together[0] != alone


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_runs(family: str, browser: Browser, tmp_path: Path) -> None:
    image, model = scenes()[0], segany.ImagePredictor(small_model(family))
    embedding = model.embed(image)
    for file in exported(family).iterdir():
        (tmp_path / file.name).symlink_to(file)
    embedding.save(tmp_path / "e.safetensors")
    prompts = (Prompt(points_xy=[[200, 130]]), Prompt(points_xy=[[200, 130]], box_xyxy=[100, 50, 300, 250]))
    with open_page(browser, tmp_path) as page:
        web = WebDecoder(page, "/files/manifest.json", "/files/e.safetensors")
        for prompt in prompts:
            found, expected = web.decode(prompt, "multi"), model.predict(embedding, prompt, masks="multi")
            np.testing.assert_allclose(found.scores, expected.scores[0], atol=1e-3)
            overlaps = [
                tolerant_mask_iou(one, other) for one, other in zip(found.masks, expected.masks[0], strict=True)
            ]
            assert min(overlaps) > 0.99  # of seeded weights, whose masks are ragged


def test_prompts_become_what_python_makes_of_them(page: Page) -> None:
    random = np.random.default_rng(0)
    sizes = [(1, 3000), (3000, 1), (1025, 2047), *(tuple(random.integers(2, 5000, 2).tolist()) for _ in range(40))]
    for index, size_hw in enumerate(sizes):
        resize, pads = ("longest_side", "square")[index % 2], bool(index // 2 % 2)
        corners = np.sort(random.uniform(0, 1, (2, 2)), axis=0) * size_hw[::-1]
        points = random.uniform(0, 1, (index % 4, 2)) * size_hw[::-1]
        prompt = Prompt(
            points_xy=points if len(points) else None,
            labels=random.integers(0, 2, len(points)) if len(points) else None,
            box_xyxy=corners.ravel() if index % 3 == 0 or not len(points) else None,
        )
        preprocessing = Preprocessing(resize=resize)  # type: ignore[arg-type]
        embedding = Embedding((), size_hw, preprocessing, "small", "e", "i")
        expected_points, expected_labels = labeled_points(prompt, embedding, pads_boxes=pads)
        found = page.evaluate(
            """([prompt, sizeHW, manifest]) => {
                const { points, labels } = segany.labeledPoints(prompt, sizeHW, manifest);
                return { points: [...points], labels: [...labels].map(Number) };
            }""",
            [
                {
                    "pointsXY": None if prompt.points_xy is None else prompt.points_xy.tolist(),
                    "labels": None if prompt.labels is None else prompt.labels.tolist(),
                    "boxXYXY": None if prompt.box_xyxy is None else prompt.box_xyxy.tolist(),
                },
                size_hw,
                {"preprocessing": {"input_size": 1024, "resize": resize}, "pads_boxes": pads, "low_res_size": 256},
            ],
        )
        assert found["labels"] == expected_labels.tolist()
        np.testing.assert_array_equal(np.float32(found["points"]), expected_points.ravel())


def test_every_float16_is_read(page: Page) -> None:
    found = page.evaluate(
        "() => [...new Uint32Array(segany.widenFloat16(Uint16Array.from({ length: 65536 }, (_, i) => i)).buffer)]"
    )
    expected = np.arange(65536, dtype=np.uint16).view(np.float16).astype(np.float32)
    np.testing.assert_array_equal(np.array(found, dtype=np.uint32).view(np.float32), expected)


def error(page: Page, code: str) -> str:
    """What the page says where `code` fails."""
    return str(page.evaluate(f"async () => {{ try {{ {code}; return 'none'; }} catch (e) {{ return String(e); }} }}"))


def test_exports_that_cannot_be_used(folder: Path, page: Page) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    decoder = manifest["files"]["decoder"]
    (folder / "other.onnx").write_bytes(b"something else")
    other = manifest["files"] | {"decoder": decoder | {"path": "other.onnx"}}
    variants = {
        "newer": manifest | {"format_version": 9},
        "damaged": {key: value for key, value in manifest.items() if key != "files"},
        "mixed": manifest | {"files": other},
        "gone": manifest | {"files": manifest["files"] | {"decoder": decoder | {"path": "missing.onnx"}}},
        "list": [],
    }
    for name, content in variants.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    for name, message in {
        "newer.json": "has format version 9; this page reads version 2. Load a newer page",
        "damaged.json": "is damaged: it lacks files",
        "mixed.json": "other.onnx is not the file that",
        "gone.json": "missing.onnx cannot be fetched: the server answered 404. Check the address",
        "list.json": "is no manifest. Give the manifest.json",
        "other.onnx": "is no manifest: it is not JSON",
        "nowhere.json": "nowhere.json cannot be fetched: the server answered 404",
    }.items():
        found = error(page, f"await segany.openDecoder('/files/{name}')")
        assert found.startswith("SeganyError: "), found
        assert message in found


def test_files_that_are_no_embeddings(page: Page) -> None:
    header = {"format_version": 2, "model": "m", "size_hw": [2, 2], "preprocessing": {}}
    whole = save({"features.0": np.zeros((2, 3), np.float16)}, {"segany_embedding": json.dumps(header)})
    newer = save({}, {"segany_embedding": json.dumps(header | {"format_version": 3})})
    for data, message in (
        (whole, "none"),
        (whole[:-1], "a feature has 11 bytes, not 12"),
        (whole[:50], "is damaged, or none"),
        (b"", "is damaged, or none"),
        (save({"weight": np.zeros(3, np.float32)}), "is no embedding. Give one that Embedding.save wrote"),
        (save({"features.0": np.zeros(3)}, {"segany_embedding": json.dumps(header)}), "is damaged"),
        (newer, "has format version 3; this page reads version 2"),
    ):
        assert message in error(page, f"segany.readEmbedding(new Uint8Array({list(data)}).buffer)")


@pytest.mark.parametrize(
    ("embedding", "prompt", "message"),
    [
        ("{encoderId: 'another'}", "{pointsXY: [[1, 1]]}", "cannot be used with this decoder of mobile_sam"),
        ("{model: 'sam_vit_b'}", "{pointsXY: [[1, 1]]}", "made by sam_vit_b"),
        ("{features: []}", "{pointsXY: [[1, 1]]}", "features of another size: [1024], but the decoder takes [1024,["),
        ("{features: [short]}", "{pointsXY: [[1, 1]]}", "has 7 values, not 1048576"),
        ("{}", "{}", "The prompt is empty"),
        ("{}", "{pointsXY: []}", "The prompt is empty"),
        ("{}", "{pointsXY: [[81, 1]]}", "Point (81, 1) lies outside the image, which is 80 wide and 60 high"),
        ("{}", "{pointsXY: [[NaN, 1]]}", "Point (NaN, 1) lies outside"),
        ("{}", "{pointsXY: [[1, 1]], labels: [1, 0]}", "1 points but 2 labels"),
        ("{}", "{pointsXY: [[1, 1]], labels: [2]}", "labels must be 1 (foreground) or 0"),
        ("{}", "{boxXYXY: [9, 9, 3, 20]}", "has no area"),
        ("{}", "{boxXYXY: [9, 9, 90, 20]}", "Point (90, 20) lies outside"),
        ("{}", "{maskLogits: new Float32Array(80 * 60)}", "4800 values, but the model takes 256 x 256"),
        ("{}", "{pointsXY: [[1, 1]]}, {masks: 'all'}", 'masks must be "auto", "multi" or "single", got "all"'),
    ],
)
def test_what_cannot_be_decoded(embedding: str, prompt: str, message: str, page: Page) -> None:
    page.evaluate("async () => { window.strict ??= await segany.openDecoder('/files/manifest.json'); }")
    found = error(
        page,
        f"""
        const {{ model, encoder_id: encoderId, preprocessing }} = strict.manifest;
        const shape = [256, 64, 64], short = {{ data: new Float32Array(7), shape }};
        const features = [{{ data: new Float32Array(256 * 64 * 64), shape }}];
        const whole = {{ features, sizeHW: [60, 80], preprocessing, model, encoderId, contentId: "" }};
        await strict.decode({{ ...whole, ...{embedding} }}, {prompt})
        """,
    )
    assert found.startswith("SeganyError: "), found
    assert message in found
