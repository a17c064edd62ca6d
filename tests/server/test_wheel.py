"""What users install: a wheel that was built from the source distribution, in an environment of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
STATIC = REPOSITORY / "src" / "segany" / "server" / "static"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a source distribution, and a wheel that was built from it alone."""
    pytest.importorskip("build")
    if not (STATIC / "index.html").exists():
        if os.environ.get("CI"):
            pytest.fail("The page is not built. Run: make web")
        pytest.skip("The page is not built. Run: make web")
    folder = tmp_path_factory.mktemp("dist")
    _run(sys.executable, "-m", "build", "--outdir", str(folder), str(REPOSITORY))
    return folder


@pytest.mark.slow
def test_both_distributions_have_all_of_the_page(built: Path) -> None:
    expected = {file.relative_to(STATIC).as_posix() for file in STATIC.rglob("*") if file.is_file()}
    [sdist], [wheel] = built.glob("*.tar.gz"), built.glob("*.whl")
    with tarfile.open(sdist) as files:
        assert _page(files.getnames()) == expected
    with zipfile.ZipFile(wheel) as files:
        assert _page(files.namelist()) == expected


def _page(names: list[str]) -> set[str]:
    return {after for name in names if (after := name.partition("segany/server/static/")[2])}


def _run(*command: str) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout
