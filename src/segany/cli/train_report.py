"""The output of `segany train`: a progress bar on stderr, a line for each validation, and the paths of the models."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.text import Text

from segany.cli.work_bar import LOADING_UNITS, EventBars, work_bar
from segany.core.progress import ProgressEvent
from segany.train.loop_report import Observer, StepLog, TrainingResult
from segany.train.recipe import TrainingRecipe

SMOOTHING = 0.9
"""Factor of the exponential moving averages of loss and speed that are shown."""


class TrainReporter(Observer):
    """Reports on a training. Use it in a `with` block; there is a bar only if stderr is a terminal."""

    def __init__(self, recipe: TrainingRecipe, *, is_main: bool = True) -> None:
        """Prepare to report on a recipe; of several processes only the main one prints."""
        self._recipe = recipe
        self._console = Console(soft_wrap=True, highlight=False, quiet=not is_main)
        self._progress = work_bar()
        self._task = self._progress.add_task("preparing", total=None, count="")
        self._loading = EventBars(self._progress)
        self._total = 0
        self._loss: float | None = None
        self._rate: float | None = None

    def __enter__(self) -> TrainReporter:
        self._console.print(Text(self._recipe.title, style="bold"))
        if not self._console.quiet:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def loading(self, event: ProgressEvent) -> None:
        """Data or a model is downloaded."""
        if event.unit in LOADING_UNITS and not self._console.quiet:
            self._loading(event)

    def started(self, step: int, total: int) -> None:
        self._total = total
        self._loading.clear()
        if step:
            self._console.print(f"resuming after step {step} of {total}")
        self._progress.update(self._task, description="training", completed=step, total=total)

    def stepped(self, log: StepLog) -> None:
        rate = log.items / max(log.seconds, 1e-9)
        self._loss = log.loss if self._loss is None else SMOOTHING * self._loss + (1 - SMOOTHING) * log.loss
        self._rate = rate if self._rate is None else SMOOTHING * self._rate + (1 - SMOOTHING) * rate
        count = f"{log.step}/{self._total}  loss {self._loss:.4g}  lr {log.lr:.2g}  {self._rate:.1f} items/s"
        self._progress.update(self._task, description="training", completed=log.step, count=count)

    def validating(self, step: int) -> None:  # noqa: ARG002
        self._progress.update(self._task, description="validating")

    def validated(self, step: int, scores: Mapping[str, float], *, is_best: bool) -> None:
        if scores:
            shown = "  ".join(
                f"{name} {value}" if isinstance(value, int) else f"{name} {value:.4f}" for name, value in scores.items()
            )
            self._console.print(Text(f"step {step}: {shown}" + ("  (best)" if is_best else "")))

    def summarize(self, result: TrainingResult, *, is_stopped: bool) -> None:
        """Print how training ended, where the models are, and how to use or resume them."""
        tell = self._console.print
        if result.end == "interrupted":
            why = "Interrupted" if is_stopped else "Stopped by --max-steps"
            tell(f"{why} after step {result.step} of {result.total}; the state is saved.")
            tell("Resume with the same command and --resume.")
        elif result.end == "early":
            tell(f"stopped early after step {result.step} of {result.total}: the score did not improve")
        else:
            tell(f"finished after step {result.step}")
        score = "" if result.best_score is None else f", score {result.best_score:.4f}"
        tell(Text.assemble(("  best: ", ""), (str(result.best), "cyan"), f"  after step {result.best_step}{score}"))
        if _is_model(result):
            tell(Text(f"  use it: segany segment photo.jpg --point 500,375 --model {result.best}"))
        elif _is_object_detector(result):
            tell(Text(f"  use it: segany.ObjectPredictor(model, segany.load_object_detector({str(result.best)!r}))"))


def _is_object_detector(result: TrainingResult) -> bool:
    from segany.models.object_detector_file import is_object_detector

    return is_object_detector(result.best)


def _is_model(result: TrainingResult) -> bool:
    from segany.models.model_file import saved_spec

    return saved_spec(result.best) is not None
