from __future__ import annotations

import json

import numpy as np
from tests.evaluate.painting import Images, PaintingModel, blocks

from segany import ImagePredictor
from segany.core.rle import pairwise_mask_iou
from segany.evaluate.failures import CAPTION, TARGET_COLOR, TILE, Failure, draw_failure, worst_objects
from segany.evaluate.protocols import AutomaticProtocol, BoxProtocol, ClickCountProtocol, ClickProtocol, ImageSubject
from segany.evaluate.recall import count_found
from segany.evaluate.report import write_report
from segany.evaluate.results import ModelFacts, Results
from segany.evaluate.tracking import VideoProtocol
from segany.imaging.image import read_image
from segany.jobs.evaluation import EvaluationTask, LoadedModel, evaluate

PROTOCOLS = (ClickProtocol((1, 2)), BoxProtocol(), ClickCountProtocol())


def test_a_report_holds_numbers_a_plot_and_the_worst_objects(tmp_path):
    data = Images(blocks("a"), blocks("b"), blocks("c", empty=True))
    model = PaintingModel()
    subject_of = lambda one: ImageSubject(ImagePredictor(model), one)  # noqa: E731
    facts = ModelFacts("painting", "", "")
    results = evaluate(EvaluationTask(data, LoadedModel(model), facts, tuple(PROTOCOLS), "little"), tmp_path)
    worst = worst_objects(results, PROTOCOLS[0], 4)
    assert [(one.name, one.index) for one in worst] == [("a", 1), ("b", 1), ("c", 1), ("a", 0)]
    assert worst[0].score == 36 / 236
    files = write_report(results, data, subject_of, tmp_path, failures=5)
    assert [path.name for path in files] == [
        "results.json", "clicks.jsonl", "box.jsonl", "noc.jsonl", "curves.png",
        "clicks_failures.png", "box_failures.png", "noc_failures.png",
    ]  # fmt: skip
    assert json.loads(files[0].read_text())["protocols"]["box"]["numbers"]["box_miou"] == 1
    assert json.loads(files[2].read_text().splitlines()[0]) == {"name": "a", "records": results.records["box"]["a"]}
    pictures = [read_image(path) for path in files[4:]]
    assert all(picture.std() > 5 for picture in pictures)
    assert len(pictures[1]) > 2 * (TILE + CAPTION)  # 5 pictures, 4 a row
    assert [path.name for path in write_report(results, data, subject_of, tmp_path, failures=0)] == [
        "results.json", "clicks.jsonl", "box.jsonl", "noc.jsonl", "curves.png"
    ]  # fmt: skip


def test_without_anything_measured_there_is_no_plot(tmp_path):
    only_the_first_frame: dict[str, list[dict[str, object]]] = {
        "clip": [{"object": 1, "frames": 0, "j": None, "f": None}]
    }
    overlaps = count_found(pairwise_mask_iou([], []), [])
    counts = {"objects": overlaps.objects.tolist(), "found": overlaps.found.tolist()}
    no_objects = [{"masks": 3, "mask": counts, "box": counts}]
    for protocol, records in (
        (VideoProtocol(), only_the_first_frame),
        (AutomaticProtocol(), {"a": no_objects}),
        (ClickProtocol(), {"a": []}),
    ):
        facts = ModelFacts("m", "", "")
        results = Results("little", facts, (protocol,), 1, 0, (), {protocol.name: records})
        files = write_report(results, Images(), lambda one: one, tmp_path)
        assert [path.name for path in files] == ["results.json", f"{protocol.name}.jsonl"]
        assert json.loads(files[0].read_text())["protocols"][protocol.name]["numbers"]["objects"] == 0


def test_a_failure_shows_annotation_and_prediction_where_they_are():
    protocol = ClickProtocol((1,))
    subject = ImageSubject(ImagePredictor(PaintingModel()), blocks())
    tile = draw_failure(subject, protocol, Failure("blocks", 0, 0.08))
    assert tile.shape == (TILE + CAPTION, TILE, 3)
    # The object is 20 wide; with its margin, columns 0 to 33 and rows 0 to 23 are shown.
    scale = TILE / 34
    near = np.linalg.norm(tile.astype(int) - TARGET_COLOR, axis=2) < 60
    rows, columns = np.nonzero(near[:TILE])
    top = (TILE - round(24 * scale)) // 2
    assert abs(columns.min() - 5 * scale) < 5
    assert abs(columns.max() - 25 * scale) < 5
    assert abs(rows.min() - top - 5 * scale) < 5
