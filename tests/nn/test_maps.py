"""Windows, strips and rows: cutting a map into pieces and back changes nothing."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from segany.kernels import optimize
from segany.kernels.strips import by_rows, convolve_in_strips, rows_of
from segany.nn.layers import FeedForward, LayerNorm2d
from segany.nn.positions import RandomFourierPositions, axial_rotations, halves_first, relative_position_rows, sine_grid
from segany.nn.windows import partition, unpartition


@pytest.mark.parametrize("size_hw", [(14, 14), (16, 9), (7, 1), (5, 30)])
def test_unpartition_undoes_partition(size_hw: tuple[int, int]) -> None:
    x = torch.randn(2, *size_hw, 3)
    windows = partition(x, 7)
    assert windows.shape[1:] == (49, 3)
    torch.testing.assert_close(unpartition(windows, 7, size_hw), x)


def test_partition_fills_the_border() -> None:
    windows = partition(torch.ones(1, 1, 1, 2), 2, fill=torch.tensor([5.0, 7.0]))
    assert windows.tolist() == [[[1, 1], [5, 7], [5, 7], [5, 7]]]
    assert partition(torch.ones(1, 1, 1, 2), 2)[0, 1].tolist() == [0, 0]


def test_windows_are_square_neighborhoods() -> None:
    x = torch.arange(16.0).reshape(1, 4, 4, 1)
    assert partition(x, 2)[:, :, 0].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]


@pytest.mark.parametrize("budget", [1, 200, 10**6])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("height", [8, 10])
def test_strips_give_the_whole_convolution(
    monkeypatch: pytest.MonkeyPatch, budget: int, stride: int, height: int
) -> None:
    monkeypatch.setattr("segany.kernels.strips.CACHE_BUDGET", budget)
    x, weight = torch.randn(1, height, 6, 4), torch.randn(5, 4, 3, 3)

    def consume(rows: torch.Tensor, top: int, bottom: int) -> torch.Tensor:
        out = F.conv2d(rows.permute(0, 3, 1, 2), weight, None, stride, padding=(0, 1)).permute(0, 2, 3, 1)
        assert out.shape[1] == bottom - top
        return out

    expected = F.conv2d(x.permute(0, 3, 1, 2).exp(), weight, None, stride, padding=1).permute(0, 2, 3, 1)
    with torch.inference_mode():
        out = convolve_in_strips(lambda a, b: x[:, a:b].exp(), consume, (height, 6, 4), stride)
    torch.testing.assert_close(out, expected, atol=1e-4, rtol=1e-4)


def test_rows_beyond_the_map_are_zero() -> None:
    x = torch.ones(1, 3, 2, 1)
    assert rows_of(x, -1, 4)[0, :, 0, 0].tolist() == [0, 1, 1, 1, 0]
    assert rows_of(x, 1, 3).shape == (1, 2, 2, 1)


def test_layers_by_rows_give_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segany.kernels.strips.CACHE_BUDGET", 100)
    layer, x = optimize(FeedForward(8, 32)), torch.randn(2, 40, 50, 8)
    plain = layer(x)
    pieces = []
    with torch.inference_mode():
        torch.testing.assert_close(layer(x), plain)
        by_rows(lambda rows: pieces.append(len(rows)) or rows, x, 32)
    assert len(pieces) > 1
    assert sum(pieces) == 4000


def test_layer_norm_2d_normalizes_channels() -> None:
    x = torch.randn(2, 6, 3, 4) * 5 + 2
    out = LayerNorm2d(6)(x)
    torch.testing.assert_close(out.mean(1), torch.zeros(2, 3, 4), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.var(1, unbiased=False), torch.ones(2, 3, 4), atol=1e-4, rtol=0)


def test_relative_positions_depend_on_the_distance_alone() -> None:
    rows = relative_position_rows(torch.arange(7.0)[:, None], 4)[..., 0]
    assert rows.tolist() == [[3, 2, 1, 0], [4, 3, 2, 1], [5, 4, 3, 2], [6, 5, 4, 3]]


def test_position_grid_encodes_the_centers_x_first() -> None:
    positions = RandomFourierPositions(8)
    grid = positions.grid((2, 4))
    assert grid.shape == (2, 4, 8)
    torch.testing.assert_close(grid[1, 2], positions(torch.tensor([2.5 / 4, 1.5 / 2])))


def test_rotations_are_complex_products() -> None:
    """Neighboring channels are a complex number, which turns with the column in the first half, then the row."""
    torch.manual_seed(0)
    x = torch.randn(2 * 3, 16)
    frequencies = 10000.0 ** -(torch.arange(0, 16, 4) / 16)
    index = torch.arange(6)
    angles = torch.cat([(index % 3)[:, None] * frequencies, (index // 3)[:, None] * frequencies], dim=1)
    turned = torch.view_as_complex(x.unflatten(1, (8, 2))) * torch.polar(torch.ones(6, 8), angles)
    expected = torch.view_as_real(turned).flatten(1)
    ours = axial_rotations((2, 3), 16, x).rotate(halves_first(x.T).T)
    torch.testing.assert_close(ours, halves_first(expected.T).T)


def test_sines_tell_positions_apart() -> None:
    grid = sine_grid((3, 4), 32, torch.zeros(1))
    assert grid.shape == (12, 32)
    assert len({tuple(row.tolist()) for row in grid}) == 12
    torch.testing.assert_close(grid[0, :16], grid[3, :16])  # the first half is for the row alone
    torch.testing.assert_close(grid[1, 16:], grid[9, 16:])
