"""Readers of files that segany wrote: archives of projects, states of training, and records of jobs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from tests.data_for_tests import picture


def _heif(folder: Path) -> Path:
    import pillow_heif

    path = folder / "a.heic"
    pillow_heif.from_pillow(Image.fromarray(picture((64, 80)))).save(path)
    return path


def _read_heif(path: Path) -> None:
    from segany.imaging.image import read_image

    read_image(path)


def _project_archive(folder: Path) -> Path:
    from tests.store_for_tests import add_item, change, click, save

    from segany.store import Label, Store, export_archive

    with Store.create(folder / "project") as store:
        store.labels.replace(1, [Label(1, "cat", "#4f8cff")], "ada")
        item = add_item(store)
        save(store, item, change(label_id=1, prompt_events=(click(2, 3),)))
        path = export_archive(store, folder / "a.zip")
    shutil.rmtree(folder / "project")
    return path


def _restore_project(path: Path) -> None:
    from segany.store import restore_archive

    folder = path.parent / "restored"
    try:
        with restore_archive(path, folder) as store:
            [store.annotations.objects(item.id) for item in store.items.iterate()]
    finally:
        assert folder.exists() is (folder / "project.json").exists(), "half of a project is left"
        shutil.rmtree(folder, ignore_errors=True)


def _trained() -> tuple[Any, Any]:
    import torch

    module = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.ones(3)).sum().backward()
    optimizer.step()
    return module, optimizer


def _training_state(folder: Path) -> Path:
    from segany.train.checkpoint import TrainingProgress, save_state

    save_state(folder / "state.safetensors", *_trained(), TrainingProgress(3, 4, {"epoch": 1}, 0.5, 2, 1))
    return folder / "state.safetensors"


def _load_training_state(path: Path) -> None:
    from segany.train.checkpoint import load_state

    load_state(path, *_trained())


def _object_detector(folder: Path) -> Path:
    from segany.models.calibration import Calibration
    from segany.models.object_detector import ObjectDetector, ObjectDetectorConfig
    from segany.models.object_detector_file import save_object_detector

    detector = ObjectDetector(ObjectDetectorConfig(4, 8, 1, 1), model="small", encoder_id="0123")
    detector.calibration = Calibration((0.5, 0.0, 1.5), -0.25, 0.75, 0.95, 0.9, "abc", 40, 50, 0.96, 0.7)
    return save_object_detector(detector, folder / "a.safetensors")


def _load_object_detector(path: Path) -> None:
    from segany import load_object_detector

    load_object_detector(path)


def _job_record(folder: Path) -> Path:
    from segany.jobs import DoneRecords

    DoneRecords(folder).write("photos/a.jpg", "abc", {"coco": {"model": "tiny"}}, {"coco": {"masks": 3}})
    (path,) = folder.glob("*.json")
    return path


def _read_job_record(path: Path) -> None:
    from segany.jobs import DoneRecords

    records = DoneRecords(path.parent)
    records.find("photos/a.jpg", "abc", {"coco": {"model": "tiny"}})
    records.find_conflict({"coco": {"model": "other"}})


STATE_READERS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], object]]] = {
    "heif": (_heif, _read_heif),
    "project_archive": (_project_archive, _restore_project),
    "training_state": (_training_state, _load_training_state),
    "object_detector": (_object_detector, _load_object_detector),
    "job_record": (_job_record, _read_job_record),
}
