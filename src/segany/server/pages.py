"""The built page. Which files there are is listed at the start, so that no request ever names a path."""

from __future__ import annotations

from pathlib import Path

from starlette.responses import FileResponse, JSONResponse, Response
from starlette.types import Receive, Scope, Send

from segany.core.errors import StoreError

STATIC = Path(__file__).parent / "static"

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".webp": "image/webp",
    ".woff2": "font/woff2",
}
"""The media types of the page's files: those of the operating system may be wrong."""

HASHED = "/assets/"
"""Files below it have a digest of their content in their names."""


def check_page(folder: Path = STATIC) -> None:
    """Raise `StoreError` unless the page was built."""
    if not (folder / "index.html").is_file():
        raise StoreError(
            f"The page is not built: {folder / 'index.html'} is missing. Installed packages have it; in a clone, "
            "build it with Node.js: make web"
        )


class Pages:
    """The ASGI application of the page."""

    def __init__(self, folder: Path = STATIC) -> None:
        self._files = {
            f"/{file.relative_to(folder).as_posix()}": file
            for file in sorted(folder.rglob("*"))
            if file.is_file() and file.suffix in _TYPES
        }
        if "/index.html" in self._files:
            self._files["/"] = self._files["/index.html"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with a file."""
        await self._answer(scope)(scope, receive, send)

    def _answer(self, scope: Scope) -> Response:
        path = scope["path"]
        if scope["method"] not in ("GET", "HEAD"):
            return JSONResponse({"message": "This address does not take such requests."}, 405, {"Allow": "GET, HEAD"})
        file = self._files.get(path)
        if file is None:
            return JSONResponse({"message": "There is nothing at this address."}, 404)
        cache = "public, max-age=31536000, immutable" if path.startswith(HASHED) else "no-cache"
        return FileResponse(file, media_type=_TYPES[file.suffix], headers={"Cache-Control": cache})
