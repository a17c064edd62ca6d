"""Recipes: Python files that define a training.

A recipe file sets `RECIPE`, a `TrainingRecipe`. Its module docstring states the command that runs it, its cost, and
the score that it reaches. The recipes of the package are in the folder `recipes` beside this module, and are found by
name; other recipes are found by path.
"""

from __future__ import annotations

import difflib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segany.core.errors import ConfigError, check
from segany.core.files import path_errors
from segany.core.progress import ProgressCallback
from segany.data.item import Dataset
from segany.data.transforms import ItemConfig
from segany.models.sam.config import SamConfig
from segany.train.field_docs import field_docs
from segany.train.loop_config import LoopConfig
from segany.train.overrides import override

if TYPE_CHECKING:
    import torch

    from segany.models.promptable import PromptableModel
    from segany.train.task import Task

RECIPE_FOLDER = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class DataSplit:
    """A training and a validation set, without an image in common.

    Attributes:
        train: the training set.
        val: the validation set; None for no validation.
    """

    train: Dataset
    val: Dataset | None


@dataclass(frozen=True)
class TrainContext:
    """The model, the data and the environment that a recipe builds its task from.

    Attributes:
        model: the model to train, on its device, in float32.
        data: the training and validation set.
        folder: folder of the run, for caches.
        device: device of this process.
        progress: called with the progress of work before the first step, such as downloads.
    """

    model: PromptableModel
    data: DataSplit
    folder: Path
    device: torch.device
    progress: ProgressCallback | None = None

    def check_fits(self, items: ItemConfig) -> None:
        """Raise `ConfigError` unless items have the size and the resizing that the model takes."""
        ours = self.model.preprocessing
        wrong = [
            f"--set items.{name}={wanted}"
            for name, wanted, given in (("side", ours.input_size, items.side), ("resize", ours.resize, items.resize))
            if wanted != given
        ]
        check(not wrong, f"The items do not fit what the model {self.model.name!r} takes: use {' '.join(wrong)}.")


@dataclass(frozen=True)
class TrainingRecipe:
    """A task, its data, its model and the configs of both. `TrainingRecipe.changed` overrides fields by name.

    Attributes:
        title: description of the recipe in one line.
        build: a function of this recipe, with its overrides, and its context that returns the task.
        task: config of the task, a frozen dataclass.
        items: config of the training items, such as `segany.data.transforms.ItemConfig`.
        loop: config of the training loop.
        model: the initial model: a name that `segany models` lists, a path, or a config, for which weights are
            initialized at random.
        datasets: a function of the folder given as `--data`, or of None, that returns the training and validation set,
            for a recipe with its own data or its own split. It reports the progress of downloads. By default, the
            folder is opened and a share of its images is held out.
        document: module docstring of the recipe file.
        name: name of the recipe file.
    """

    title: str
    build: Callable[[TrainingRecipe, TrainContext], Task]
    task: Any
    items: Any
    loop: LoopConfig
    model: str | SamConfig = "mobile_sam"
    datasets: Callable[[Path | None, ProgressCallback | None], DataSplit] | None = None
    document: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        check(bool(self.title.strip()), "A recipe needs a title.")
        check(callable(self.build), "build of a recipe must be a function of the recipe and its context.")
        check(
            isinstance(self.loop, LoopConfig),
            f"loop of a recipe must be a LoopConfig, not {type(self.loop).__name__}.",
        )
        for name in ("task", "items"):
            config = getattr(self, name)
            check(
                is_dataclass(config) and not isinstance(config, type),
                f"{name} of a recipe must be a frozen dataclass, not {config!r}.",
            )

    def changed(self, settings: Iterable[str]) -> TrainingRecipe:
        """A copy of the recipe with overrides such as `loop.lr=1e-4`, `task.focal_weight=10`, `items.flip=0.5`.

        Setting one of `loop.steps` and `loop.epochs` unsets the other.

        Raises:
            ConfigError: a field does not exist, a value does not fit its field, or a field would have no effect.
        """
        settings = list(settings)
        names = [setting.partition("=")[0].strip() for setting in settings]
        lengths = {"loop.steps": "loop.epochs", "loop.epochs": "loop.steps"}
        given = [name for name in lengths if name in names]
        if len(given) == 1:
            settings.append(f"{lengths[given[0]]}=none")
        numbers = override(self.numbers, settings)
        void = {doc.name: doc.void for doc in field_docs(numbers) if doc.void}
        for name in names:
            check(name not in void, f"{name} would have no effect: {void.get(name)}. Leave it out.")
        return replace(self, loop=numbers.loop, task=numbers.task, items=numbers.items)

    @property
    def numbers(self) -> RecipeNumbers:
        return RecipeNumbers(self.loop, self.task, self.items)


@dataclass(frozen=True)
class RecipeNumbers:
    """The configs of a recipe.

    Attributes:
        loop, task, items: as in `TrainingRecipe`.
    """

    loop: LoopConfig
    task: Any
    items: Any


def recipe_names() -> list[str]:
    """Names of the recipes of the package."""
    return sorted(path.stem for path in RECIPE_FOLDER.glob("*.py") if not path.stem.startswith("_"))


def find_recipe(recipe: str) -> TrainingRecipe:
    """Find a recipe by the name of one of the package, or by the path of a recipe file, which is executed.

    Raises:
        ConfigError: there is no such recipe, or the file cannot be executed or is not a recipe file.
    """
    names = recipe_names()
    if recipe in names:
        return read_recipe(RECIPE_FOLDER / f"{recipe}.py")
    path = Path(recipe)
    with path_errors(path, ConfigError):
        if path.is_file():
            return read_recipe(path)
    near = difflib.get_close_matches(recipe, names, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"Recipes: {', '.join(names) or 'none'}; or a file's path."
    raise ConfigError(f"There is no recipe {recipe!r}. {hint}")


def read_recipe(path: Path) -> TrainingRecipe:
    """Execute a recipe file and return its recipe.

    Raises:
        ConfigError: the file cannot be executed, or sets no `RECIPE`.
    """
    specification = importlib.util.spec_from_file_location(f"segany_recipe_{path.stem}", path)
    if specification is None or specification.loader is None:
        raise ConfigError(f"{path} is not a Python file. A recipe is one.")
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module  # dataclasses resolve the types of their fields there
    try:
        specification.loader.exec_module(module)
    except ConfigError as error:
        raise ConfigError(f"{path}{_line(error, path)}: {error}") from error
    except Exception as error:  # a file of the user can raise any exception
        raise ConfigError(f"{path}{_line(error, path)} cannot be run: {type(error).__name__}: {error}") from error
    recipe = getattr(module, "RECIPE", None)
    if not isinstance(recipe, TrainingRecipe):
        what = "has no RECIPE" if recipe is None else f"has a RECIPE that is a {type(recipe).__name__}"
        raise ConfigError(f"{path} {what}. A recipe file sets RECIPE = TrainingRecipe(...); see docs/train.md.")
    return replace(recipe, document=(module.__doc__ or "").strip(), name=path.stem)


def _line(error: Exception, path: Path) -> str:
    """The line of the file where the error occurred, as ", line 3"; empty if it is unknown."""
    file = str(path.absolute())
    if isinstance(error, SyntaxError) and error.filename == file:
        return f", line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f", line {lines[-1]}" if lines else ""
