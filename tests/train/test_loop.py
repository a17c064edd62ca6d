"""The loop, on a task of three layers: what a step does, when what happens, and how it goes on."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from tests.train.loop_for_tests import Mean, MeanTask, MemoryBatches, make_item

from segany.core.errors import CheckpointError, ConfigError, TrainingError
from segany.core.progress import Cancellation, ProgressEvent
from segany.train.loop import train
from segany.train.loop_config import LoopConfig
from segany.train.loop_report import Observer
from segany.train.run_folder import RunFolder

QUICK = LoopConfig(
    steps=8,
    batch_size=4,
    lr=0.01,
    warmup_steps=0,
    decay_steps=(6,),
    validate_every=None,
    save_every=None,
    betas=(0.8, 0.9),
)


def changed(**fields: object) -> LoopConfig:
    return replace(QUICK, **fields)


class Log(Observer):
    def __init__(self) -> None:
        self.steps, self.events = [], []

    def started(self, step, total):
        self.events.append(("started", step, total))

    def stepped(self, log):
        self.steps.append(log)

    def validated(self, step, scores, *, is_best):
        self.events.append(("validated", step, is_best))

    def saved(self, step):
        self.events.append(("saved", step))

    @property
    def losses(self) -> list[float]:
        return [step.loss for step in self.steps]


@pytest.fixture(autouse=True)
def no_curves(monkeypatch):
    """They take most of the time, and have tests of their own."""
    monkeypatch.setattr(RunFolder, "draw", lambda folder: None)


def run(folder, config=QUICK, task=None, batches=None, **options):
    """Train, and give the log, the task and the result."""
    log, task = Log(), task or MeanTask()
    result = train(task, MemoryBatches() if batches is None else batches, config, folder, observer=log, **options)
    return log, task, result


def lines(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_step_by_hand(tmp_path):
    """AdamW by its formula, on the gradient of the mean loss of the batch, with the groups' rates and decays.

    Of 20 steps, two at most are warm-up.
    """
    log, task, _ = run(tmp_path, changed(steps=20, warmup_steps=3), max_steps=1)
    by_hand = MeanTask()
    items = [make_item(number) for number in (int(name[5:]) for name in task.runs[0])]
    loss = torch.stack([loss.total for loss in by_hand.losses(items)]).mean()
    loss.backward()
    assert log.losses == pytest.approx([loss.item()])
    assert log.steps[0].lr == pytest.approx(0.01 / 2)
    norm = math.sqrt(sum((p.grad**2).sum().item() for p in by_hand.module.parameters() if p.requires_grad))
    assert log.steps[0].grad_norm == pytest.approx(norm, rel=1e-5)
    for group in by_hand.parameter_groups():
        rate = 0.01 / 2 * group["lr_scale"]
        for parameter in group["params"]:
            with torch.no_grad():
                # After one step both moments, put right for their start at zero, are the gradient and its square.
                parameter.mul_(1 - rate * group["weight_decay"])
                parameter.sub_(rate * parameter.grad / (parameter.grad.abs() + 1e-8))
    for (name, got), expected in zip(task.module.named_parameters(), by_hand.module.parameters(), strict=True):
        torch.testing.assert_close(got, expected, msg=name)


@pytest.mark.parametrize("micro_batch_size", [1, 3, 100])
def test_accumulation_equals_one_big_batch(tmp_path, micro_batch_size):
    """10 items in batches of 4: the last of an epoch has 2, and 4 in pieces of 3 are uneven."""
    whole, _, _ = run(tmp_path / "whole")
    pieces, task, _ = run(tmp_path / "pieces", changed(micro_batch_size=micro_batch_size))
    assert pieces.losses == pytest.approx(whole.losses, rel=1e-5)
    assert max(len(run) for run, trains in zip(task.runs, task.was_training, strict=True) if trains) == min(
        micro_batch_size, 4
    )
    assert [step.items for step in whole.steps] == [4, 4, 2, 4, 4, 2, 4, 4]
    assert [step.epoch for step in whole.steps] == [0, 0, 0, 1, 1, 1, 2, 2]
    assert whole.losses[-1] < whole.losses[0]


def test_clipping_bounds_the_step_but_not_what_is_told(tmp_path):
    free, _, _ = run(tmp_path / "free", changed(steps=1))
    clipped, task, _ = run(tmp_path / "clipped", changed(steps=1, clip_norm=0.5, lr=1e-9))
    assert clipped.steps[0].grad_norm == pytest.approx(free.steps[0].grad_norm)
    assert free.steps[0].grad_norm > 0.5
    gradients = [p.grad for p in task.module.parameters() if p.grad is not None]
    assert math.sqrt(sum((g**2).sum().item() for g in gradients)) == pytest.approx(0.5, rel=1e-4)


def test_modes_and_frozen_weights(tmp_path):
    _, task, _ = run(tmp_path, changed(steps=2, validate_first=True))
    assert task.was_training == [False, True, True, False]
    assert torch.equal(task.module.frozen.weight, Mean().frozen.weight)


def test_bf16_runs_products_in_bf16(tmp_path):
    seen = []
    task = MeanTask()
    task.module.layers[0].register_forward_hook(lambda module, given, output: seen.append(output.dtype))
    run(tmp_path, changed(steps=2, precision="bf16"), task)
    assert seen == [torch.bfloat16, torch.bfloat16, torch.float32]  # validation is in float32
    assert all(parameter.dtype == torch.float32 for parameter in task.module.parameters())


def test_activations_computed_anew_change_nothing(tmp_path):
    plain, _, _ = run(tmp_path / "plain", task=MeanTask(dropout=0.3))
    task = MeanTask(dropout=0.3)
    calls = []
    task.module.layers[0].register_forward_pre_hook(lambda module, given: calls.append(module))
    task.module.layers[0] = torch.nn.Sequential(task.module.layers[0])  # the block, within which the hook is
    again, task, _ = run(tmp_path / "again", changed(checkpoint_activations=True), task)
    assert again.losses == plain.losses
    assert len(calls) == 2 * len(again.steps) + 3  # of which are validations, after two epochs and at the end
    assert "forward" not in vars(task.module.layers[0])


def test_activations_of_blocks_in_evaluation_are_computed_anew_too(tmp_path):
    """A task may hold an encoder's batch norms so, and train its weights."""
    task, calls = MeanTask(), []
    task.module.layers[0].register_forward_pre_hook(lambda module, given: calls.append(module))
    task.module.layers[0] = torch.nn.Sequential(task.module.layers[0])
    plain = task.losses
    task.losses = lambda items: [task.module.layers.eval(), plain(items)][1]
    run(tmp_path, changed(steps=3, checkpoint_activations=True), task)
    assert len(calls) == 2 * 3 + 1


def test_batch_norms_learn_from_a_batch_once(tmp_path):
    """Though their activations are computed twice."""
    states = []
    for name, twice in (("plain", False), ("again", True)):
        task = MeanTask()
        task.module.layers[0] = torch.nn.Sequential(task.module.layers[0], torch.nn.BatchNorm1d(8))
        run(tmp_path / name, changed(steps=3, checkpoint_activations=twice), task)
        assert task.module.layers[0][1].momentum == 0.1
        states.append(task.module.state_dict())
    plain, again = states
    assert plain.keys() == again.keys()
    for name, value in plain.items():
        assert torch.equal(again[name], value), name


def test_blocks_are_compiled_and_names_stay(tmp_path, monkeypatch):
    compiled = []

    def compile_(module):
        compiled.append(module)

    monkeypatch.setattr(torch.nn.Module, "compile", compile_)
    _, task, result = run(tmp_path, changed(steps=1, compile=True))
    assert compiled == list(task.module.layers)
    assert set(load_file(result.last)) == set(task.module.state_dict())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of PyTorch by PyTorch, on its first compilation
def test_compiled_blocks_learn_the_same(tmp_path):
    plain, _, _ = run(tmp_path / "plain")
    compiled, _, _ = run(tmp_path / "compiled", changed(compile=True))
    assert compiled.losses == pytest.approx(plain.losses, rel=1e-4)


def test_when_what_happens(tmp_path):
    config = changed(steps=7, validate_every=3, validate_first=True, save_every=2, keep_last_n=2)
    log, _, result = run(tmp_path, config, MeanTask(scores=[0.5, 0.4, 0.7, 0.6]))
    assert log.events == [
        ("started", 0, 7),
        ("validated", 0, True),
        ("saved", 2),
        ("validated", 3, False),
        ("saved", 4),
        ("validated", 6, True),
        ("saved", 6),
        ("validated", 7, False),
        ("saved", 7),
    ]
    assert (result.end, result.step, result.best_step, result.best_score) == ("finished", 7, 6, 0.7)
    assert result.scores == {"score": 0.6}
    assert sorted(path.name for path in tmp_path.glob("step-*")) == [
        "step-000006.safetensors",
        "step-000007.safetensors",
    ]
    best, last = load_file(result.best), load_file(result.last)
    assert not torch.equal(best["head.weight"], last["head.weight"])
    assert torch.equal(best["head.weight"], load_file(tmp_path / "step-000006.safetensors")["head.weight"])


def test_each_epoch_is_validated(tmp_path):
    """Three steps are an epoch. Validations asked for in between come on top."""
    for every, expected in ((None, [3, 6, 8]), (100, [3, 6, 8]), (2, [2, 3, 4, 6, 8])):
        log, _, _ = run(tmp_path / str(every), changed(validate_every=every))
        assert [event[1] for event in log.events if event[0] == "validated"] == expected


def test_patience(tmp_path):
    config = changed(validate_every=1, patience=2)
    _, _, result = run(tmp_path, config, MeanTask(scores=[0.1, 0.3, 0.2, 0.3, 0.9]))
    assert (result.end, result.step, result.best_step) == ("early", 4, 2)
    again, _, result = run(tmp_path, config, MeanTask(scores=[]), resume=True)
    assert (result.end, result.step, again.steps) == ("early", 4, [])


def test_without_scores_the_last_model_is_the_best(tmp_path):
    task = MeanTask()
    task.validate = lambda: {}
    _, _, result = run(tmp_path, task=task)
    assert result.best == result.last
    assert (result.best_step, result.best_score) == (8, None)


@pytest.mark.parametrize("stop_at", [1, 4, 5, 6])
def test_resuming_gives_the_same_as_never_stopping(tmp_path, stop_at):
    """In the middle of an epoch and at its end, with accumulation, dropout, validations and a bad item."""
    config = changed(steps=10, micro_batch_size=3, validate_every=2)
    whole, task, result = run(tmp_path / "whole", config, MeanTask(dropout=0.2), MemoryBatches(bad=[3]))
    first, _, half = run(tmp_path / "parts", config, MeanTask(dropout=0.2), MemoryBatches(bad=[3]), max_steps=stop_at)
    assert (half.end, half.step, len(first.steps)) == ("interrupted", stop_at, stop_at)
    torch.manual_seed(99)
    rest, resumed, end = run(tmp_path / "parts", config, MeanTask(dropout=0.2), MemoryBatches(bad=[3]), resume=True)
    assert rest.events[0] == ("started", stop_at, 10)
    assert first.losses + rest.losses == whole.losses
    assert (end.best_score, end.best_step, end.scores) == (result.best_score, result.best_step, result.scores)
    expected = task.module.state_dict()
    for name, got in resumed.module.state_dict().items():
        assert torch.equal(got, expected[name]), name
    assert untimed(lines(tmp_path / "parts")) == untimed(lines(tmp_path / "whole"))
    assert json.loads((tmp_path / "parts" / "skipped.json").read_text()) == {
        "damaged": {"item-3": "damaged"},
        "without_masks": ["item-4"],
    }


def untimed(lines: list[dict]) -> list[dict]:
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def test_what_was_logged_after_the_checkpoint_goes(tmp_path):
    """A run that dies leaves metrics of steps that are done again, and maybe half a line."""
    config = changed(save_every=3)
    with pytest.raises(TrainingError):
        run(tmp_path, config, nan_at_step(6))
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3, 3, 4, 5]
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')
    run(tmp_path, config, resume=True)
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3, 3, 4, 5, 6, 6, 7, 8, 8]


def nan_at_step(step: int) -> MeanTask:
    task = MeanTask()
    plain = task.losses

    def losses(items):
        if task.module.training and task.was_training.count(True) == step - 1:
            task.nan_for = items[1].name
        return plain(items)

    task.losses = losses
    return task


def test_a_loss_that_is_not_finite_names_step_and_items(tmp_path):
    task = nan_at_step(6)
    with pytest.raises(TrainingError) as caught:
        run(tmp_path, changed(save_every=3), task)
    message = str(caught.value)
    assert message.startswith("Step 6: the loss is not finite.")
    assert f"{task.nan_for}: nan (error " in message
    assert "The batch: " + ", ".join(task.runs[-1]) in message
    assert f"The last checkpoint in {tmp_path} is that of step 3." in message
    untouched, _, _ = run(tmp_path.parent / "other", changed(steps=3))
    log, _, _ = run(tmp_path, changed(save_every=3), resume=True)
    assert log.events[0] == ("started", 3, 8)
    assert len(untouched.steps) == 3


def test_gradients_that_are_not_finite_stop_the_run_before_the_step(tmp_path):
    task = MeanTask()
    task.module.head.weight.register_hook(lambda gradient: gradient * math.inf)
    before = task.module.head.bias.clone()
    with pytest.raises(TrainingError, match=r"Step 1: the gradients are not finite.*\n.*item-.*No checkpoint had been"):
        run(tmp_path, task=task)
    assert torch.equal(before, task.module.head.bias)
    assert not (tmp_path / "state.safetensors").exists()


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    task = MeanTask()

    def validate():
        with torch.no_grad():
            task.module.head.bias.fill_(math.nan)
        return {"score": math.nan}

    task.validate = validate
    with pytest.raises(TrainingError, match=r"weights are not finite \(head\.bias"):
        run(tmp_path, changed(steps=1), task)
    assert not (tmp_path / "state.safetensors").exists()
    assert not (tmp_path / "best.safetensors").exists()


def test_stopping_saves(tmp_path):
    cancellation = Cancellation()

    def cancel_in_step_3(event: ProgressEvent) -> None:
        assert (event.task, event.total, event.unit) == ("training", 8, "steps")
        if event.done == 3:
            cancellation.cancel()
        cancellation.check()

    log, _, result = run(tmp_path, progress=cancel_in_step_3)
    assert (result.end, result.step) == ("interrupted", 3)
    assert log.events[-1] == ("saved", 3)


def test_a_stop_in_the_last_step_is_no_interruption(tmp_path):
    _, _, result = run(tmp_path, max_steps=8)
    assert result.end == "finished"
    assert result.scores


def test_more_steps_after_the_end(tmp_path):
    run(tmp_path)
    log, _, result = run(tmp_path, changed(steps=10), resume=True)
    assert [step.step for step in log.steps] == [9, 10]
    assert result.end == "finished"


def test_a_folder_with_a_run_is_refused(tmp_path):
    run(tmp_path, changed(steps=1))
    with pytest.raises(TrainingError, match=r"holds a run already.*--resume"):
        run(tmp_path)
    with pytest.raises(TrainingError, match=r"another recipe:\n  loop\.lr: 0\.01 there, 0\.02 now\n"):
        run(tmp_path, changed(lr=0.02), resume=True)
    with pytest.raises(TrainingError, match=r"task\.focal: None there, 3 now"):
        run(tmp_path, description={"task": {"focal": 3}}, resume=True)


def test_a_state_of_another_model(tmp_path):
    run(tmp_path)
    other = MeanTask()
    other.module.head = torch.nn.Linear(8, 2)
    with pytest.raises(CheckpointError, match=r"state of another model: 2 of its trained weights.*head\.bias"):
        run(tmp_path, task=other, resume=True)
    other = MeanTask()
    with torch.no_grad():
        other.module.frozen.weight.add_(1)
    with pytest.raises(CheckpointError, match="training from other weights"):
        run(tmp_path, task=other, resume=True)
    (tmp_path / "state.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="no readable safetensors"):
        run(tmp_path, resume=True)


def test_resuming_where_nothing_is_begins(tmp_path):
    _, _, result = run(tmp_path / "new", resume=True)
    assert result.step == 8


def test_an_epoch_without_items_is_an_error(tmp_path):
    with pytest.raises(TrainingError, match=r"No items are left.*item-0: damaged"):
        run(tmp_path, batches=MemoryBatches(bad=range(10)))
    with pytest.raises(TrainingError, match="no batches"):
        run(tmp_path / "empty", batches=MemoryBatches(count=0))


def test_a_batch_without_items_is_no_step(tmp_path):
    log, _, _ = run(tmp_path, batches=MemoryBatches(count=3, batch=1, bad=[1]))
    assert [step.epoch for step in log.steps] == [0, 0, 1, 1, 2, 2, 3, 3]


def test_a_task_that_trains_nothing(tmp_path):
    task = MeanTask()
    task.parameter_groups = lambda: []
    with pytest.raises(TrainingError, match="trains nothing"):
        run(tmp_path, task=task)


def test_randomness_of_the_caller_is_left_alone(tmp_path):
    task = MeanTask(dropout=0.2)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    run(tmp_path, changed(steps=1), task)
    assert torch.equal(torch.rand(1), expected)


def test_what_is_saved_may_be_another_module(tmp_path):
    task = MeanTask()
    task.saved_module = lambda: task.module.head
    task.samples = lambda: []
    _, _, result = run(tmp_path, task=task)
    assert set(load_file(result.best)) == {"weight", "bias"}


def test_config_error_is_typed():
    with pytest.raises(ConfigError):
        changed(lr=-1.0)


def test_a_run_of_which_nothing_was_saved_is_no_run(tmp_path):
    with pytest.raises(TrainingError, match="not finite"):
        run(tmp_path, task=nan_at_step(1))
    log, _, _ = run(tmp_path, changed(lr=0.001))
    assert len(log.steps) == len([line for line in lines(tmp_path) if "loss" in line])
