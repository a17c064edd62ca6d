"""Every number on the command line: the largest and the oddest ones are taken or refused in words, at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from tests.data_for_tests import block, picture, save
from tests.models_for_tests import SMALL_TINY_VIT, small_sam, small_sam2
from typer.testing import CliRunner

from segany.cli.app import app
from segany.models.model_file import save_model

INTEGERS = ("100000000000000000000", "-100000000000000000000", "9223372036854775808", "1e3")
NUMBERS = ("nan", "inf", "-inf", "1e400", "-1e308")

HEAVY = {"points_per_side", "crop_n_layers", "points_per_batch"}
"""Options whose large values are work: they are refused, and their limits have tests of their own."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    save_model(small_sam(SMALL_TINY_VIT), folder / "sam.safetensors")
    save_model(small_sam2(), folder / "sam2.safetensors")
    save(folder / "images" / "0.png", picture((24, 32), 0))
    save(folder / "data" / "images" / "0.png", picture((24, 32), 0))
    save(folder / "data" / "masks" / "0.png", block((24, 32), 2, 2, 20, 20).astype("uint8"))
    return folder


def command_lines(files: Path, out: Path) -> dict[str, list[str]]:
    sam = ["--model", str(files / "sam.safetensors")]
    return {
        "segment": [str(files / "images" / "0.png"), "--point", "5,5", "--out", str(out), *sam],
        "auto": [str(files / "images"), "--out", str(out), "--points-per-side", "1", *sam],
        "track": [
            str(files / "images"), "--point", "0:5,5", "--out", str(out), "--model", str(files / "sam2.safetensors"),
        ],
        "evaluate": [str(files / "data"), "--out", str(out), "--protocol", "box", *sam],
        "train": ["finetune_decoder", "--data", str(files / "data"), "--out", str(out), *sam, "--max-steps", "0"],
        "export": ["--out", str(out)],  # without a model, which it says at the end
        "serve": ["--project", "\0"],  # no such folder can be, which it says at the end
    }  # fmt: skip


def numeric_options() -> Iterator[tuple[str, str, str]]:
    """The commands, and their options that are numbers: an option that is new is here."""
    for command in app.registered_commands:
        callback = command.callback
        assert callback is not None
        name = command.name or callback.__name__
        for argument, hint in get_type_hints(callback).items():
            kinds = {"integer": int in (hint, *get_args(hint)), "number": float in (hint, *get_args(hint))}
            for kind in (kind for kind, is_it in kinds.items() if is_it and argument not in HEAVY):
                yield name, f"--{argument.replace('_', '-')}", kind


def test_the_options_are_found() -> None:
    found = {(name, option) for name, option, _ in numeric_options()}
    assert {("track", "--max-frames"), ("auto", "--max-pixels"), ("serve", "--port")} <= found


@pytest.mark.parametrize(("command", "option", "kind"), list(numeric_options()))
def test_odd_numbers_are_taken_or_refused_in_words(
    command: str, option: str, kind: str, files: Path, tmp_path: Path
) -> None:
    for index, value in enumerate(INTEGERS if kind == "integer" else NUMBERS):
        lines = command_lines(files, tmp_path / str(index))
        result = CliRunner().invoke(app, [command, *lines[command], option, value])
        assert result.exception is None or isinstance(result.exception, SystemExit), (value, result.exception)
        assert result.exit_code in (0, 1, 2), (value, result.output)
        assert "Traceback" not in result.output
