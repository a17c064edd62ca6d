"""Running a recipe: its data, its model and its task put together, and trained."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from segany.core.errors import ConfigError
from segany.core.progress import ProgressCallback
from segany.data.item import Dataset, omitted_by
from segany.data.loader import Loader
from segany.data.opening import DataOptions, open_dataset, open_images
from segany.data.subsets import split_by_name
from segany.hub.load import load
from segany.kernels import optimize
from segany.models.convert import encoder_id, weights_digest
from segany.models.promptable import PromptableModel
from segany.models.registry import build_model
from segany.models.sam.config import SamConfig
from segany.train.distributed import init_distributed
from segany.train.init import initialize
from segany.train.loop import train
from segany.train.loop_report import Observer, TrainingResult
from segany.train.recipe import DataSplit, TrainContext, TrainingRecipe
from segany.train.run_folder import RunFolder

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunOptions:
    """What a recipe is run with.

    Attributes:
        out: folder of the run.
        data: what is learned from, for `open_dataset`; None for the recipe's own.
        val_data: what is validated on, for `open_dataset`; None holds out a share of `data`.
        val_fraction: share of the images in `data` to hold out for validation; from 1 on, their number; 0 for none.
        model: a name or a path instead of the recipe's model.
        device: "cpu", "cuda", "mps"; None is CUDA where there is any.
        resume: go on with the run in `out`.
        max_steps: stop after so many steps of this start, saved, to be resumed.
        reading: how the datasets are read; recipes with data of their own have no use for it.
    """

    out: Path
    data: Path | None = None
    val_data: Path | None = None
    val_fraction: float = 0.1
    model: str | None = None
    device: str | None = None
    resume: bool = False
    max_steps: int | None = None
    reading: DataOptions = field(default_factory=DataOptions)


def run_recipe(
    recipe: TrainingRecipe,
    options: RunOptions,
    *,
    observer: Observer | None = None,
    progress: ProgressCallback | None = None,
) -> TrainingResult:
    """Train by a recipe, in the processes that `torchrun` started or in this one.

    Args:
        recipe: with the numbers it is to be run with; see `TrainingRecipe.changed`.
        options: where from and where to.
        observer: is told of steps, in the main process.
        progress: told of downloads and steps. Where it raises `CanceledError`, the run is saved after the step in
            hand and ends as "interrupted"; before the first step the error is raised.

    Raises:
        SeganyError: the data, the model or the recipe is not right, or training cannot go on; see
            `segany.train.loop.train`.
    """
    with init_distributed(options.device) as (processes, device):
        data = split_data(recipe, options, progress)
        model = start_model(recipe, options.model, device, progress)
        description = {
            "recipe": recipe.name or recipe.title,
            "model": {"name": model.name, "weights": weights_digest(model.state_dict())},
            "data": {"train": _names_digest(data.train), "val": _names_digest(data.val), **asdict(options.reading)},
            "task": _json(recipe.task),
            "items": _json(recipe.items),
        }
        # Before the task is built, which may take long: it may compute the embeddings of all images.
        folder, described = RunFolder(options.out), {**description, "loop": asdict(recipe.loop)}
        processes.on_main(lambda: folder.check_free(described, resume=options.resume))
        _tell_omitted(data)
        task = recipe.build(recipe, TrainContext(model, data, options.out, device, progress))
        loop, process = recipe.loop, (processes.rank, processes.world_size)
        with Loader(
            data.train, recipe.items, batch_size=loop.batch_size, seed=loop.seed, workers=loop.workers, process=process
        ) as batches:
            return train(
                task,
                batches,
                loop,
                options.out,
                description=description,
                facts={"data": str(options.data), "device": str(device), "omitted": omitted_by(data.train)},
                resume=options.resume,
                processes=processes,
                observer=observer,
                progress=progress,
                max_steps=options.max_steps,
            )


def split_data(recipe: TrainingRecipe, options: RunOptions, progress: ProgressCallback | None = None) -> DataSplit:
    """The recipe's own data, or those of the folders.

    Raises:
        ConfigError: there are no data, or two of what there can be one of.
        DataError: a folder cannot be used.
    """
    if recipe.datasets is not None:
        if options.val_data is not None:
            raise ConfigError("The recipe splits its data itself: leave out --val-data.")
        if options.reading != DataOptions():
            raise ConfigError(
                "The recipe opens its data itself: leave out --objects, --mask-threshold and --trust-paths."
            )
        return recipe.datasets(options.data, progress)
    if options.data is None:
        raise ConfigError("This recipe brings no data of its own. Say where they are: --data FOLDER.")

    def opened(path: Path) -> Dataset:
        needs_masks = getattr(recipe.items, "needs_masks", True)
        return (open_dataset if needs_masks else open_images)(path, **asdict(options.reading))

    dataset = opened(options.data)
    if options.val_data is not None:
        return DataSplit(dataset, opened(options.val_data))
    if options.val_fraction == 0:
        return DataSplit(dataset, None)
    return DataSplit(*split_by_name(dataset, options.val_fraction))


def start_model(
    recipe: TrainingRecipe, model: str | None, device: torch.device, progress: ProgressCallback | None = None
) -> PromptableModel:
    """The model that training starts from, on its device in float32: another than the recipe's where one is named."""
    wanted = model if model is not None else recipe.model
    if isinstance(wanted, str):
        return load(wanted, runtime="torch", device=device, progress=progress).module
    new = _new_model(wanted, recipe.name or "new", recipe.loop.seed).to(device)
    return optimize(new) if device.type == "cpu" else new


def _new_model(config: SamConfig, name: str, seed: int) -> PromptableModel:
    model = build_model(config, name)
    initialize(model, seed)
    model.encoder_id = encoder_id(model.image_encoder)
    return model


def _tell_omitted(data: DataSplit) -> None:
    for name, dataset in (("training", data.train), ("validation", data.val)):
        counts = ", ".join(f"{count:,} {what}" for what, count in omitted_by(dataset).items())
        if counts and not (name == "validation" and omitted_by(dataset) == omitted_by(data.train)):  # of one dataset
            _logger.warning("Left out of the data for %s: %s.", name, counts)


def _json(config: Any) -> Any:
    """A config as JSON values; what is none of them as its text."""
    return json.loads(json.dumps(asdict(config), default=str))


def _names_digest(dataset: Dataset | None) -> str | None:
    """Which images a dataset has: 16 hexadecimal digits of their names."""
    if dataset is None:
        return None
    return hashlib.sha256("\n".join(dataset.names).encode()).hexdigest()[:16]
