"""Files that claim or unpack to far more than they hold are refused at once and in little memory."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from tests.robustness.bombs import BOMBS
from tests.robustness.readers import MEMORY, SECONDS


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if "zeros" in name or name.startswith("npz") else name
        for name in BOMBS
    ],
)
def test_refusing_takes_neither_long_nor_much_memory(name: str) -> None:
    command = [sys.executable, "-m", "tests.robustness.bombs", name]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    found = json.loads(result.stdout.splitlines()[-1])
    assert found["seconds"] < SECONDS
    assert found["bytes"] < MEMORY
