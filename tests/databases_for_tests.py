"""SQLite and PostgreSQL for tests: whatever uses the fixture `database_url` runs on both."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Path]:
    """A PostgreSQL server of the test run, which listens on a socket in this folder and nowhere else."""
    programs = _programs()
    if programs is None:
        if os.environ.get("CI"):
            pytest.fail("PostgreSQL is not installed: make postgres")
        pytest.skip("needs PostgreSQL: make postgres")
    folder = Path(tempfile.mkdtemp(prefix="segany-pg-", dir="/tmp"))  # the path of a socket must be short
    user = "postgres" if os.getuid() == 0 else None  # PostgreSQL does not run as root
    if user:
        shutil.chown(folder, user)

    def run(program: str, *arguments: str) -> None:
        subprocess.run([programs / program, *arguments], check=True, user=user, stdout=subprocess.DEVNULL, cwd=folder)

    data = str(folder / "data")
    run("initdb", "--pgdata", data, "--username", "segany", "--auth", "trust", "--encoding", "UTF8", "--no-sync")
    options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off -c max_connections=200"
    run("pg_ctl", "--pgdata", data, "--wait", "--log", str(folder / "log"), "--options", options, "start")
    try:
        yield folder
    finally:
        run("pg_ctl", "--pgdata", data, "--wait", "--mode", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def shared_postgres_url(postgres: Path) -> str:
    """The URL of a PostgreSQL database that holds the projects of all tests."""
    return new_postgres_database(postgres)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str | None:
    """What `Store.create` takes: None for SQLite, the URL of a PostgreSQL database, which may hold other projects."""
    url: str | None = request.getfixturevalue("shared_postgres_url") if request.param == "postgresql" else None
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/empty.sqlite"
    return new_postgres_database(request.getfixturevalue("postgres"))


def new_postgres_database(socket: Path) -> str:
    """The URL of a new database."""
    import psycopg

    name = f"test_{next(_numbers)}"
    with psycopg.connect(host=str(socket), user="segany", dbname="postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"postgresql+psycopg://segany@/{name}?host={socket}"


def _programs() -> Path | None:
    """The folder of PostgreSQL's programs; Debian does not put it on the path."""
    found = shutil.which("initdb")
    candidates = [Path(found).resolve().parent] if found else []
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in candidates if (folder / "pg_ctl").exists()), None)
