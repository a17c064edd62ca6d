"""Files from strangers are read or refused with a `SeganyError`: quickly, in little memory, whatever their bytes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from tests.robustness.readers import READERS


def run(reader: str, count: int, seed: int) -> list[dict[str, object]]:
    """In a process of its own: a crash is a failure of that reader alone."""
    command = [sys.executable, "-m", "tests.robustness.readers", reader, str(count), str(seed)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=3600)
    assert result.returncode == 0, f"{reader} ended with {result.returncode}: {result.stderr[-3000:]}"
    found: list[dict[str, object]] = json.loads(result.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("reader", READERS)
def test_mutated_files_are_read_or_refused(reader: str) -> None:
    assert run(reader, 60, seed=1) == []


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
def test_thousands_of_mutated_files_are_read_or_refused(reader: str) -> None:
    assert run(reader, 3000, seed=2) == []
