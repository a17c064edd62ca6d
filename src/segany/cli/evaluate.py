"""`segany evaluate`: measures a model on annotated images and videos, from the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from segany.cli.inputs import (
    MaskThresholdOption,
    ObjectsOption,
    RuntimeOption,
    TrustPathsOption,
    check_out_folder,
    load_model,
    parse_formats,
)
from segany.cli.track import DEFAULT_VIDEO_MODEL
from segany.cli.work_bar import ItemBar
from segany.core.errors import ConfigError, check
from segany.core.extras import import_extra
from segany.core.files import path_errors
from segany.data.formats.writing import file_names
from segany.data.opening import DataOptions, Layout, open_dataset
from segany.data.video_folder import default_split, read_video_dataset
from segany.evaluate.protocol import Protocol
from segany.evaluate.protocols import (
    AutomaticProtocol,
    BoxProtocol,
    ClickCountProtocol,
    ClickProtocol,
    proposals_config,
)
from segany.evaluate.report import write_report
from segany.evaluate.results import ModelFacts, Readable, Results
from segany.evaluate.tracking import VideoProtocol, Videos
from segany.hub.model_ref import ModelRef
from segany.jobs.evaluation import EvaluationTask, LoadedModel, evaluate, subject_maker
from segany.models.registry import DEFAULT_MODEL
from segany.predict.automatic import AutomaticConfig

ProposalPreset: TypeAlias = Literal["default", "paper"]

PROTOCOLS = ("clicks", "box", "noc", "automatic", "video")
DEFAULT_PROTOCOLS = "clicks,box"

EXTRAS = {"scipy": "Evaluation needs SciPy", "matplotlib": "Plots need Matplotlib"}
"""Modules that are imported before anything is measured, and not hours later, when they are first used."""


def evaluate_command(
    data: Annotated[
        list[Path], typer.Argument(metavar="DATA...", help="Datasets: folders or files.", show_default=False)
    ],
    model: Annotated[
        str | None,
        typer.Option(
            help="A name from `segany models`, the path of a checkpoint, or an exported folder.",
            show_default=f"{DEFAULT_MODEL}; for videos {DEFAULT_VIDEO_MODEL}",
        ),
    ] = None,
    protocols: Annotated[
        str, typer.Option("--protocol", metavar="LIST", help=f"Any of {', '.join(PROTOCOLS)}; separated by commas.")
    ] = DEFAULT_PROTOCOLS,
    out: Annotated[Path, typer.Option(help="Folder of the results; created if it is missing.")] = Path("evaluation"),
    max_images: Annotated[
        int | None,
        typer.Option(min=1, help="Measure only this number of images or videos, the first ones.", show_default="all"),
    ] = None,
    layout: Annotated[
        Layout | None, typer.Option(help="Layout of the datasets of images.", show_default="detected")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Split of a dataset of videos.", show_default="val, if the dataset lists its splits"),
    ] = None,
    proposals: Annotated[
        ProposalPreset,
        typer.Option(help="Settings of automatic masks: the default ones, or the paper's, four times as slow."),
    ] = "default",
    objects: ObjectsOption = "auto",
    mask_threshold: MaskThresholdOption = 0.5,
    trust_paths: TrustPathsOption = False,
    failures: Annotated[int, typer.Option(min=0, help="Number of the worst objects to draw; 0 for none.")] = 12,
    runtime: RuntimeOption = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1, mps.", show_default="CUDA if available")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Measure again what is measured already.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one line of JSON for each dataset, and nothing else.")
    ] = False,
) -> None:
    """Measure a model on annotated data, by the protocols of the papers.

    clicks: mean IoU after 1, 3 and 5 simulated clicks, and of the best of three candidates after one click.
    box: mean IoU of prompts with the bounding box of the object. noc: number of clicks to reach an IoU of 80, 85
    and 90%. automatic: average recall of automatic masks. video: J, F and J&F of objects that are tracked from
    their first masks.

    After an interrupt, the same command resumes.
    """
    check_out_folder(out, "--out")
    chosen = _protocols(protocols, proposals)
    options = DataOptions(objects, mask_threshold, trust_paths)
    datasets = [_open(path, layout, split, chosen, options) for path in data]
    for module, what in EXTRAS.items():
        import_extra(module, what, "train")
    default = DEFAULT_VIDEO_MODEL if _is_for_videos(chosen) else DEFAULT_MODEL
    loaded = load_model(ModelRef(model or default, runtime, device))
    subject_of, facts = subject_maker(loaded, chosen), ModelFacts.of(loaded)
    with path_errors(out, ConfigError):
        names = file_names([path.resolve() for path in data])
    results = []
    for path, name, dataset in zip(data, names, datasets, strict=True):
        source = f"{path.resolve()}, {type(dataset).__name__}" + (f", {part}" if (part := _split_of(dataset)) else "")
        source += "" if options == DataOptions() else f", {options}"
        try:
            with ItemBar(name, is_quiet=as_json) as bar:
                task = EvaluationTask(dataset, LoadedModel(loaded), facts, tuple(chosen), name, source)
                found = evaluate(task, out / name, max_images=max_images, overwrite=overwrite, progress=bar)
                bar.describe("report")
                write_report(found, dataset, subject_of, out / name, failures=failures)
        except KeyboardInterrupt:
            errors = Console(stderr=True, soft_wrap=True, highlight=False)
            errors.print("Interrupted. Measured images are kept; the same command resumes.")
            raise
        results.append(found)
        if as_json:
            print(json.dumps(found.as_json(), default=str))
    if not as_json:
        _tell(results, datasets, out)


def _protocols(text: str, proposals: ProposalPreset) -> list[Protocol]:
    names = parse_formats(text, PROTOCOLS, "--protocol", "protocol")
    if "video" in names and len(names) > 1:
        raise ConfigError("--protocol video is for videos, the others for images. Give it alone.")
    config = proposals_config() if proposals == "paper" else AutomaticConfig()
    made: dict[str, Protocol] = {
        "clicks": ClickProtocol(),
        "box": BoxProtocol(),
        "noc": ClickCountProtocol(),
        "automatic": AutomaticProtocol(config),
        "video": VideoProtocol(),
    }
    return [made[name] for name in names]


def _is_for_videos(protocols: Sequence[Protocol]) -> bool:
    return any(isinstance(one, VideoProtocol) for one in protocols)


def _open(
    path: Path, layout: Layout | None, split: str | None, protocols: Sequence[Protocol], options: DataOptions
) -> Readable:
    if not _is_for_videos(protocols):
        check(split is None, "--split is for --protocol video.")
        return open_dataset(path, layout, **asdict(options))
    chosen = default_split(path) if split is None else split
    return Videos(read_video_dataset(path, chosen, options.masks), chosen)


def _split_of(dataset: Readable) -> str | None:
    return dataset.split if isinstance(dataset, Videos) else None


def _tell(results: Sequence[Results], datasets: Sequence[Readable], out: Path) -> None:
    """Print the scores as a table, a row for each score and a column for each dataset, and what was not measured."""
    console = Console(soft_wrap=not sys.stdout.isatty(), highlight=False)
    table = Table(title=results[0].model.name, title_justify="left")
    table.add_column("")
    for one in results:
        table.add_column(one.dataset, justify="right")
    for protocol in results[0].protocols:
        numbers = [one.numbers(protocol) for one in results]
        table.add_section()
        for key in numbers[0]:
            table.add_row(f"{protocol.name}: {key}", *[_shown(one.get(key)) for one in numbers])
    console.print(table)
    for one, dataset in zip(results, datasets, strict=True):
        split = _split_of(dataset)
        skipped = f", {len(one.skipped)} could not be read" if one.skipped else ""
        left_out = f", {one.left_out} objects without a pixel left out" if one.left_out else ""
        left_out += "".join(f", {count:,} {what} left out" for what, count in one.omitted.items())
        name = one.dataset if split is None else f"{one.dataset}, split {split}"
        console.print(Text(f"{name}: {one.measured} measured{skipped}{left_out}: {out / one.dataset}"))
        for item in one.skipped:
            console.print(Text(f"  {item.name}: {item.reason}"))


def _shown(value: float | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.4f}"
