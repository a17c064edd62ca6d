"""The output of `segany auto`: a progress bar on stderr, and a line for each image on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from segany.cli.work_bar import ItemBar
from segany.jobs import ItemResult
from segany.jobs.automatic import ImageItem


class AutoReporter:
    """Reports the result of each image."""

    def __init__(self, bar: ItemBar, *, as_json: bool) -> None:
        """Prepare to report, in JSON or as text; `bar` is on the same terminal."""
        self.bar, self.as_json = bar, as_json
        # On a shared terminal, lines must be printed through the bar's console.
        shares_terminal = sys.stdout.isatty() and sys.stderr.isatty()
        self._lines = bar.console if shares_terminal else Console(soft_wrap=True, highlight=False)

    def __call__(self, result: ItemResult[ImageItem]) -> None:
        facts: dict[str, Any] = {"image": str(result.item.source), "status": result.status}
        if result.status == "skipped":
            self.bar.skipped()
        if result.status == "done":
            facts |= {**result.facts, "seconds": round(result.seconds, 4)}
        if result.error is not None:
            facts["error"] = str(result.error)
        if self.as_json:
            self._lines.print(Text(json.dumps(facts)))
        elif result.status == "done":
            self._lines.print(_line(result))


def _line(result: ItemResult[ImageItem]) -> Text:
    height, width = result.facts["size_hw"]
    masks = result.facts["masks"]
    count = f"{masks} mask{'' if masks == 1 else 's'}"
    return Text.assemble((str(result.item.source), "bold"), f"  {width} x {height}, {count}, {result.seconds:.1f} s")


def summarize(results: Sequence[ItemResult[ImageItem]], out: Path) -> Text:
    """The numbers of images that are done, skipped and failed."""
    parts = []
    for status, words in (("done", "done"), ("skipped", "done before"), ("failed", "failed")):
        count = sum(result.status == status for result in results)
        if count:
            parts.append(f"{count} {words}")
    return Text(f"{', '.join(parts) or 'nothing to do'}: {out}")


def list_failures(results: Sequence[ItemResult[ImageItem]], console: Console) -> None:
    """Print which images failed and why."""
    failures = [result for result in results if result.error is not None]
    console.print(Text.assemble(("error: ", "bold red"), f"{len(failures)} of {len(results)} failed:"))
    for result in failures:
        source, message = result.item.source, str(result.error)
        console.print(Text(f"  {message}" if str(source) in message else f"  {source}: {message}"))
