"""Recipes: Python files that say what is trained, how, and what to expect of it.

A recipe file says at its top, in its docstring, the command that runs it, what that costs and what it
should reach; and it holds `RECIPE`, a `TrainingRecipe`. Those that come with segany lie in the folder
`recipes` beside this module and are called by their names; all others by their paths.
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
    """Two datasets without an image in common.

    Attributes:
        train: what is learned from.
        val: what is validated on; None where nothing is.
    """

    train: Dataset
    val: Dataset | None


@dataclass(frozen=True)
class TrainContext:
    """What a task is made of.

    Attributes:
        model: on its device, in float32.
        data: the split.
        folder: of the run, for caches.
        device: of this process.
        progress: told of what a recipe does before the first step, such as downloads.
    """

    model: PromptableModel
    data: DataSplit
    folder: Path
    device: torch.device
    progress: ProgressCallback | None = None

    def check_fits(self, items: ItemConfig) -> None:
        """Raise `ConfigError` unless items are of the size and the kind that the model takes."""
        ours = self.model.preprocessing
        wrong = [
            f"--set items.{name}={wanted}"
            for name, wanted, given in (("side", ours.input_size, items.side), ("resize", ours.resize, items.resize))
            if wanted != given
        ]
        check(not wrong, f"The items are not what the model {self.model.name!r} takes: use {' '.join(wrong)}.")


@dataclass(frozen=True)
class TrainingRecipe:
    """What is trained, and how. Every number of its configs can be changed by name; see `TrainingRecipe.changed`.

    Attributes:
        title: what it does, in a line.
        build: makes the task of the recipe, with what was changed in it, and its context.
        task: numbers of the task: a frozen config.
        items: how images become items: `segany.data.transforms.ItemConfig`.
        loop: numbers of the loop.
        model: that training starts from: a name of `segany models` or a path; or an architecture, which
            begins with random weights.
        datasets: makes the split from the folder given as `--data`, or from none, where the recipe has data or
            a split of its own; it reports the progress of downloads. None opens the folder and holds out a share.
        document: what its file says at the top.
        name: of its file.
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
        check(callable(self.build), "build of a recipe is a function of the recipe and its context.")
        check(isinstance(self.loop, LoopConfig), f"loop of a recipe is a LoopConfig, not {type(self.loop).__name__}.")
        for name in ("task", "items"):
            config = getattr(self, name)
            check(
                is_dataclass(config) and not isinstance(config, type),
                f"{name} of a recipe is a frozen dataclass with its numbers, not {config!r}.",
            )

    def changed(self, settings: Iterable[str]) -> TrainingRecipe:
        """The recipe with other numbers: `loop.lr=1e-4`, `task.focal_weight=10`, `items.flip=0.5`.

        Of `loop.steps` and `loop.epochs`, the one that is set takes the place of the one that the recipe has.

        Raises:
            ConfigError: there is no such field, the value does not fit it, or it would have no effect.
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
    """Names of the recipes that come with segany."""
    return sorted(path.stem for path in RECIPE_FOLDER.glob("*.py") if not path.stem.startswith("_"))


def find_recipe(recipe: str) -> TrainingRecipe:
    """A recipe by the name of one that comes with segany, or by the path of a file, which is run.

    Raises:
        ConfigError: there is none of that name, or the file is no recipe; the message says what is wrong in it.
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
    """The recipe of a file, which is run.

    Raises:
        ConfigError: it cannot be run, or holds no `RECIPE`.
    """
    specification = importlib.util.spec_from_file_location(f"segany_recipe_{path.stem}", path)
    if specification is None or specification.loader is None:
        raise ConfigError(f"{path} is no Python file, which a recipe is.")
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module  # where dataclasses look for the types of their fields
    try:
        specification.loader.exec_module(module)
    except ConfigError as error:
        raise ConfigError(f"{path}{_line(error, path)}: {error}") from error
    except Exception as error:  # whatever a file of the user's does wrong
        raise ConfigError(f"{path}{_line(error, path)} cannot be run: {type(error).__name__}: {error}") from error
    recipe = getattr(module, "RECIPE", None)
    if not isinstance(recipe, TrainingRecipe):
        what = "has no RECIPE" if recipe is None else f"has a RECIPE that is a {type(recipe).__name__}"
        raise ConfigError(f"{path} {what}. A recipe file sets RECIPE = TrainingRecipe(...); see docs/train.md.")
    return replace(recipe, document=(module.__doc__ or "").strip(), name=path.stem)


def _line(error: Exception, path: Path) -> str:
    """Where in the file it went wrong, as ", line 3"."""
    file = str(path.absolute())
    if isinstance(error, SyntaxError) and error.filename == file:
        return f", line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f", line {lines[-1]}" if lines else ""
