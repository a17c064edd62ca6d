"""Items in batches."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.data_for_tests import Shapes

from segany.core.errors import ConfigError, DataError, MissingExtraError
from segany.data import AnnotatedImage, ItemConfig, Loader, TrainingItem
from segany.data.loading import PackedItem, Slot

CONFIG = ItemConfig(side=8, jitter=(0.8, 1.5), flip=0.5)


TEN = Shapes(10)


def loader(dataset: Any = TEN, **options: Any) -> Loader:
    return Loader(dataset, CONFIG, **{"batch_size": 4, "seed": 5, **options})


def seen(item: TrainingItem) -> tuple[Any, ...]:
    """All of an item, for comparison."""
    return item.name, item.seed, item.image.tobytes(), item.masks.tobytes(), item.boxes_xyxy.tolist()


def epochs(of: Loader, count: int = 1) -> list[list[tuple[Any, ...]]]:
    return [[seen(item) for item in batch] for _ in range(count) for batch in of]


def names(batches: list[list[tuple[Any, ...]]]) -> list[str]:
    return [item[0] for batch in batches for item in batch]


def test_an_epoch_has_every_image_and_whole_batches() -> None:
    batches = epochs(loader())
    assert [len(batch) for batch in batches] == [4, 4, 4]
    assert len(loader()) == 3
    assert set(names(batches)[:10]) == set(Shapes(10).names)
    assert names(batches)[10:] == names(batches)[:2]
    assert len({item[1] for batch in batches for item in batch}) == 12  # a seed each


def test_epochs_differ_and_repeat() -> None:
    first, again = epochs(loader(), 2), epochs(loader(), 2)
    assert first == again
    assert names(first[:3]) != names(first[3:])
    assert epochs(loader(seed=6)) != first[:3]


def test_batch_size_does_not_change_items() -> None:
    by_name = {item[0]: item for batch in epochs(loader(batch_size=5)) for item in batch}
    assert by_name == {item[0]: item for batch in epochs(loader(batch_size=10)) for item in batch}


def test_small_datasets_fill_a_batch_several_times() -> None:
    assert names(epochs(loader(Shapes(1), batch_size=3))) == ["folder/000"] * 3


@pytest.mark.parametrize("damaged", [frozenset(), frozenset({2, 7, 8})])
def test_processes_see_together_what_one_sees(damaged: frozenset[int]) -> None:
    dataset = Shapes(10, damaged)
    alone = epochs(loader(dataset), 2)
    ranks = [epochs(loader(dataset, process=(rank, 2)), 2) for rank in range(2)]
    assert [one + other for one, other in zip(*ranks, strict=True)] == alone


def test_resuming_equals_never_stopping() -> None:
    whole = epochs(loader(), 3)
    for done in range(7):
        first = loader()
        batches = []
        while len(batches) < done:
            for batch in first:
                batches.append([seen(item) for item in batch])
                if len(batches) == done:
                    break
        state = json.loads(json.dumps(first.state()))
        second = loader(process=(0, 1))
        second.restore(state)
        while len(batches) < len(whole):
            batches.extend(epochs(second))
        assert batches == whole


def test_a_loop_left_early_goes_on() -> None:
    one = loader()
    for batch in one:
        first = [seen(item) for item in batch]
        break
    assert (one.epoch, one.batch) == (0, 1)
    assert [first, *epochs(one)] == epochs(loader())
    assert (one.epoch, one.batch) == (1, 0)


def test_state_of_another_run() -> None:
    state = loader().state()
    for other, what in [
        (loader(seed=6), "seed"),
        (loader(batch_size=2), "batch_size"),
        (loader(Shapes(11)), "images"),
    ]:
        with pytest.raises(DataError, match=f"its {what} is"):
            other.restore(state)
    for damage in ({"batch": 3}, {"batch": -1}, {"epoch": None}, {"epoch": "1"}):
        with pytest.raises(DataError, match="cannot be restored"):
            loader().restore({**state, **damage})
    with pytest.raises(DataError, match="cannot be restored"):
        loader().restore({})


def test_damaged_images_are_replaced_and_reported() -> None:
    good, bad = epochs(loader()), loader(Shapes(10, frozenset({3}), frozenset({6})))
    batches = epochs(bad, 2)
    for before, after in zip(good, batches, strict=False):
        for one, other in zip(before, after, strict=True):
            assert other == one or one[0] in ("folder/003", "folder/006")  # the others stay where they are
            assert other[0] not in ("folder/003", "folder/006")
    report = bad.report
    assert [(skipped.name, skipped.reason) for skipped in report.damaged] == [("folder/003", "image 3 is damaged")]
    assert report.without_masks == ("folder/006",)
    assert report.items == 24


def test_too_much_damage() -> None:
    many = loader(Shapes(200, frozenset(index for index in range(200) if index % 4)), batch_size=20)
    with pytest.raises(DataError, match=r"of the 1\d\d images read so far are damaged.*The first: folder/\d+: image"):
        epochs(many)
    with pytest.raises(DataError, match=r"2 of the 3 images read so far are damaged"):
        epochs(loader(Shapes(3, frozenset({0, 1}))))
    half = loader(Shapes(40, frozenset(range(20))))
    epochs(half)
    assert len(half.report.damaged) == 20
    with pytest.raises(DataError, match=r"20 of the 40 images"):
        epochs(loader(Shapes(40, frozenset(range(20))), max_damaged=0.4))


def test_nothing_can_be_used() -> None:
    with pytest.raises(DataError, match=r"4 images were tried.*The first: image \d is damaged"):
        epochs(loader(Shapes(4, frozenset(range(4)))))
    with pytest.raises(DataError, match=r"of 4 no mask was left. The first: no mask was left of folder/00"):
        epochs(loader(Shapes(4, without_masks=frozenset(range(4)))))


def test_a_missing_extra_is_no_damage() -> None:
    class Videos(Shapes):
        def read(self, index: int) -> AnnotatedImage:
            raise MissingExtraError("install PyAV")

    with pytest.raises(MissingExtraError):
        epochs(loader(Videos(4)))


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 0},
        {"seed": -1},
        {"workers": -1},
        {"process": (2, 2)},
        {"process": (-1, 2)},
        {"batch_size": 5, "process": (0, 2)},
        {"max_damaged": 2.0},
    ],
)
def test_settings_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        loader(**options)


def test_empty_dataset() -> None:
    with pytest.raises(DataError, match="empty"):
        loader(Shapes(0))


def test_seeds_of_items_are_fixed() -> None:
    assert Slot(0, 0, 0, 0).item_seed == 7896617691693857887
    assert len({Slot(*key, 0).item_seed for key in np.ndindex(5, 5, 5)}) == 125


def test_packing_loses_nothing() -> None:
    for batch in loader():
        for item in batch:
            assert seen(PackedItem.of(item).unpacked()) == seen(item)


@pytest.fixture(scope="module")
def with_workers() -> Iterator[Loader]:
    with loader(Shapes(10, frozenset({3}), frozenset({6})), workers=2) as pool:
        yield pool


def test_workers_make_no_difference(with_workers: Loader) -> None:
    alone = loader(Shapes(10, frozenset({3}), frozenset({6})))
    for batch in with_workers:
        first = [seen(item) for item in batch]
        break
    assert [first, *epochs(with_workers, 2)] == epochs(alone, 2)
    assert with_workers.report == alone.report


def test_workers_end_when_closed(with_workers: Loader) -> None:
    epochs(with_workers)
    assert with_workers._pool is not None
    processes = list(with_workers._pool._executor._processes.values())
    assert processes
    with_workers.close()
    assert not any(process.is_alive() for process in processes)


@dataclass(frozen=True)
class Deadly(Shapes):
    """A dataset whose images end the process that reads them."""

    def read(self, index: int) -> AnnotatedImage:
        os._exit(3)


def test_a_worker_that_dies() -> None:
    with loader(Deadly(4), workers=1) as dying, pytest.raises(DataError, match="has died"):
        epochs(dying)


def test_a_dataset_that_workers_cannot_have() -> None:
    class Local(Shapes):
        """Of a class that no module has."""

    with loader(Local(4), workers=1) as here, pytest.raises(DataError, match=r"cannot be given.*workers=0"):
        epochs(here)


def test_a_dataset_of_a_module_that_workers_do_not_find(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that a recipe's file has defined."""
    module = types.ModuleType("not_on_any_path")
    kind = type("Mine", (Shapes,), {"__module__": module.__name__})
    module.Mine = kind  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    with loader(kind(4), workers=1) as there, pytest.raises(DataError, match=r"No module named.*workers=0"):
        epochs(there)


PROGRAM = """
import sys, time
from tests.data_for_tests import Shapes
from segany.data import ItemConfig, Loader

if __name__ == "__main__":
    with Loader(Shapes(50), ItemConfig(side=8), batch_size=1, workers=2) as loader:
        while True:
            for batch in loader:
                print(*(process.pid for process in loader._pool._executor._processes.values()), flush=True)
                time.sleep(0.05)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals are others there")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_is_left_behind(tmp_path: Path, how: signal.Signals) -> None:
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)}
    with subprocess.Popen(
        [sys.executable, program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        start_new_session=True,
    ) as running:  # fmt: skip
        assert running.stdout is not None
        workers: list[int] = []
        while len(workers) < 2:
            workers = [int(number) for number in running.stdout.readline().split()]
        if how == signal.SIGINT:
            os.killpg(running.pid, how)  # as a terminal does
        else:
            running.kill()
        _, errors = running.communicate(timeout=30)
    if how == signal.SIGINT:
        assert errors.strip().endswith("KeyboardInterrupt")
        assert errors.count("Traceback") == 1
    deadline = time.monotonic() + 10
    while any(_is_alive(worker) for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{process}/stat")
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")  # dead but not buried


def test_torch_is_not_touched() -> None:
    code = "import sys; import segany.data; assert 'torch' not in sys.modules"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
