"""`segany.compat.install` and `python -m segany.compat`, in processes of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], check=False, capture_output=True, text=True, cwd=cwd)


def output_of(code: str) -> str:
    done = run("-c", code)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_install_imports_nothing() -> None:
    code = (
        "import sys, segany.compat; segany.compat.install(); print([m for m in ('torch', 'numpy') if m in sys.modules])"
    )
    assert output_of(code) == "[]"


def test_official_names_are_the_drop_in_modules() -> None:
    code = """
import segany.compat
segany.compat.install()
segany.compat.install()
import importlib, sys
for name in ("segment_anything", "segment_anything.utils.amg", "mobile_sam.build_sam", "sam2.sam2_image_predictor"):
    official, ours = importlib.import_module(name), importlib.import_module("segany.compat." + name)
    assert official is ours is sys.modules[name], name
    assert ours.__name__ == ours.__spec__.name == "segany.compat." + name
from segment_anything import SamPredictor
from segment_anything.modeling import Sam
import segment_anything as sa
assert sa.SamPredictor is SamPredictor and sa.utils.amg.MaskData
try:
    import segment_anything.nonsense
except ModuleNotFoundError as error:
    print(error.name)
"""
    assert output_of(code) == "segment_anything.nonsense"


def test_install_refuses_when_the_official_package_has_been_imported(tmp_path: Path) -> None:
    (tmp_path / "sam2.py").write_text("")
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import sam2, segany, segany.compat
try:
    segany.compat.install()
except segany.ConfigError as error:
    print(error)
"""
    message = output_of(code)
    assert "sam2 has been imported already" in message
    assert str(tmp_path) in message


@pytest.mark.parametrize("form", ["script", "module"])
def test_programs_run_unchanged(tmp_path: Path, form: str) -> None:
    (tmp_path / "beside.py").write_text("VALUE = 5\n")
    (tmp_path / "program.py").write_text(
        "import sys\n"
        "import beside\n"
        "from segment_anything import sam_model_registry\n"
        "if __name__ == '__main__':\n"
        "    print(sys.argv[1:], beside.VALUE, sam_model_registry['vit_b'].__module__)\n"
        "    sys.exit(3)\n"
    )
    names = [str(tmp_path / "program.py")] if form == "script" else ["-m", "program"]
    done = run("-m", "segany.compat", *names, "--device", "cpu", cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert done.stdout.strip() == "['--device', 'cpu'] 5 segany.compat.segment_anything.build_sam"


def test_usage() -> None:
    assert "usage: python -m segany.compat" in run("-m", "segany.compat").stderr
    assert "no script nowhere.py" in run("-m", "segany.compat", "nowhere.py").stderr
