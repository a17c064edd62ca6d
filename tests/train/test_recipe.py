"""Recipes: files that are run, fields that are changed by name, and what is wrong with either."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import pytest

from segany.core.errors import ConfigError, check
from segany.train.field_docs import attribute_docs, field_docs
from segany.train.loop_config import MAY_CHANGE, LoopConfig
from segany.train.overrides import override
from segany.train.recipe import RECIPE_FOLDER, RecipeNumbers, TrainingRecipe, find_recipe, recipe_names


@dataclasses.dataclass(frozen=True)
class TaskNumbers:
    """Numbers.

    Attributes:
        focal_weight: of the focal loss,
            on two lines.
        low, high: of a range.
        mode: how.
        sides: of something.

    Raises:
        ConfigError: low is above high.
    """

    focal_weight: float = 20.0
    low: int = 1
    high: int | None = 2
    mode: Literal["box", "point"] = "box"
    sides: tuple[int, ...] = (1, 2)
    flip: bool = True

    def __post_init__(self) -> None:
        check(self.high is None or self.low <= self.high, "low must not be above high.")


def numbers() -> RecipeNumbers:
    return RecipeNumbers(LoopConfig(steps=90_000), TaskNumbers(), TaskNumbers())


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("loop.lr=1e-4", 1e-4),
        ("loop.steps=9_000", 9_000),
        ("loop.betas=0.8,0.9", (0.8, 0.9)),
        ("loop.betas = (0.8, 0.9)", (0.8, 0.9)),
        ("loop.decay_steps=", ()),
        ("loop.decay_steps=1,2,3", (1, 2, 3)),
        ("loop.clip_norm=0.5", 0.5),
        ("loop.clip_norm=none", None),
        ("loop.compile=yes", True),
        ("loop.precision=bf16", "bf16"),
        ("task.flip=False", False),
        ("task.mode=point", "point"),
        ("task.high=none", None),
        ("items.focal_weight=3", 3.0),
    ],
)
def test_a_field_changed(setting, value):
    changed = override(numbers(), [setting])
    part, name = setting.partition("=")[0].strip().split(".")
    got = getattr(getattr(changed, part), name)
    assert got == value
    assert type(got) is type(value)
    others = {field.name for field in dataclasses.fields(RecipeNumbers)} - {part}
    assert all(getattr(changed, other) == getattr(numbers(), other) for other in others)


def test_values_that_only_fit_together_change_together():
    task = override(numbers(), ["task.low=5", "task.high=6"]).task
    assert (task.low, task.high) == (5, 6)
    with pytest.raises(ConfigError, match="low must not be above"):
        override(numbers(), ["task.low=5"])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("loop.lrr=1", r"no field 'loop\.lrr'\. Did you mean loop\.lr"),
        ("focal_weight=1", r"Did you mean (task|items)\.focal_weight"),
        ("task.focal_wieght=1", r"Did you mean task\.focal_weight"),
        ("loop=1", r"no field 'loop'"),
        ("xyzzy=1", r"The fields: loop\.steps"),
        ("loop.lr", "takes NAME=VALUE"),
        ("loop.lr=fast", r"loop\.lr takes a number, got 'fast'"),
        ("loop.steps=1.5", r"loop\.steps takes a whole number"),
        ("loop.epochs=x", r"loop\.epochs takes a whole number or none"),
        ("loop.compile=maybe", "takes true or false"),
        ("loop.precision=fp16", "takes fp32 or bf16"),
        ("loop.betas=0.9", "takes 2 values with commas between, each a number"),
        ("loop.steps=none", "either steps or epochs"),
        ("loop.lr=-1", "lr must be positive"),
    ],
)
def test_what_is_no_field_or_no_value(setting, message):
    with pytest.raises(ConfigError, match=message):
        override(numbers(), [setting])


def test_docs_of_fields():
    texts = attribute_docs(TaskNumbers)
    assert texts == {
        "focal_weight": "of the focal loss, on two lines.",
        "low": "of a range.",
        "high": "of a range.",
        "mode": "how.",
        "sides": "of something.",
    }
    docs = {doc.name: doc for doc in field_docs(numbers())}
    assert docs["loop.lr"].value == 8e-4
    assert docs["task.flip"].text == ""


def test_every_field_of_the_loop_is_described():
    assert [doc.name for doc in field_docs(LoopConfig(steps=1)) if not doc.text] == []
    assert set(MAY_CHANGE) < {field.name for field in dataclasses.fields(LoopConfig)}


def test_every_recipe_of_segany_describes_itself_and_its_fields():
    for name in recipe_names():
        recipe = find_recipe(name)
        assert f"segany train {name}" in recipe.document
        assert [doc.name for doc in field_docs(recipe.numbers) if not doc.text] == []


RECIPE = '''"""How to run it."""

from __future__ import annotations

from dataclasses import dataclass

from segany.train.loop_config import LoopConfig
from segany.train.recipe import TrainingRecipe


@dataclass(frozen=True)
class Numbers:
    """Attributes:
    weight: of it.
    """

    weight: float = 1.0


RECIPE = TrainingRecipe(
    title="A recipe",
    build=lambda recipe, given: None,
    task=Numbers(),
    items=Numbers(),
    loop=LoopConfig(steps=5),
)
'''


def test_a_file_with_a_config_of_its_own(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(RECIPE)
    recipe = find_recipe(str(path)).changed(["task.weight=2", "loop.steps=7"])
    assert (recipe.name, recipe.document, recipe.loop.steps, recipe.task.weight) == ("mine", "How to run it.", 7, 2.0)
    assert recipe.items.weight == 1.0


@pytest.mark.parametrize(
    ("settings", "steps", "epochs"),
    [
        ([], None, 10),
        (["loop.steps=4"], 4, None),
        (["loop.epochs=2"], None, 2),
        (["loop.steps=4", "loop.epochs=none"], 4, None),
        (["loop.steps=none", "loop.epochs=3"], None, 3),
    ],
)
def test_the_length_that_is_asked_for_wins(settings, steps, epochs):
    loop = find_recipe("finetune_decoder").changed(settings).loop
    assert (loop.steps, loop.epochs) == (steps, epochs)


def test_steps_and_epochs_together_are_refused():
    with pytest.raises(ConfigError, match="either steps or epochs"):
        find_recipe("finetune_decoder").changed(["loop.steps=4", "loop.epochs=2"])


@pytest.mark.parametrize(
    ("recipe", "settings", "void"),
    [
        ("finetune_decoder", [], {"task.drop_path", "task.layer_decay", "loop.decay_steps"}),
        ("finetune_decoder", ["loop.lr_schedule=step"], {"task.batch_statistics"}),
        ("sam", ["task.box_chance=0"], {"task.box_noise", "task.box_multimask"}),
        ("mae", [], {"items.max_masks", "loop.decay_factor"}),
        ("distill", ["task.keep=false"], {"task.cache"}),
    ],
)
def test_settings_without_effect_are_void_and_refused(recipe, settings, void):
    changed = find_recipe(recipe).changed(settings)
    docs = {doc.name: doc for doc in field_docs(changed.numbers)}
    assert all(docs[name].void for name in void)
    assert not docs["loop.lr"].void
    for name in void:
        with pytest.raises(ConfigError, match=rf"{name} would have no effect: {docs[name].void}"):
            find_recipe(recipe).changed([*settings, f"{name}={_text(docs[name].value)}"])


def _text(value):
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = (", r"mine\.py, line 1 cannot be run: SyntaxError"),
        ("\n1 / 0", r"mine\.py, line 2 cannot be run: ZeroDivisionError: division by zero"),
        ("import nothing_of_that_name", "ModuleNotFoundError: No module named"),
        ("", r"mine\.py has no RECIPE\. A recipe file sets RECIPE = TrainingRecipe"),
        ("RECIPE = 5", "has a RECIPE that is a int"),
        (
            "from segany.train.loop_config import LoopConfig\nLoopConfig(steps=1, lr=0)",
            r"mine\.py, line 2: lr must be positive",
        ),
        ("from segany.train.loop_config import LoopConfig\nLoopConfig(lrr=0)", r"line 2 cannot be run.*'lrr'"),
    ],
)
def test_what_is_wrong_in_a_file(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    path = Path("mine.py")
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        find_recipe(str(path))


def test_a_recipe_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr("segany.train.recipe.RECIPE_FOLDER", tmp_path)
    (tmp_path / "lungs.py").write_text(RECIPE)
    assert find_recipe("lungs").name == "lungs"
    with pytest.raises(ConfigError, match=r"no recipe 'lung'. Did you mean lungs\?"):
        find_recipe("lung")
    with pytest.raises(ConfigError, match=r"no recipe 'a/b\.py'"):
        find_recipe("a/b.py")
    with pytest.raises(ConfigError):
        find_recipe("x" * 5000)


def test_a_recipe_is_checked():
    with pytest.raises(ConfigError, match="needs a title"):
        TrainingRecipe(title=" ", build=print, task=TaskNumbers(), items=TaskNumbers(), loop=LoopConfig(steps=1))
    with pytest.raises(ConfigError, match="task of a recipe must be a frozen dataclass, not None"):
        TrainingRecipe(title="Mine", build=print, task=None, items=TaskNumbers(), loop=LoopConfig(steps=1))
    with pytest.raises(ConfigError, match="items of a recipe must be a frozen dataclass"):
        TrainingRecipe(title="Mine", build=print, task=TaskNumbers(), items=TaskNumbers, loop=LoopConfig(steps=1))
    assert RECIPE_FOLDER.name == "recipes"
