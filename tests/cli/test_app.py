"""The command itself: what it costs to start, and how it ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.models_for_tests import small_sam
from typer.testing import CliRunner

import segany
from segany.cli.app import app
from segany.models.model_file import save_model
from segany.models.registry import MODELS

START = "from segany.cli import main; main()"


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", START, *arguments], capture_output=True, text=True, check=False)


def test_version() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout.strip()) == (0, segany.__version__)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["-h"], ["segment", "--help"], ["auto", "-h"], ["models", "-h"], ["weights", "-h"]]
)
def test_help(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0
    assert "Usage" in result.stdout


def test_segment_help_shows_a_prompts_file() -> None:
    assert '"points_xy"' in CliRunner().invoke(app, ["segment", "--help"]).stdout


def test_models_table() -> None:
    result = CliRunner().invoke(app, ["models"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    for name, spec in MODELS.items():
        assert name in result.stdout
        assert f"{spec.megabytes} MB" in result.stdout


def test_unknown_command_is_a_usage_error() -> None:
    assert CliRunner().invoke(app, ["paint"]).exit_code == 2


@pytest.mark.parametrize("verb", ["segment", "auto", "track", "train", "export"])
def test_help_does_not_import_torch(verb: str) -> None:
    code = f"import sys; sys.argv = ['segany', '{verb}', '--help']\nfrom segany.cli import main\n"
    code += "try: main()\nexcept SystemExit: print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "False"


def test_errors_in_a_process_of_its_own() -> None:
    result = command("segment", "missing.png", "--point", "1,1")
    assert result.returncode == 2
    assert result.stderr == "error: There is no file missing.png. Check the path.\n"
    assert result.stdout == ""


def test_closed_pipe_is_quiet() -> None:
    pipe = subprocess.Popen(
        f'"{sys.executable}" -c "{START}" segment --help | head -c 1; exit "${{PIPESTATUS[0]}}"',
        shell=True, executable="/bin/bash", stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    _, stderr = pipe.communicate()
    assert "Traceback" not in stderr
    assert "BrokenPipe" not in stderr


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="there is no /dev/full")
@pytest.mark.parametrize("arguments", [["models"], ["--version"], ["--help"]])
def test_standard_output_is_full(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [sys.executable, "-c", START, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert "standard output could not be written: No space left" in result.stderr


WITHOUT_CLI = "import sys; sys.modules.update(dict.fromkeys(['typer', 'rich', 'click']))\n"
"""As where `segany` is installed without its command line."""


def test_the_library_needs_no_packages_of_the_command_line(tmp_path: Path) -> None:
    model = small_sam()
    save_model(model, tmp_path / "small.safetensors")
    code = WITHOUT_CLI + (
        "import numpy as np\n"
        "import segany\n"
        f"predictor = segany.ImagePredictor(segany.load({str(tmp_path / 'small.safetensors')!r}))\n"
        "prediction = predictor.predict(\n"
        "    predictor.embed(np.zeros((20, 30, 3), np.uint8)), segany.Prompt(points_xy=[[5, 5]])\n"
        ")\n"
        "print(prediction.masks.shape)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "(1, 3, 20, 30)\n"


def test_the_command_without_its_packages_says_what_to_install() -> None:
    code = WITHOUT_CLI + START
    result = subprocess.run([sys.executable, "-c", code, "models"], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert 'pip install "segany[cli]"' in result.stderr
    assert "Traceback" not in result.stderr


def test_warnings_of_the_library_are_shown() -> None:
    code = """import logging, sys
sys.argv = ["segany", "models"]
from segany.cli.app import app
try:
    app()
except SystemExit:
    logging.getLogger("segany.jobs.records").warning("The record %s is damaged.", "a.json")
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stderr == "warning: The record a.json is damaged.\n"


def test_terminals_that_show_only_ascii() -> None:
    result = subprocess.run(
        [sys.executable, "-c", START, "segment", "café.png", "--point", "1,1"],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "ascii:strict"},
    )
    assert result.returncode == 2
    assert rb"There is no file caf\xe9.png" in result.stderr
