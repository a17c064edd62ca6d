"""No reader hangs at a pipe or device, and whatever is in place of a file is refused by name."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tests.robustness.readers import READERS


@pytest.mark.parametrize("reader", [name for name in READERS if not name.endswith("_dictionary") and name != "geojson"])
def test_no_reader_waits_for_what_is_no_file(reader: str) -> None:
    command = [sys.executable, "-m", "tests.robustness.special_files", reader]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    except subprocess.TimeoutExpired as error:
        pytest.fail(f"{reader} hangs at the last of these: {(error.stdout or b'').decode()}")
    assert result.returncode == 0, result.stdout + result.stderr[-3000:]
