"""The schema of the API, from which the types of the page are generated: `python -m segany.server.openapi`."""

from __future__ import annotations

import json
import sys

from segany.server.app import make_api


def schema_text() -> str:
    """OpenAPI 3.1 as JSON."""
    return json.dumps(make_api().openapi(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
