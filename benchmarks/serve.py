"""Benchmark of `segany serve`: the real server as a process and, where the page is measured, headless Chromium.

    python -m benchmarks.serve                 # all parts
    python -m benchmarks.serve list save       # some; these two need no browser

Writes results/serve.json, in which the other parts keep their last results, and results/serve.md from it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from benchmarks import serve_page, serve_store
from benchmarks.serve_rows import Row, markdown
from benchmarks.setting import REPOSITORY, Setting

RESULTS = REPOSITORY / "benchmarks" / "results" / "serve.json"


Part = Callable[[Path], list[Row]]
"""Measures in an empty folder."""


def parts() -> dict[str, Part]:
    """The parts of the benchmark, those without a browser first."""
    return {
        "list": serve_store.measure_large_project,
        "save": serve_store.measure_saving_at_once,
        "hover": serve_page.measure_hover,
        "next": serve_page.measure_next_image,
        "crowd": serve_page.measure_crowd,
    }


def main() -> None:
    """Measure, and write the results."""
    measured_by = parts()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="*", help=f"{', '.join(measured_by)}; all of them by default")
    names = parser.parse_args().part or list(measured_by)
    if unknown := set(names) - set(measured_by):
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(measured_by)}")
    in_browser = {"hover", "next", "crowd"} & set(names)
    if in_browser and (missing := serve_page.what_is_missing()):
        parser.error(missing)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in names:
        setting = Setting.current()
        if setting.is_busy:
            print(f"The machine is busy (load {setting.load}): {name} will be slower than on an idle one.", flush=True)
        with tempfile.TemporaryDirectory() as scratch:
            rows = measured_by[name](Path(scratch))
        for row in rows:
            print(f"{name}: {row.title}: {row.p50} / {row.p95} ms {row.note}", flush=True)
        results[name] = {"setting": asdict(setting), "rows": [asdict(row) for row in rows]}
        RESULTS.write_text(json.dumps({key: results[key] for key in measured_by if key in results}, indent=1) + "\n")
    page = RESULTS.with_suffix(".md")
    page.write_text(markdown(json.loads(RESULTS.read_text())))
    print(page)


if __name__ == "__main__":
    main()
