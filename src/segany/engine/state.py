"""Starting the engine of a project, what it is doing, and going back."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path

from segany.core.errors import ConflictError, NotFoundError
from segany.engine.dataset import BY_PEOPLE, model_file
from segany.engine.retrain import RETRAIN
from segany.engine.rules import EngineRules
from segany.hub.load import load
from segany.hub.model_ref import ModelRef
from segany.models.registry import DEFAULT_MODEL, MODELS, find_spec
from segany.store import Job, ModelVersion, Store


def start(store: Store, model: str = DEFAULT_MODEL, rules: EngineRules | None = None) -> ModelVersion:
    """Begin with a model, as version 1. Starting again changes the rules alone.

    Args:
        store: the project.
        model: a name that `segany models` lists, or the path of a model file of segany (`.safetensors`), which is
            copied into the project.
        rules: the rules; by default those of the project.

    Raises:
        UnknownModelError: there is no model of that name.
        CheckpointError: the file cannot be read, or is no model.
        ConflictError: the project began with another model.
    """
    path = Path(model)
    is_file = model not in MODELS and path.suffix == ".safetensors" and path.exists()
    if is_file:
        load(path, device="cpu")
    else:
        find_spec(model)
    name = path.name if is_file else model
    first = next(iter(store.models.list()), None)
    if first is None:
        version_id = str(uuid.uuid5(uuid.UUID(store.project.id), "model 1"))
        content = path.read_bytes() if is_file else None
        first = store.models.begin(version_id, model=name, state="current", file=content)
    if first.model != name:
        raise ConflictError(f"The engine of this project began with {first.model}, not with {name}.")
    (rules or EngineRules.of(store)).keep(store)
    return first


def roll_back(store: Store, number: int | None = None) -> ModelVersion:
    """Let an earlier version annotate: the one that the current one was trained from, or any by its number.

    Raises:
        ConflictError: the engine was not started, or the current version is the first one.
        NotFoundError: there is no such version, or its file is gone.
    """
    if number is not None:
        return store.models.make_current(number)
    current = store.models.current()
    if current is None:
        raise ConflictError("The engine of this project was not started: segany engine start")
    if current.parent_id is None:
        raise ConflictError(f"Version {current.number} is the model that the project began with.")
    return store.models.make_current(current.parent_id)


def current_model(store: Store) -> ModelRef | None:
    """The model that annotates, to load; None before the engine was started.

    Raises:
        NotFoundError: its file is gone.
    """
    current = store.models.current()
    if current is None:
        return None
    return ModelRef(str(model_file(store, current, store.folder / "cache" / "models")))


@dataclass(frozen=True)
class EngineStatus:
    """The state of a project's engine.

    Attributes:
        rules: its rules.
        versions: all model versions.
        train_masks, val_masks: masks of finished items that the next snapshot would have.
        new_masks: masks to train on that no snapshot has yet.
        is_due: whether the rules want a retraining.
        job: the retraining that waits or runs.
    """

    rules: EngineRules
    versions: tuple[ModelVersion, ...]
    train_masks: int
    val_masks: int
    new_masks: int
    is_due: bool
    job: Job | None

    @property
    def current(self) -> ModelVersion | None:
        """The version that annotates."""
        return next((one for one in self.versions if one.state == "current"), None)


def status(store: Store) -> EngineStatus:
    """The state of a project's engine."""
    rules, versions = EngineRules.of(store), store.models.list()
    train = set(store.snapshots.heads("train", ["done"], BY_PEOPLE))
    val = store.snapshots.heads("val", ["done"], BY_PEOPLE, purely=True)
    seen: set[str] = set()
    for version in versions:
        if version.snapshot_id is not None:
            try:
                seen.update(store.snapshots.get(version.snapshot_id).revision_ids.get("train", ()))
            except NotFoundError:
                continue
    new = len(train - seen)
    job = next((one for one in store.jobs.list() if one.kind == RETRAIN and one.state in ("queued", "running")), None)
    is_due = bool(versions) and job is None and new >= rules.retrain_after
    return EngineStatus(rules, versions, len(train), len(val), new, is_due, job)
