"""Options for work on many workers, and `segany auto --format parquet`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import Annotated, Literal, TypeAlias

import typer
from rich.console import Console
from rich.text import Text

from segany.cli.work_bar import EventBars
from segany.core.errors import ConfigError, OutputError
from segany.jobs.executors import Executor, LocalExecutor, RayExecutor
from segany.jobs.scale import ImageDone, ScaleTask, run_at_scale
from segany.jobs.sources import is_url, list_sources

PARQUET = "parquet"

SOME_FAILED = 1

ExecutorName: TypeAlias = Literal["local", "ray"]

_PANEL = "Many workers"

ExecutorOption = Annotated[
    ExecutorName,
    typer.Option(help="Where to compute: in this process, or by workers of Ray.", rich_help_panel=_PANEL),
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        help="Address of a running Ray cluster, such as auto or ray://host:10001.",
        show_default="a cluster on this machine",
        rich_help_panel=_PANEL,
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(min=1, max=100_000, help="Number of workers.", show_default="as many as fit", rich_help_panel=_PANEL),
]
WorkerCpusOption = Annotated[
    int, typer.Option(min=1, max=1024, help="CPU cores of each worker.", rich_help_panel=_PANEL)
]
WorkerGpusOption = Annotated[
    float, typer.Option(min=0, max=64, help="GPUs of each worker; a fraction shares one.", rich_help_panel=_PANEL)
]


def parse_executor(
    name: ExecutorName, address: str | None, workers: int | None, worker_cpus: int, worker_gpus: float
) -> Executor:
    """The executor of the options.

    Raises:
        ConfigError: options of Ray are given for the local executor.
    """
    if name == "ray":
        return RayExecutor(address, workers, worker_cpus, worker_gpus)
    if (address, workers, worker_cpus, worker_gpus) != (None, None, 1, 0.0):
        raise ConfigError("--address, --workers, --worker-cpus and --worker-gpus are for --executor ray.")
    return LocalExecutor()


def check_local(places: Sequence[str]) -> None:
    """Raise `OutputError` if one of the places is a URL, which only Parquet takes."""
    for place in places:
        if is_url(place):
            raise OutputError(f"{place} is a URL. Images are read from URLs, and written there, with --format parquet.")


def auto_at_scale(
    task: ScaleTask, places: Sequence[str], executor: Executor, *, overwrite: bool, as_json: bool
) -> None:
    """Find automatic masks of images in any storage, and print what became of each."""
    errors, lines = Console(stderr=True, soft_wrap=True, highlight=False), Console(soft_wrap=True, highlight=False)
    failures: list[ImageDone] = []

    def tell(result: ImageDone) -> None:
        if result.status == "failed":
            failures.append(result)
        if as_json:
            facts = {"image": result.url, "status": result.status, "masks": result.masks, "seconds": result.seconds}
            lines.print(Text(json.dumps(facts | ({"error": result.error} if result.error else {}))))

    started = time.monotonic()
    try:
        with EventBars() as bars:
            results = run_at_scale(
                task, list_sources(places), executor, overwrite=overwrite, progress=bars, on_result=tell
            )
    except KeyboardInterrupt:
        errors.print("Interrupted. Finished parts are kept; the same command resumes.")
        raise
    seconds = time.monotonic() - started
    counts = {status: sum(one.status == status for one in results) for status in ("done", "skipped", "failed")}
    if not as_json:
        words = {"done": "done", "skipped": "done before", "failed": "failed"}
        parts = [f"{count:,} {words[status]}" for status, count in counts.items() if count]
        rate = f", {counts['done'] / seconds:.2f} images/s" if counts["done"] else ""
        lines.print(Text(f"{', '.join(parts) or 'nothing to do'}: {task.out}{rate}"))
    if failures:
        errors.print(Text.assemble(("error: ", "bold red"), f"{len(failures):,} of {len(results):,} failed:"))
        for failure in failures[:100]:
            errors.print(Text(f"  {failure.error}"))
        if len(failures) > 100:
            errors.print(Text(f"  and {len(failures) - 100:,} more; --json lists all of them"))
        sys.stdout.flush()
        raise typer.Exit(SOME_FAILED)
