"""`segany serve`: annotate images in a browser."""

from __future__ import annotations

import getpass
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segany.core.extras import import_extra

if TYPE_CHECKING:
    from segany.store import Store

PORT = 8765

CACHE_GB = 10.0


def serve(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PATH", help="Images, and folders of images, to annotate.", show_default=False),
    ] = None,
    project: Annotated[
        Path | None,
        typer.Option(help="Folder of the project; made if it is not there.", show_default="in your user's data folder"),
    ] = None,
    database: Annotated[
        str | None,
        typer.Option(help="Of a new project: postgresql+psycopg://… instead of SQLite.", show_default=False),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="As for `segany segment`, or none.", show_default="mobile_sam"),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port at 127.0.0.1; 0 takes a free one.")] = PORT,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Do not open the page.")] = False,
    copy: Annotated[bool, typer.Option("--copy", help="Copy the images into the project.")] = False,
    cache_size: Annotated[
        float, typer.Option("--cache-size", min=0, metavar="GB", help="Embeddings that are kept on disk.")
    ] = CACHE_GB,
    host: Annotated[str, typer.Option(help="Only 127.0.0.1 is possible.", hidden=True)] = "127.0.0.1",
    page: Annotated[
        Path | None, typer.Option(help="Folder of another build of the page, to develop it.", hidden=True)
    ] = None,
) -> None:
    """Annotate images in a browser: masks appear under the mouse, and are kept in a project.

    Images stay where they are, unless --copy is given. Everything stays on this machine.
    """
    for module in ("fastapi", "uvicorn", "websockets", "python_multipart"):
        import_extra(module, "The annotation server needs more packages", "serve")
    from segany.engine import current_model
    from segany.hub.model_ref import ModelRef
    from segany.models.registry import DEFAULT_MODEL, find_spec
    from segany.server.intake import find_files
    from segany.server.pages import STATIC
    from segany.server.running import ServeConfig
    from segany.server.running import serve as run
    from segany.store import default_project

    if model is not None and model != "none" and not Path(model).exists():
        find_spec(model)  # a name that is misspelled
    folder = project or default_project()
    config = ServeConfig(
        static=page or STATIC,
        host=host, port=port, files=find_files(paths or [], folder), copy=copy,
        model=None if model == "none" else ModelRef(model or DEFAULT_MODEL), max_cache_bytes=int(cache_size * 2**30),
        author=_user(), opens_browser=not no_browser,
    )  # fmt: skip
    config.check()
    with _opened(folder, "" if project else "Annotations", database) as store:
        if store.backup is not None:
            typer.echo(f"The project was brought to this version; before that, it was copied to {store.backup}.")
        typer.echo(f"Project {store.project.name!r} in {store.folder}")
        if model is None and (current := current_model(store)) is not None:
            config = replace(config, model=current)
        run(store, config, typer.echo)


def _opened(folder: Path, name: str, database: str | None) -> Store:
    from segany.store import Store

    if Store.is_project(folder):
        return Store.open(folder, database=database)
    return Store.create(folder, name, database=database)


def _user() -> str:
    try:
        return getpass.getuser()[:200]
    except (OSError, KeyError, ImportError):  # no name for this user
        return "you"
