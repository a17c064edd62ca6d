"""The job "retrain": a snapshot, a candidate that is trained on it, and the decision which model annotates on."""

from __future__ import annotations

import logging
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from segany.core.errors import CanceledError, ConflictError, TrainingError
from segany.core.progress import ProgressCallback, ProgressEvent
from segany.engine.compare import Comparison, compare
from segany.engine.dataset import SnapshotDataset, missing_labels, model_file, take_snapshot
from segany.engine.rules import EngineRules
from segany.evaluate.protocols import ClickProtocol
from segany.evaluate.results import ModelFacts
from segany.hub.load import load
from segany.jobs.evaluation import EvaluationTask, LoadedModel, evaluate
from segany.jobs.queue import JobFunction
from segany.store import Job, ModelVersion, Store

log = logging.getLogger(__name__)

RETRAIN = "retrain"
"""The kind of the job."""

CLICKS = ClickProtocol()
"""Candidate and incumbent are measured by the mean IoU after 1, 3 and 5 clicks."""

SHOWN = 6
"""Objects with the largest gains, and with the largest losses, that are named in the figures."""


def submit_retrain(store: Store, rules: EngineRules | None = None) -> Job:
    """Ask for a retraining, with the rules of the project unless others are given. One that waits or runs is kept.

    Raises:
        ConflictError: the engine was not started.
    """
    if store.models.current() is None:
        raise ConflictError("The engine of this project was not started: segany engine start")
    for job in store.jobs.list():
        if job.kind == RETRAIN and job.state in ("queued", "running"):
            return job
    return store.jobs.submit(RETRAIN, {"rules": (rules or EngineRules.of(store)).as_json()})


def retrain_handler(store: Store) -> JobFunction:
    """The function for jobs of the kind "retrain". It goes on where a killed process stopped, to the same end."""

    def handle(job: Job, progress: ProgressCallback) -> dict[str, Any]:
        version = _Retraining(store, job, progress).run()
        return {"version": version.number, "state": version.state, "message": version.message}

    return handle


class _Retraining:
    """One retraining. What it makes has ids that follow from that of its job, so that nothing is made twice."""

    def __init__(self, store: Store, job: Job, progress: ProgressCallback) -> None:
        self.store, self.progress = store, progress
        self.rules = EngineRules.from_json(job.arguments.get("rules", {}))
        self.version_id, self.snapshot_id = (str(uuid.uuid5(uuid.UUID(job.id), name)) for name in ("model", "snapshot"))
        self.folder = store.folder / "engine" / self.version_id

    def run(self) -> ModelVersion:
        done = next((one for one in self.store.models.list() if one.id == self.version_id), None)
        if done is not None and done.state != "candidate":
            return done
        self._refuse_others()
        version = done or self._begin()
        incumbent = self.store.models.get(version.parent_id or "")
        try:
            trained = self._train(model_file(self.store, incumbent, self.folder))
        except TrainingError as error:
            return self._end(version, promoted=False, message=f"The training failed: {error}", figures={})
        before, after = (
            self._measure(path, name)
            for path, name in ((model_file(self.store, incumbent, self.folder), "incumbent"), (trained, "candidate"))
        )
        comparison = compare(_scores(before), _scores(after), self.rules.confidence)
        figures = self._figures(before, after, comparison)
        message = _message(comparison, incumbent)
        return self._end(version, promoted=comparison.is_better, message=message, figures=figures, file=trained)

    def _begin(self) -> ModelVersion:
        current = self.store.models.current()
        if current is None:
            raise ConflictError("The engine of this project was not started: segany engine start")
        snapshot = take_snapshot(self.store, self.snapshot_id, self.rules)
        return self.store.models.begin(
            self.version_id,
            model=current.model,
            recipe=self.rules.recipe,
            parent_id=current.id,
            snapshot_id=snapshot.id,
        )

    def _refuse_others(self) -> None:
        """Candidates of jobs that ended otherwise, such as by being canceled."""
        for version in self.store.models.list():
            if version.state == "candidate" and version.id != self.version_id:
                self.store.models.end(version.id, promoted=False, message="It was never measured.", figures={})
                shutil.rmtree(self.store.folder / "engine" / version.id, ignore_errors=True)

    def _train(self, start: Path | str) -> Path:
        from segany.train.recipe import DataSplit, find_recipe
        from segany.train.run_recipe import RunOptions, run_recipe

        data = SnapshotDataset.of(self.store, self.snapshot_id, "train")
        recipe = find_recipe(self.rules.recipe)
        overrides = list(self.rules.overrides)
        if self.rules.recipe == "finetune_decoder":  # its encoder is frozen: all rounds share the features
            overrides.append(f"task.cache={self.store.folder / 'cache' / 'features'}")
        # No validation set: the checkpoint that is best on it would be compared on it with an advantage.
        recipe = replace(recipe.changed(overrides), datasets=lambda _folder, _progress: DataSplit(data, None))
        options = RunOptions(out=self.folder / "run", model=str(start), device="cpu", resume=True)
        result = run_recipe(recipe, options, progress=self.progress)
        if result.end == "interrupted":
            raise CanceledError("The retraining was canceled.")
        return result.last

    def _measure(self, model: Path | str, name: str) -> Mapping[str, Any]:
        """The records of the click protocol by image."""
        loaded = load(model, device="cpu")
        task = EvaluationTask(
            SnapshotDataset.of(self.store, self.snapshot_id, "val"),
            LoadedModel(loaded),
            ModelFacts.of(loaded),
            (CLICKS,),
            title=f"snapshot {self.snapshot_id}",
        )
        progress = self.progress

        def tell(event: ProgressEvent) -> None:
            progress(replace(event, task=f"measuring the {name}") if event.unit == "items" else event)

        return evaluate(task, self.folder / name, progress=tell).records[CLICKS.name]

    def _figures(self, before: Mapping[str, Any], after: Mapping[str, Any], comparison: Comparison) -> dict[str, Any]:
        flat = [[record for image in sorted(found) for record in found[image]] for found in (before, after)]
        changes = sorted(
            (
                {"image": image, "object": new["object"], "before": _score(old), "after": _score(new)}
                for image in before
                for old, new in zip(before[image], after[image], strict=True)
            ),
            key=lambda one: float(one["after"]) - float(one["before"]),
        )
        snapshot = self.store.snapshots.get(self.snapshot_id)
        return {
            "before": CLICKS.summarize(flat[0]),
            "after": CLICKS.summarize(flat[1]),
            "difference": comparison.difference,
            "interval": list(comparison.interval),
            "confidence": comparison.confidence,
            "train_masks": len(snapshot.revision_ids.get("train", ())),
            "val_masks": len(snapshot.revision_ids.get("val", ())),
            "labels_without_validation": missing_labels(self.store, self.snapshot_id),
            "losses": [one for one in changes[:SHOWN] if one["after"] < one["before"]],
            "gains": [one for one in changes[: -SHOWN - 1 : -1] if one["after"] > one["before"]],
        }

    def _end(
        self, version: ModelVersion, *, promoted: bool, message: str, figures: dict[str, Any], file: Path | None = None
    ) -> ModelVersion:
        log.info("Model version %d: %s", version.number, message)
        content = None if file is None else file.read_bytes()
        ended = self.store.models.end(version.id, promoted=promoted, message=message, figures=figures, file=content)
        shutil.rmtree(self.folder, ignore_errors=True)
        return ended


def _score(record: Mapping[str, Any]) -> float:
    """Mean of the IoU of an object after 1, 3 and 5 clicks."""
    return float(sum(record["ious"][count - 1] for count in CLICKS.counts)) / len(CLICKS.counts)


def _scores(records: Mapping[str, Any]) -> dict[str, list[float]]:
    return {image: [_score(record) for record in found] for image, found in records.items()}


def _message(comparison: Comparison, incumbent: ModelVersion) -> str:
    low, high = (100 * one for one in comparison.interval)
    facts = (
        f"its mean IoU after 1, 3 and 5 clicks differs from that of version {incumbent.number} by "
        f"{100 * comparison.difference:+.2f} points ({low:+.2f} to {high:+.2f}) on {comparison.objects} objects"
    )
    return f"Promoted: {facts}." if comparison.is_better else f"Refused: {facts}."
