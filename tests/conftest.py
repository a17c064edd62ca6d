from __future__ import annotations

import os
from pathlib import Path

# Waiting threads should not keep a busy machine busier; read when torch is first imported.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import pytest

from segany.core.errors import WeightsError
from segany.hub import fetch_weights
from segany.models.registry import find_spec


@pytest.fixture(scope="session")
def mobile_sam_path() -> Path:
    """The real MobileSAM checkpoint, fetched into the user's own cache on first use."""
    try:
        return fetch_weights(find_spec("mobile_sam"))
    except WeightsError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"needs the MobileSAM checkpoint: {error}")
