"""Rounds of the data engine on synthetic shapes with a model of a million parameters."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.store_for_tests import change, new_id, save
from typer.testing import CliRunner

from segany import ConflictError, DataError, Instances, UnknownModelError, load
from segany.cli.app import app
from segany.core.errors import CanceledError, ConfigError
from segany.data.shapes import Shapes
from segany.engine import (
    RETRAIN,
    EngineRules,
    current_model,
    retrain_handler,
    roll_back,
    start,
    status,
    submit_retrain,
)
from segany.engine.dataset import SnapshotDataset, missing_labels, take_snapshot
from segany.jobs.queue import JobQueue, QueueConfig
from segany.models.model_file import save_model
from segany.models.registry import build_model
from segany.models.sam.model import Sam
from segany.store import Job, Label, ModelVersion, NewItem, Store
from segany.train.init import initialize
from segany.train.recipes.shapes import SIDE, TINY_SAM

RULES = EngineRules(
    overrides=(
        f"items.side={SIDE}", "task.iterations=2", f"task.loss_side={SIDE // 4}", "task.focal_weight=5",
        "task.dice_weight=5", "loop.steps=24", "loop.batch_size=8", "loop.lr=2e-3", "loop.save_every=4",
        "loop.validate_every=none", "loop.validate_first=false",
    ),
    min_train=5,
    min_val=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    module = build_model(TINY_SAM, "tiny")
    assert isinstance(module, Sam)
    initialize(module, 0)
    return save_model(module, tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / "project", "Shapes") as opened:
        yield opened


def annotate(store: Store, count: int, source: str = "assisted", seed: int = 0) -> None:
    """Images of shapes, finished."""
    shapes = Shapes(count, SIDE, seed=seed)
    for index in range(count):
        annotated = shapes.read(index)
        with io.BytesIO() as file:
            Image.fromarray(annotated.image).save(file, "png")
            data = file.getvalue()
        sha256 = store.blobs.put(data, "image/png", SIDE, SIDE)
        [item] = store.items.add([NewItem(annotated.name, sha256, SIDE, SIDE, "image/png", len(data))])
        store.annotations.add_instances(item, new_id(), annotated.instances, "ada", source=source)  # type: ignore[arg-type]
        store.items.set_state(item, "done")


def run(store: Store, job: Job) -> Job:
    """Do the jobs of the project until this one has ended."""
    with JobQueue(store, {RETRAIN: retrain_handler(store)}, QueueConfig(workers=2)) as queue:
        queue.wake()
        while (ended := store.jobs.get(job.id)).state in ("queued", "running"):
            time.sleep(0.02)
    return ended


def retrain(store: Store, rules: EngineRules = RULES) -> ModelVersion:
    ended = run(store, submit_retrain(store, rules))
    assert ended.state == "done", ended.message
    return store.models.get(int(ended.result["version"]))


# Rules and snapshots.


@pytest.mark.parametrize(
    "changes",
    [
        {"stage": "manual"},
        {"recipe": "../evil.py"},
        {"min_val": 0},
        {"confidence": 1.0},
        {"hint_seconds": float("nan")},
    ],
)
def test_rules_are_checked(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        replace(EngineRules(), **changes)  # type: ignore[arg-type]


def test_rules_are_those_of_the_project(store: Store, model: Path) -> None:
    assert EngineRules.of(store) == EngineRules()
    start(store, str(model), RULES)
    assert EngineRules.of(store) == RULES
    assert EngineRules.from_json(json.loads(json.dumps(RULES.as_json()))) == RULES
    store.update_project(settings={"engine": {"recipes": "x"}})
    with pytest.raises(ConfigError, match="no rule 'recipes'"):
        EngineRules.of(store)


def test_only_finished_masks_by_people_are_trained_on(store: Store) -> None:
    annotate(store, 12)
    annotate(store, 12, source="auto", seed=1)
    snapshot = take_snapshot(store, new_id(), replace(RULES, min_val=1))
    assert {item.name[:8] for item in store.snapshots.objects(snapshot.id, "train")} == {"shapes-0"}
    done = store.items.page().items
    train = next(item for item in done if item.split == "train" and item.name.startswith("shapes-0"))
    store.items.set_state(train.id, "in_progress")
    later = take_snapshot(store, new_id(), replace(RULES, min_val=1))
    assert train not in store.snapshots.objects(later.id, "train")
    assert train.name in {item.name for item in store.snapshots.objects(snapshot.id, "train")}  # frozen


def test_training_and_validation_have_no_image_in_common(store: Store) -> None:
    annotate(store, 20)
    snapshot = take_snapshot(store, new_id(), replace(RULES, min_val=1))
    train, val = (SnapshotDataset.of(store, snapshot.id, split) for split in ("train", "val"))
    assert set(train.names).isdisjoint(val.names)
    assert all(item.split == "train" for item in store.snapshots.objects(snapshot.id, "train"))
    annotated = train.read(0)
    shape = next(one for index in range(20) if (one := Shapes(20, SIDE).read(index)).name in annotated.name)
    assert np.array_equal(annotated.image, shape.image)
    assert annotated.objects.rle_counts == shape.objects.rle_counts


def test_validation_masks_that_a_model_proposed_are_left_out(store: Store) -> None:
    annotate(store, 20)
    val = next(item for item in store.items.page().items if item.split == "val")
    [first, *_] = store.annotations.objects(val.id)
    proposed = change(source="auto", counts=first.counts)
    save(store, val.id, proposed)
    save(store, val.id, change(proposed.object_id, proposed.revision_id, counts=first.counts, source="manual"))
    snapshot = take_snapshot(store, new_id(), replace(RULES, min_val=1))
    ids = {state.id for states in store.snapshots.objects(snapshot.id, "val").values() for state in states}
    assert first.id in ids
    assert proposed.object_id not in ids


@pytest.mark.parametrize(("name", "what"), [("min_train", "train"), ("min_val", "validate")])
def test_too_few_masks_says_how_many(store: Store, model: Path, name: str, what: str) -> None:
    annotate(store, 20)
    start(store, str(model))
    ended = run(store, submit_retrain(store, replace(RULES, **{name: 10_000})))  # type: ignore[arg-type]
    assert ended.state == "failed"
    assert re.search(rf"There are \d+ masks to {what} on, and the rules want 10000", ended.message)
    assert [one.state for one in store.models.list()] == ["current"]


def test_a_label_that_validation_lacks_is_named(store: Store) -> None:
    annotate(store, 20)
    store.labels.replace(store.labels.current().version, [Label(0, "disc")], "ada")
    item = next(item for item in store.items.page().items if item.split == "train")
    [state, *_] = store.annotations.objects(item.id)
    save(store, item.id, change(state.id, state.revision_id, counts=state.counts, label_id=0))
    store.items.set_state(item.id, "done")
    snapshot = take_snapshot(store, new_id(), replace(RULES, min_val=1))
    assert missing_labels(store, snapshot.id) == ["disc"]


def test_an_image_that_is_gone_is_named(store: Store) -> None:
    annotate(store, 20)
    snapshot = take_snapshot(store, new_id(), replace(RULES, min_val=1))
    item = next(iter(store.snapshots.objects(snapshot.id, "train")))
    store.blobs.path(item.sha256).unlink()
    with pytest.raises(DataError, match=rf"needs {item.name}, whose file is gone"):
        SnapshotDataset.of(store, snapshot.id, "train")


# Rounds.


def test_a_better_candidate_is_promoted_and_rolled_back(store: Store, model: Path) -> None:
    annotate(store, 60)
    first = start(store, str(model), RULES)
    found = status(store)
    assert (found.new_masks, found.train_masks) == (
        found.train_masks,
        len(store.snapshots.heads("train", ["done"], ["assisted"])),
    )
    version = retrain(
        store, replace(RULES, overrides=(*RULES.overrides, "loop.steps=90", "task.iterations=1", "task.repeats=0"))
    )
    assert version.state == "current", version.message
    assert version.parent_id == first.id
    assert version.figures["difference"] > 0
    assert version.figures["interval"][0] > 0
    assert version.figures["after"]["miou_1"] is not None
    assert version.figures["gains"]
    assert status(store).new_masks == 0
    ref = current_model(store)
    assert ref is not None
    loaded = load(ref.model, device="cpu")
    assert loaded.encoder_id == load(model, device="cpu").encoder_id
    assert loaded.weights_sha256 != load(model, device="cpu").weights_sha256
    assert not (store.folder / "engine" / version.id).exists()
    assert roll_back(store).number == 1
    with pytest.raises(ConflictError, match="began with"):
        roll_back(store)
    assert roll_back(store, 2).number == 2


def test_a_candidate_of_wrong_masks_is_refused(store: Store, model: Path) -> None:
    annotate(store, 60)
    start(store, str(model), RULES)
    retrain(store)
    good = store.models.current()
    for item in store.items.page().items:  # as if people had drawn them elsewhere
        if item.split == "train":
            for state in store.annotations.objects(item.id):
                mask = Instances([state.counts], item.size_hw).mask(0)
                counts = Instances.from_masks(np.roll(mask, SIDE // 2, axis=1)).rle_counts[0]
                save(store, item.id, change(state.id, state.revision_id, counts=counts))
            store.items.set_state(item.id, "done")
    refused = retrain(store)
    assert (refused.number, refused.state) == (3, "refused")
    assert store.models.current() == good
    assert refused.message.startswith("Refused: its mean IoU")
    assert refused.figures["losses"]
    assert store.models.make_current(3).number == 3  # by hand


def test_a_training_that_diverges_leaves_the_incumbent(store: Store, model: Path) -> None:
    annotate(store, 30)
    start(store, str(model), RULES)
    found = retrain(
        store, replace(RULES, min_val=1, overrides=(*RULES.overrides, "loop.lr=1e30", "loop.clip_norm=none"))
    )
    assert found.state == "refused"
    assert "training failed" in found.message
    assert store.models.current() == store.models.get(1)


def test_a_canceled_retraining_changes_nothing_and_the_next_one_works(store: Store, model: Path) -> None:
    annotate(store, 30)
    start(store, str(model), RULES)
    job = submit_retrain(store, replace(RULES, min_val=1))

    def cancel(_event: object) -> None:
        raise CanceledError("Enough.")

    with pytest.raises(CanceledError):
        retrain_handler(store)(job, cancel)
    assert [one.state for one in store.models.list()] == ["current", "candidate"]
    store.jobs.cancel(job.id)
    assert retrain(store, replace(RULES, min_val=1)).number == 3
    assert store.models.get(2).state == "refused"


def test_two_retrainings_are_one_after_the_other(store: Store, model: Path) -> None:
    annotate(store, 30)
    with pytest.raises(ConflictError, match="was not started"):
        submit_retrain(store)
    start(store, str(model), replace(RULES, min_val=1))
    job = submit_retrain(store)
    assert submit_retrain(store) == job
    ended = run(store, job)
    assert ended.state == "done", ended.message


# The command.


def engine(*arguments: object) -> dict[str, object]:
    result = CliRunner().invoke(app, ["engine", *map(str, arguments), "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)  # type: ignore[no-any-return]


def test_a_round_by_the_command_that_is_killed_and_goes_on(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    with Store.create(folder, "Shapes") as store:
        annotate(store, 40)
    settings = [part for one in RULES.overrides for part in ("--set", one)]
    assert (
        engine("start", "--project", folder, "--model", model, "--retrain-after", 10, "--min-val", 1, *settings)[
            "number"
        ]
        == 1
    )
    assert engine("status", "--project", folder)["is_due"] is True
    command = [sys.executable, "-c", "from segany.cli import main; main()", "engine", "retrain"]
    command += ["--project", str(folder), "--json", "--set", "loop.steps=16"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(folder.glob("engine/*/run/state.safetensors")):
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout)["number"] == 2
    found = engine("status", "--project", folder)
    assert [one["number"] for one in found["versions"]] == [1, 2]  # type: ignore[union-attr, index]
    assert found["job"] is None
    assert engine("promote", "1", "--project", folder)["state"] == "current"
    plain = CliRunner().invoke(app, ["engine", "status", "--project", str(folder)])
    assert "assisted-manual stage" in plain.stdout


def test_mistakes_are_said(tmp_path: Path, model: Path) -> None:
    with Store.create(tmp_path / "project"):
        pass
    for arguments, message in (
        (["status", "--project", str(tmp_path / "none")], "is no project"),
        (["retrain", "--project", str(tmp_path / "project")], "was not started"),
        (["start", "--project", str(tmp_path / "project"), "--recipe", "mae"], "recipe must be one of"),
        (["start", "--project", str(tmp_path / "project"), "--set", "loop.stepz=3"], "stepz"),
        (["start", "--project", str(tmp_path / "project"), "--model", "sam_vit_x"], "sam_vit_x"),
        (["rollback", "--project", str(tmp_path / "project")], "was not started"),
    ):
        result = CliRunner().invoke(app, ["engine", *arguments])
        assert result.exit_code == 2
        assert message in " ".join(result.stderr.split())
    with Store.open(tmp_path / "project") as store, pytest.raises(UnknownModelError):
        start(store, "sam_vit_x")
