"""Parts of datasets."""

from __future__ import annotations

import pytest
from tests.data_for_tests import Shapes

from segany.core.errors import ConfigError, DataError
from segany.data.subsets import only, split_by_name


def test_only() -> None:
    subset = only(Shapes(10), ["folder/007", "folder/002"])
    assert subset.names == ("folder/002", "folder/007")
    assert len(subset) == 2
    assert subset.read(1).name == "folder/007"
    assert subset.read(1).image.max() == 7
    with pytest.raises(DataError, match=r"no image 'x' and 1 others.*like 'folder/000'"):
        only(Shapes(10), ["x", "folder/001", "y"])
    with pytest.raises(DataError, match="No names"):
        only(Shapes(10), [])


def test_split_is_fixed() -> None:
    train, held_out = split_by_name(Shapes(10), 3)
    assert held_out.names == ("folder/000", "folder/007", "folder/009")
    assert sorted(train.names + held_out.names) == list(Shapes(10).names)
    assert split_by_name(Shapes(10), 3, seed=1)[1].names != held_out.names
    assert split_by_name(Shapes(10), 0.3)[1].names == held_out.names


def test_few_images_change_sides() -> None:
    before, after = split_by_name(Shapes(100), 0.2)[1], split_by_name(Shapes(110), 0.2)[1]
    assert (len(before), len(after)) == (20, 22)
    assert len(set(before.names) & set(after.names)) >= 17


def test_folders_stay_together() -> None:
    class Videos(Shapes):
        @property
        def names(self) -> tuple[str, ...]:
            return tuple(f"video{index % 4}/{index:03d}" for index in range(self.count))

    train, held_out = split_by_name(Videos(20), 1, by_folder=True)
    assert len({name.split("/")[0] for name in held_out.names}) == 1
    assert len({name.split("/")[0] for name in train.names}) == 3
    assert len(held_out) == 5


@pytest.mark.parametrize("held_out", [0, -1, 1.5, float("nan"), float("inf")])
def test_no_number(held_out: float) -> None:
    with pytest.raises(ConfigError, match="held_out must be"):
        split_by_name(Shapes(10), held_out)


def test_nothing_left() -> None:
    with pytest.raises(DataError, match="10 of 10 images"):
        split_by_name(Shapes(10), 10)
    with pytest.raises(DataError, match="1 of 1 folders"):
        split_by_name(Shapes(10), 0.5, by_folder=True)
