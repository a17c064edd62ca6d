from __future__ import annotations

import pytest
import torch

from segany.kernels import compute
from segany.kernels.attention import attend, relative_position_attention


def plain_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    tables: list[torch.Tensor],
    size_hw: tuple[int, int],
) -> torch.Tensor:
    """Straight from the definition, one query and key at a time for the positions."""
    height, width = size_hw
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    for q in range(height * width):
        for k in range(height * width):
            rows, columns = q // width - k // width, q % width - k % width
            offset = tables[0][rows + height - 1] + tables[1][columns + width - 1]
            scores[..., q, k] += query[..., q, :] @ offset
    return torch.softmax(scores, -1) @ value


@pytest.mark.parametrize("size_hw", [(4, 4), (3, 5)])
def test_matches_the_definition(size_hw: tuple[int, int]) -> None:
    torch.manual_seed(0)
    height, width = size_hw
    query, key, value = torch.randn(3, 2, 3, height * width, 8)
    tables = [torch.randn(2 * height - 1, 8), torch.randn(2 * width - 1, 8)]
    expected = plain_attention(query, key, value, tables, size_hw)
    plain = relative_position_attention(query, key, value, *tables, size_hw)
    with torch.inference_mode():
        fast = relative_position_attention(query, key, value, *tables, size_hw)
    torch.testing.assert_close(plain, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(fast, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("budget", [16, 100, 20_000])
def test_pieces_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch, budget: int) -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 1, 2, 36, 4)
    tables = [torch.randn(11, 4), torch.randn(11, 4)]
    plain = relative_position_attention(query, key, value, *tables, (6, 6))
    monkeypatch.setattr("segany.kernels.attention.CACHE_BUDGET", budget)
    with torch.inference_mode():
        fast = relative_position_attention(query, key, value, *tables, (6, 6))
    torch.testing.assert_close(fast, plain, atol=1e-5, rtol=1e-5)


def test_fast_form_is_for_inference_on_a_cpu_only() -> None:
    x = torch.zeros(1)
    assert not compute.fast_cpu(x)
    with torch.no_grad():
        assert compute.fast_cpu(x)
        assert not compute.fast_cpu(torch.zeros(1, device="meta"))


@pytest.mark.parametrize("shape", [(40, 8), (2, 50, 8), (3, 8), (1, 4, 4, 8)])
def test_linear_is_linear(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(shape), torch.randn(5, 8), torch.randn(5)
    with torch.inference_mode():
        for given in (bias, None):
            out = compute.linear(x, weight, given)
            torch.testing.assert_close(out, torch.nn.functional.linear(x, weight, given))
            assert out.is_contiguous()


def test_linear_takes_strided_rows() -> None:
    x, weight = torch.randn(8, 64).t(), torch.randn(5, 8)
    with torch.inference_mode():
        out = compute.linear(x, weight)
        torch.testing.assert_close(out, x @ weight.t())
        assert out.is_contiguous()


@pytest.mark.parametrize(("shared", "prompts"), [(1, 1), (1, 3), (3, 3), (3, 1)])
def test_batched_linear_shares_leading_axes(shared: int, prompts: int) -> None:
    x, weight = torch.randn(shared, 64, 8), torch.randn(prompts, 5, 8)
    with torch.inference_mode():
        torch.testing.assert_close(compute.batched_linear(x, weight), x @ weight.transpose(1, 2))


@pytest.mark.parametrize(
    ("tokens", "keys", "value_channels"),
    [(16, 16, 8), (9, 5, 8), (300, 700, 8), (300, 700, 3)],
)
@pytest.mark.parametrize("budget", [None, 5000])
def test_attending_in_pieces_is_plain_attention(
    tokens: int, keys: int, value_channels: int, budget: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if budget:
        monkeypatch.setattr("segany.kernels.attention.CACHE_BUDGET", budget)
    torch.manual_seed(0)
    query, key = torch.randn(2, 3, tokens, 8) * 9, torch.randn(2, 3, keys, 8)  # some scores are far above others
    value = torch.randn(2, 3, keys, value_channels)
    expected = torch.softmax(query @ key.transpose(-1, -2) * 8**-0.5, -1) @ value
    torch.testing.assert_close(attend(query, key, value), expected, atol=1e-5, rtol=1e-4)
    with torch.inference_mode():
        torch.testing.assert_close(attend(query, key, value), expected, atol=1e-5, rtol=1e-4)
