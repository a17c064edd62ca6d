"""The training loop: it trains any `Task` on any `Batches`, also distributed, and resumes from its checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import nn

from segany.core.errors import CanceledError, TrainingError
from segany.core.progress import ProgressCallback, report
from segany.data.item import TrainingItem
from segany.train.batches import Batches, HasBlocks, SavesAnotherModule, ShowsSamples
from segany.train.blocks import blocks_of, prepared_blocks
from segany.train.checkpoint import TrainingProgress, check_finite, load_state, save_module, save_state
from segany.train.distributed import DistributedContext
from segany.train.loop_config import LoopConfig, learning_rate
from segany.train.loop_report import End, Observer, StepLog, TrainingResult
from segany.train.run_folder import RunFolder
from segany.train.task import ItemLoss, Task

NAMES_SHOWN = 8
"""Number of item names that an error message lists."""


def train(
    task: Task,
    batches: Batches,
    config: LoopConfig,
    folder: Path,
    *,
    description: Mapping[str, Any] | None = None,
    facts: Mapping[str, Any] | None = None,
    resume: bool = False,
    processes: DistributedContext | None = None,
    observer: Observer | None = None,
    progress: ProgressCallback | None = None,
    max_steps: int | None = None,
) -> TrainingResult:
    """Train a task.

    Args:
        task: the task, with its module on the device. The module is in training mode in `losses` and in evaluation
            mode in `validate`. The seeds of the items seed PyTorch's generators, so that a resumed run draws the same
            random numbers.
        batches: the data loader, with this process's share of every batch of `config.batch_size` items.
        config: configuration of the loop.
        folder: folder of the run; see `RunFolder`.
        description: JSON values that identify the run besides `config`. A run with another description is not resumed.
        facts: additional entries for `environment.json`.
        resume: resume the run in the folder.
        processes: the process group of distributed training; by default, this process alone.
        observer: is called at each step, validation and checkpoint, in the main process.
        progress: called at each step, in every process. If it raises `CanceledError` in any process, the run saves a
            checkpoint after that step and ends as "interrupted".
        max_steps: number of steps of this call after which the run saves a checkpoint and ends as "interrupted".

    Raises:
        TrainingError: a loss or gradient is not finite, no items are left, or the folder holds another run.
        CheckpointError: the state in the folder belongs to another model.
        OutputError: a file could not be written, such as on a full disk. The last checkpoint stays intact.
        MissingExtraError: `segany[train]` is not installed.
    """
    processes = processes or DistributedContext()
    with ExitStack() as stack:
        run = stack.enter_context(RunFolder(folder))
        described = {**(description or {}), "loop": asdict(config)}
        training = _Training(task, batches, config, run, processes, observer or Observer())
        has_state = processes.on_main(lambda: run.begin(described, resume=resume))
        if has_state:
            training.restore()
        processes.on_main(lambda: run.open_logs(training.progress.step if has_state else -1))
        processes.on_main(
            lambda: run.note_start(training.progress.step, {**(facts or {}), "processes": processes.world_size})
        )
        blocks = task.blocks() if isinstance(task, HasBlocks) else blocks_of(task.module)
        if config.compile or config.checkpoint_activations:
            stack.enter_context(prepared_blocks(blocks, config))
        device = next(task.module.parameters()).device
        stack.enter_context(torch.random.fork_rng([device] if device.type == "cuda" else []))
        return training.run(progress, max_steps)


@dataclass
class _Share:
    """The sums over one process's share of a batch, which all processes gather."""

    items: int = 0
    loss: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    wants_stop: bool = False

    def add(self, item: TrainingItem, loss: ItemLoss, value: float) -> None:
        if not math.isfinite(value):
            parts = ", ".join(f"{name} {part:g}" for name, part in loss.parts.items())
            self.problems.append(f"{item.name}: {value}" + (f" ({parts})" if parts else ""))
        self.items += 1
        self.loss += value
        for name, part in loss.parts.items():
            self.parts[name] = self.parts.get(name, 0.0) + part


class _Training:
    """The state of one call of `train` in this process."""

    def __init__(
        self,
        task: Task,
        batches: Batches,
        config: LoopConfig,
        folder: RunFolder,
        processes: DistributedContext,
        observer: Observer,
    ) -> None:
        self.task, self.batches, self.config = task, batches, config
        self.folder, self.processes, self.observer = folder, processes, observer
        processes.broadcast_parameters(task.module)
        self.optimizer = _optimizer(task, config)
        self.parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        self.device = self.parameters[0].device
        if not len(batches):
            raise TrainingError("There are no batches to train on. Check the data, or lower loop.batch_size.")
        self.total = config.total_steps(len(batches))
        self.progress = TrainingProgress()
        self.scores: dict[str, float] = {}
        self._validated_at = -1
        self._saved_at = -1
        self._empty = 0

    def restore(self) -> None:
        self.progress = load_state(self.folder.state, self.task.module, self.optimizer)
        self.batches.restore(self.progress.batches)
        self._saved_at = self.progress.step

    def run(self, callback: ProgressCallback | None, max_steps: int | None) -> TrainingResult:
        progress, config = self.progress, self.config
        until = math.inf if max_steps is None else progress.step + max_steps
        self._tell(lambda: self.observer.started(progress.step, self.total))
        if progress.step == 0 and config.validate_first and self._saved_at < 0:
            self._validate()
        began, is_stopped = perf_counter(), False
        for items in self._given() if not self._is_over() else ():
            share = self._gradients(items)
            share.wants_stop = self._is_canceled(callback) or progress.step + 1 >= until
            shares = self.processes.gather(share)
            if self._update(items, shares, began):
                began = perf_counter()
                if self._validation_is_due():
                    self._validate()
                    began = perf_counter()
            is_stopped = any(share.wants_stop for share in shares) and not self._is_over()
            if is_stopped or self._is_over():
                break
            if _is_due(config.save_every, progress.step) and self._saved_at != progress.step:
                self._save()
                began = perf_counter()
        if not is_stopped and progress.step not in (self._validated_at, self._saved_at):
            self._validate()
        if self._saved_at != progress.step:
            self._save()
        return self._result(is_stopped)

    def _is_canceled(self, callback: ProgressCallback | None) -> bool:
        """Report the current step, and return whether the callback canceled the run."""
        try:
            report(callback, "training", min(self.progress.step + 1, self.total), self.total, "steps")
        except CanceledError:
            return True
        return False

    def _validation_is_due(self) -> bool:
        """Whether an epoch ends at this step, or `validate_every` divides it."""
        step = self.progress.step
        return _is_due(self.config.validate_every, step) or step % len(self.batches) == 0

    def _is_over(self) -> bool:
        return self.progress.step >= self.total or self._is_early()

    def _is_early(self) -> bool:
        return self.config.patience is not None and self.progress.since_best >= self.config.patience

    def _given(self) -> Iterator[Sequence[TrainingItem]]:
        """Yield batches of one epoch after the other, and count them in the progress."""
        while True:
            for items in self.batches:
                self.progress.given += 1
                yield items

    def _gradients(self, items: Sequence[TrainingItem]) -> _Share:
        """Accumulate the gradients of this process's items over micro-batches."""
        self.task.module.train()
        self.optimizer.zero_grad(set_to_none=True)
        share = _Share()
        at_once = self.config.micro_batch_size or max(1, len(items))
        for first in range(0, len(items), at_once):
            some = items[first : first + at_once]
            torch.manual_seed(some[0].seed % 2**63)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
                losses = self.task.losses(some)
            totals = torch.stack([loss.total for loss in losses])
            for item, loss, value in zip(some, losses, totals.tolist(), strict=True):
                share.add(item, loss, value)
            if share.problems:
                break
            totals.sum().backward()
        return share

    def _update(self, items: Sequence[TrainingItem], shares: Sequence[_Share], began: float) -> bool:
        """Sum the gradients over all processes, step the optimizer and log the step. False if there were no items."""
        progress, count = self.progress, sum(share.items for share in shares)
        problems = [problem for share in shares for problem in share.problems]
        if problems:
            raise TrainingError(self._stopped("the loss is not finite", problems, items))
        if count == 0:
            self._note_empty()
            return False
        self._empty = 0
        self.processes.all_reduce_gradients(self.parameters)
        for parameter in self.parameters:
            if parameter.grad is not None:
                parameter.grad.div_(count)
        norm = float(nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm or math.inf))
        if not math.isfinite(norm):
            raise TrainingError(self._stopped("the gradients are not finite, but the losses are", [], items))
        lr = learning_rate(self.config, progress.step, self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        self.optimizer.step()
        progress.step += 1
        parts: dict[str, float] = {}
        for share in shares:
            for name, part in share.parts.items():
                parts[name] = parts.get(name, 0.0) + part / count
        self._log_step(
            StepLog(
                step=progress.step,
                epoch=(progress.given - 1) // len(self.batches),
                loss=sum(share.loss for share in shares) / count,
                parts=parts,
                lr=lr,
                grad_norm=norm,
                items=count,
                seconds=perf_counter() - began,
            )
        )
        return True

    def _note_empty(self) -> None:
        self._empty += 1
        if self._empty >= len(self.batches):
            some = "; ".join(f"{image.name}: {image.reason}" for image in self.batches.report.damaged[:3])
            raise TrainingError(f"No items are left to train on: every batch of an epoch was empty. {some}")

    def _stopped(self, what: str, problems: Sequence[str], items: Sequence[TrainingItem]) -> str:
        names = [name for share in self.processes.gather([item.name for item in items]) for name in share]
        rest = f", and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
        kept = (
            f"The last checkpoint in {self.folder.path} is that of step {self._saved_at}."
            if self._saved_at >= 0
            else "No checkpoint had been saved yet."
        )
        return (
            f"Step {self.progress.step + 1}: {what}.\n"
            + "".join(f"  {problem}\n" for problem in problems[:NAMES_SHOWN])
            + f"The batch: {', '.join(names[:NAMES_SHOWN])}{rest}. The weights were not updated. {kept}\n"
            "Check these items, lower loop.lr, or set loop.clip_norm."
        )

    def _log_step(self, log: StepLog) -> None:
        def tell() -> None:
            self.folder.log(asdict(log))
            self.observer.stepped(log)

        self._tell(tell)

    def _validate(self) -> None:
        progress = self.progress
        self.task.module.eval()
        self._tell(lambda: self.observer.validating(progress.step))
        with torch.no_grad():
            self.scores = self.processes.on_main(lambda: dict(self.task.validate()))
        self._validated_at = progress.step
        is_best = False
        if self.scores:
            score = next(iter(self.scores.values()))
            is_best = score > (-math.inf if progress.best is None else progress.best)
            progress.since_best += 1
        if is_best:
            progress.best, progress.best_step, progress.since_best = score, progress.step, 0
        self.processes.on_main(lambda: self._write_validation(is_best=is_best))

    def _write_validation(self, *, is_best: bool) -> None:
        step, folder = self.progress.step, self.folder
        folder.log({"step": step, "validation": self.scores})
        folder.draw()
        if isinstance(self.task, ShowsSamples):
            with torch.no_grad():
                folder.write_samples(step, self.task.samples())
        if is_best:
            save_module(folder.best, self._module_for_use(), self._notes())
        self.observer.validated(step, self.scores, is_best=is_best)

    def _save(self) -> None:
        self.progress.batches = self.batches.state()
        report = self.batches.report
        skipped = ({image.name: image.reason for image in report.damaged}, list(report.without_masks))
        shares = self.processes.gather(skipped)
        self.processes.on_main(lambda: self._write_checkpoint(shares))
        self._saved_at = self.progress.step

    def _write_checkpoint(self, skipped: Sequence[tuple[Mapping[str, str], Sequence[str]]]) -> None:
        step, folder, module = self.progress.step, self.folder, self._module_for_use()
        for damaged, without_masks in skipped:
            folder.write_skipped(damaged, without_masks)
        check_finite(self.task.module, step)
        save_module(folder.last, module, self._notes())
        if self.config.keep_last_n:
            save_module(folder.step_model(step), module, self._notes())
            folder.drop_models(self.config.keep_last_n)
        # The state is written last: if writing a model fails, the resumed run repeats the steps and writes it again.
        save_state(folder.state, self.task.module, self.optimizer, self.progress)
        self.observer.saved(step)

    def _module_for_use(self) -> nn.Module:
        return self.task.saved_module() if isinstance(self.task, SavesAnotherModule) else self.task.module

    def _notes(self) -> dict[str, str]:
        return {"segany.step": str(self.progress.step)}

    def _tell(self, act: Callable[[], None]) -> None:
        if self.processes.is_main:
            act()

    def _result(self, is_stopped: bool) -> TrainingResult:
        progress, folder = self.progress, self.folder
        end: End = "interrupted" if is_stopped else "early" if progress.step < self.total else "finished"
        return TrainingResult(
            end=end,
            step=progress.step,
            total=self.total,
            best_step=progress.best_step if progress.best is not None else progress.step,
            best_score=progress.best,
            scores=self.scores,
            best=folder.best if progress.best is not None else folder.last,
            last=folder.last,
        )


def _optimizer(task: Task, config: LoopConfig) -> torch.optim.AdamW:
    groups: list[dict[str, Any]] = [dict(group) for group in task.parameter_groups()]
    parameters = [parameter for group in groups for parameter in group["params"]]
    known = {id(parameter) for parameter in task.module.parameters()}
    if not parameters or any(id(parameter) not in known for parameter in parameters):
        raise TrainingError("The task trains nothing, or parameters outside its module, which checkpoints do not hold.")
    for group in groups:
        group["lr"] = config.lr * float(group["lr_scale"])
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas)


def _is_due(every: int | None, step: int) -> bool:
    return every is not None and step > 0 and step % every == 0
