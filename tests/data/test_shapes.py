from __future__ import annotations

import numpy as np
import pytest

from segany.core.errors import ConfigError
from segany.data.item import Dataset
from segany.data.shapes import Shapes


def test_a_picture_follows_from_the_seed_and_its_number() -> None:
    data: Dataset = Shapes(5)
    one, again, other = data.read(3), Shapes(9).read(3), Shapes(5, seed=1).read(3)
    assert one.name == data.names[3] == again.name != other.name
    np.testing.assert_array_equal(one.image, again.image)
    assert one.instances == again.instances
    assert not np.array_equal(one.image, other.image)


def test_objects_do_not_overlap_and_can_be_seen() -> None:
    data = Shapes(50, side=96, most=5)
    sizes = set()
    for index in range(len(data)):
        picture = data.read(index)
        masks = np.stack([picture.instances.mask(number) for number in range(len(picture.instances))])
        assert picture.image.shape == (96, 96, 3)
        assert picture.image.dtype == np.uint8
        assert masks.sum(axis=0).max() == 1
        assert masks.any(axis=(1, 2)).all()
        sizes.add(len(picture.instances))
    assert sizes >= {1, 2, 3, 4}


def test_numbers_beyond_the_last_and_settings_out_of_range_are_refused() -> None:
    with pytest.raises(IndexError):
        Shapes(2).read(2)
    with pytest.raises(ConfigError, match="side"):
        Shapes(2, side=8)
    with pytest.raises(ConfigError, match="positive"):
        Shapes(0)
