from __future__ import annotations

import json
import os

import pytest
from tests.evaluate.painting import Images, PaintingModel, blocks
from tests.models_for_tests import small_sam

from segany import ConfigError, DataError, OutputError
from segany.core.progress import ProgressEvent
from segany.evaluate.protocols import BoxProtocol, ClickProtocol
from segany.evaluate.results import ModelFacts, Results
from segany.jobs.evaluation import EvaluationTask, LoadedModel, evaluate
from segany.runtime.torch_model import TorchModel

FACTS = ModelFacts("painting", "no weights", "none")
PROTOCOLS = (ClickProtocol(), BoxProtocol())


def run(folder, data, model=None, protocols=PROTOCOLS, facts=FACTS, source="", **options) -> Results:
    loaded = LoadedModel(model or PaintingModel())
    return evaluate(EvaluationTask(data, loaded, facts, tuple(protocols), "little", source), folder, **options)


def test_a_dataset_is_measured(tmp_path):
    results = run(tmp_path, Images(blocks("a"), "torn", blocks("c", empty=True)))
    assert (results.measured, results.left_out) == (2, 1)
    assert [(one.name, one.reason) for one in results.skipped] == [("torn", "torn is damaged.")]
    assert results.numbers(PROTOCOLS[1]) == {"objects": 4, "box_miou": 1}
    said = json.loads(json.dumps(results.as_json()))
    assert said["protocols"]["clicks"]["settings"] == {"version": 1, "counts": [1, 3, 5], "rule": "sam"}
    assert said["protocols"]["clicks"]["numbers"]["miou_3"] == 1
    assert said["model"] == {"name": "painting", "encoder_id": "no weights", "weights_id": "none"}
    assert said["skipped"] == [{"name": "torn", "reason": "torn is damaged."}]


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path):
    data = Images(blocks("a"), blocks("b"), blocks("c"))

    def stop(event: ProgressEvent) -> None:
        if event.task == "c":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, data, progress=stop)
    again, model = Images(*data.images), PaintingModel()
    results = run(tmp_path, again, model)
    assert again.reads == ["c"]
    assert model.embedded == 1
    assert results.as_json() == run(tmp_path / "at_once", data).as_json()


def test_a_damaged_record_is_measured_again_with_a_warning(tmp_path, caplog):
    data = Images(blocks("a"), blocks("b"))
    whole = run(tmp_path, data).as_json()
    (path,) = tmp_path.rglob("b.json")
    path.write_text(path.read_text()[:-20])
    again = Images(*data.images)
    assert run(tmp_path, again).as_json() == whole
    assert again.reads == ["b"]
    assert "b.json is damaged" in caplog.text


@pytest.mark.parametrize("iou", [float("nan"), "0.5", None])
def test_a_record_of_wrong_values_is_measured_again_and_named(tmp_path, caplog, iou):
    data = Images(blocks("a"), blocks("b"))
    whole = run(tmp_path, data, protocols=[BoxProtocol()]).as_json()
    path = tmp_path / ".segany" / "b.json"
    record = json.loads(path.read_text())
    record["parts"]["box"]["value"]["records"][0]["iou"] = iou
    path.write_text(json.dumps(record))
    again = Images(blocks("a"), blocks("b"))
    assert run(tmp_path, again, protocols=[BoxProtocol()]).as_json() == whole
    assert again.reads == ["b"]
    assert f"{path} records is gone or damaged, so it is made again: box" in caplog.text


def test_one_more_protocol_measures_that_alone(tmp_path):
    data = Images(blocks("a"))
    run(tmp_path, data, protocols=[BoxProtocol()])
    model, at_once = PaintingModel(), PaintingModel()
    assert run(tmp_path, data, model).as_json() == run(tmp_path / "at_once", data, at_once).as_json()
    assert len(model.prompted) == len(at_once.prompted) - 1  # the boxes of the image


def test_results_of_another_model_are_not_taken_over(tmp_path):
    data = Images(blocks("a"))
    run(tmp_path, data)
    tuned = ModelFacts("painting", "no weights", "others")
    with pytest.raises(OutputError, match="another model"):
        run(tmp_path, data, facts=tuned)
    with pytest.raises(OutputError, match="other settings"):
        run(tmp_path, data, protocols=[ClickProtocol((1, 2))])
    assert run(tmp_path, data, facts=tuned, overwrite=True).model == tuned


def test_results_of_a_dataset_of_the_same_name_are_not_taken_over(tmp_path):
    run(tmp_path, Images(blocks("a")), source="/one/little")
    other = Images(blocks("a", empty=True))
    with pytest.raises(OutputError, match="other data"):
        run(tmp_path, other, source="/another/little")
    assert run(tmp_path, other, source="/another/little", overwrite=True).left_out == 1


def test_the_first_images_alone_and_then_more(tmp_path):
    data = Images(blocks("a"), blocks("b"), blocks("c"))
    assert run(tmp_path, data, max_images=2).measured == 2
    assert data.reads == ["a", "b"]
    assert run(tmp_path, data).measured == 3
    assert data.reads == ["a", "b", "c"]
    assert run(tmp_path, data, max_images=1).measured == 1


def test_progress_is_told_of_images(tmp_path):
    told = []
    run(tmp_path, Images(blocks("a"), blocks("b")), progress=told.append)
    assert told == [ProgressEvent("a", 0, 2, "items"), ProgressEvent("b", 1, 2, "items")]


def test_nothing_to_evaluate_is_an_error(tmp_path):
    with pytest.raises(DataError, match="little is empty"):
        run(tmp_path, Images())
    with pytest.raises(DataError, match=r"Nothing .* torn is damaged"):
        run(tmp_path, Images("torn"))
    for wrong in ({"protocols": ()}, {"protocols": (BoxProtocol(), BoxProtocol())}, {"max_images": 0}):
        with pytest.raises(ConfigError):
            run(tmp_path, Images(blocks("a")), **wrong)


def test_a_tuned_decoder_makes_another_model():
    model = small_sam()
    before = ModelFacts.of(TorchModel(model))
    model.mask_decoder.iou_token.weight.data += 0.01
    after = ModelFacts.of(TorchModel(model))
    assert before.encoder_id == after.encoder_id
    assert before.weights_id != after.weights_id


@pytest.mark.parametrize(
    "value",
    [7, None, [], {}, {"records": 7, "left_out": 0}, {"records": [7], "left_out": 0}, {"records": [], "left_out": "no"},
     {"records": [{"object": 0, "iou": "much"}], "left_out": 0},
     {"records": [{"object": 0, "iou": float("nan")}], "left_out": 0}],
)  # fmt: skip
def test_a_record_of_other_values_is_measured_again(tmp_path, value):
    data = Images(blocks("a"), blocks("b"))
    whole = run(tmp_path, data).as_json()
    (path,) = tmp_path.rglob("b.json")
    record = json.loads(path.read_text())
    record["parts"]["box"]["value"] = value
    path.write_text(json.dumps(record))
    again = Images(*data.images)
    assert run(tmp_path, again).as_json() == whole
    assert again.reads == ["b"]


GARBAGE = {"binary": b"\xff\x00", "nested": b"[" * 100_000, "number": b"7", "list": b'{"version": 2, "parts": []}'}


@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE)
def test_a_record_of_garbage_is_measured_again(tmp_path, caplog, content):
    data = Images(blocks("a"), blocks("b"))
    whole = run(tmp_path, data).as_json()
    (path,) = tmp_path.rglob("b.json")
    path.write_bytes(content)
    assert run(tmp_path, Images(*data.images)).as_json() == whole
    assert "b.json" in caplog.text


def test_a_folder_or_pipe_in_place_of_a_record_is_named(tmp_path, caplog):
    data = Images(blocks("a"), blocks("b"))
    run(tmp_path, data)
    (path,) = tmp_path.rglob("b.json")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises((OutputError, DataError), match=r"b\.json"):
        run(tmp_path, Images(*data.images))
    assert "b.json is not a file but a pipe" in caplog.text
