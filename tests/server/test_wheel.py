"""What users install: a wheel that was built from the source distribution, in an environment of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import httpx
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


@pytest.mark.slow
def test_the_installed_wheel_serves_its_page(built: Path, tmp_path: Path) -> None:
    [wheel] = built.glob("*.whl")
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=True)
    commands = environment / ("Scripts" if os.name == "nt" else "bin")
    _run(str(commands / "python"), "-m", "pip", "install", "--quiet", f"{wheel}[serve]")
    photo = tmp_path / "photo.png"
    photo.write_bytes((REPOSITORY / "examples" / "images" / "coffee.png").read_bytes())
    command = [str(commands / "segany"), "serve", str(photo), "--project", str(tmp_path / "project"), "--port", "0"]
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    server = subprocess.Popen(
        [*command, "--model", "none", "--no-browser"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        cwd=tmp_path, env={**clean, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert server.stdout is not None
    try:
        lines: list[str] = []
        for line in server.stdout:
            lines.append(line)
            if found := re.search(r"(http://127\.0\.0\.1:\d+)/#token=(\S+)", line):
                break
        else:
            pytest.fail("".join(lines))
        with httpx.Client(base_url=found[1], trust_env=False, timeout=60) as client:
            document = client.get("/")
            assert document.text == (STATIC / "index.html").read_text()
            for name in re.findall(r'(?:src|href)="\./(assets/[^"]+)"', document.text):
                assert client.get(f"/{name}").content == (STATIC / name).read_bytes()
            assert client.post("/api/session", json={"token": found[2]}).status_code == 200
            assert [item["name"] for item in client.get("/api/items").json()["items"]] == ["photo.png"]
    finally:
        server.send_signal(signal.SIGINT)
        rest, _ = server.communicate(timeout=60)
    assert server.returncode == 0, rest


def _page(names: list[str]) -> set[str]:
    return {after for name in names if (after := name.partition("segany/server/static/")[2])}


def _run(*command: str) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout
