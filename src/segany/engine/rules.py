"""The rules of a project's data engine, kept in its settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TypeAlias, get_args

from segany.core.errors import ConfigError, check
from segany.store import Store

Stage: TypeAlias = Literal["assisted-manual", "semi-automatic", "automatic"]

STAGES: tuple[Stage, ...] = get_args(Stage)
"""The stages of the data engine, in order (Segment Anything, section 4)."""

RECIPES = ("adapters", "finetune_decoder", "sam")
"""The recipes that a retraining may use: no request names a file to execute."""

SETTING = "engine"
"""Where the rules are in the settings of a project."""


@dataclass(frozen=True)
class EngineRules:
    """What the engine does and when.

    Attributes:
        stage: the stage of the project.
        recipe: one of `RECIPES`.
        overrides: settings of the recipe, such as `loop.steps=200`.
        retrain_after: number of new masks after which a retraining is due.
        hint_seconds: time on one mask after which the page suggests to move on (30 in the paper).
        min_train: fewest masks to train on.
        min_val: fewest masks to compare models on.
        confidence: a candidate is promoted if it is better with this confidence.
    """

    stage: Stage = "assisted-manual"
    recipe: str = "finetune_decoder"
    overrides: tuple[str, ...] = ()
    retrain_after: int = 200
    hint_seconds: float = 30.0
    min_train: int = 20
    min_val: int = 10
    confidence: float = 0.95

    def __post_init__(self) -> None:
        check(self.stage in STAGES, f"stage must be one of {', '.join(STAGES)}, got {self.stage!r}.")
        check(self.recipe in RECIPES, f"recipe must be one of {', '.join(RECIPES)}, got {self.recipe!r}.")
        check(all(isinstance(one, str) for one in self.overrides), "overrides must be text such as 'loop.steps=200'.")
        for name in ("retrain_after", "min_train", "min_val"):
            value = getattr(self, name)
            check(isinstance(value, int) and 1 <= value <= 10**9, f"{name} must lie in 1..10^9, got {value!r}.")
        check(0 < self.hint_seconds <= 86_400, f"hint_seconds must lie in 0..86400, got {self.hint_seconds!r}.")
        check(0.5 <= self.confidence < 1, f"confidence must be at least 0.5 and below 1, got {self.confidence!r}.")

    def as_json(self) -> dict[str, Any]:
        """The rules as JSON values."""
        return {**asdict(self), "overrides": list(self.overrides)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> EngineRules:
        """The rules that `as_json` wrote.

        Raises:
            ConfigError: a value is unknown or out of range.
        """
        unknown = set(values) - {one.name for one in fields(cls)}
        if unknown:
            raise ConfigError(f"The engine has no rule {min(unknown)!r}.")
        try:
            return cls(**{**values, "overrides": tuple(values.get("overrides", ()))})
        except TypeError as error:
            raise ConfigError(f"The rules of the engine are damaged: {error}.") from error

    @classmethod
    def of(cls, store: Store) -> EngineRules:
        """The rules of a project; the default ones where it has none."""
        return cls.from_json(store.project.settings.get(SETTING, {}))

    def keep(self, store: Store) -> None:
        """Make these the rules of a project."""
        store.update_project(settings={SETTING: self.as_json()})
