"""The parts of the benchmark of `segany serve` in Chromium, with MobileSAM."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.serve_rows import CROWD, FRAME, HOVER, NEXT_IMAGE, Limits, Row
from benchmarks.served import SIZE_HW, ServerProcess, write_photographs
from benchmarks.web_page import CHROMIUM_NAMES, open_browser
from segany import Client
from segany.core.instances import Instances
from segany.core.rle import encode_masks
from segany.server.intake import add_files, find_files
from segany.server.live import PREFETCHED
from segany.server.pages import STATIC
from segany.store import Store

if TYPE_CHECKING:
    from playwright.sync_api import Page

POINT = "segany.editor.point"

HOVERS = 100

MOVING_SECONDS = 8

OBJECTS_XY = (40, 25)
"""Columns and rows of the discs of the crowd."""

RADIUS = 30
"""Of the discs, which overlap a little."""

REPEATS = 20

PANS = 4

WINDOW = {"width": 1280, "height": 800}

WAIT_SECONDS = 120

CLOCK = """() => {
  const bench = (globalThis.bench = {});
  // To be called in a frame, before it is drawn.
  const painted = (since) => new Promise((resolve) => {
    const channel = new MessageChannel(); // its message is handled when the frame is done
    channel.port1.onmessage = () => {
      const paint = performance.now() - since;
      requestAnimationFrame(() => resolve([paint, performance.now() - since]));
    };
    channel.port2.postMessage(0);
  });
  // From the next event of a type to the frame in which the condition holds.
  bench.until = (type, isDone) => {
    bench.result = new Promise((resolve) => {
      addEventListener(type, ({ timeStamp }) => {
        const look = () => isDone() ? painted(timeStamp).then(resolve) : requestAnimationFrame(look);
        requestAnimationFrame(look);
      }, { capture: true, once: true });
    });
  };
  // From each move of the pointer whose preview is shown to the frame with it.
  bench.hovers = [];
  bench.watchHover = () => {
    const moves = [];
    addEventListener("pointermove", (event) => moves.push([performance.now(), event.timeStamp]), { capture: true });
    segany.editor.point.shown.subscribe((shown) => {
      if (!shown) return;
      const asked = performance.now() - shown.answer.latencyMs;
      const move = moves.findLast(([at]) => at <= asked + 1);
      if (move) requestAnimationFrame(() => void painted(move[1]).then((times) => {
        bench.hovers.push(times);
        bench.onHover?.(times);
      }));
    });
  };
  bench.expectHover = (limit) => {
    bench.result = new Promise((resolve) => {
      bench.onHover = resolve;
      setTimeout(() => resolve(null), limit);
    });
  };
  // Between the frames in which the view moves.
  bench.watchFrames = () => {
    bench.frames = [];
    let [before, view] = [performance.now(), segany.editor.viewport.view.peek()];
    const next = (now) => {
      const current = segany.editor.viewport.view.peek();
      if (current !== view) bench.frames.push(now - before);
      [before, view] = [now, current];
      requestAnimationFrame(next);
    };
    requestAnimationFrame(next);
  };
}"""


def what_is_missing() -> str | None:
    """What the parts in a browser need and do not find, with instructions."""
    if importlib.util.find_spec("playwright") is None:
        return "Playwright is not installed. Run: pip install --group dev"
    if not any(map(shutil.which, CHROMIUM_NAMES)):
        return "Chromium is not installed. Run: make browser"
    if not (STATIC / "index.html").exists():
        return "The page is not built. Run: make web"
    return None


def measure_hover(folder: Path) -> list[Row]:
    """Rest the pointer at places of a photograph, then keep it moving."""
    photographs = write_photographs(folder / "photos")
    with _opened(folder, photographs[-1:]) as (page, _):
        _evaluate(page, "bench.watchHover()")
        random = np.random.default_rng(0)
        rests, without = [], 0
        for number in range(10 + HOVERS):
            _evaluate(page, "bench.expectHover(2000)")
            page.mouse.move(*_at(page, *_place(random)))
            times = page.evaluate("bench.result")
            page.wait_for_timeout(30)
            if number < 10:  # to warm up
                continue
            without += times is None
            rests += [times] if times else []
        _evaluate(page, "bench.hovers.length = 0")
        end = time.monotonic() + MOVING_SECONDS
        while time.monotonic() < end:
            page.mouse.move(*_at(page, *_place(random)), steps=40)
        page.wait_for_timeout(500)
        moving = page.evaluate("bench.hovers")
    note = f"{without} moves without a preview; " if without else ""
    rate = f"{len(moving) / MOVING_SECONDS:.0f} previews a second; "
    return [
        _row("hover: pointer to paint, one move at a time", HOVER, rests, note),
        _row("hover: pointer to paint, while it moves", HOVER, moving, rate),
    ]


def measure_next_image(folder: Path) -> list[Row]:
    """Go from image to image by key, when the next one's embedding is there."""
    photographs = write_photographs(folder / "photos")
    times, previews = [], []
    with _opened(folder, photographs) as (page, client):
        ids = {item.name: item.id for item in client.items()}
        for number in range(1, len(photographs)):
            following = ids[photographs[number].name]
            for path in photographs[number : number + PREFETCHED]:  # all of them, so that the server rests
                _wait_embedded(client, ids[path.name])
            page.wait_for_timeout(1000)  # the page has the image by now, too
            done = f"segany.editor.document.value?.id === '{following}' && !segany.editor.isOpening.value"
            _evaluate(page, f"bench.until('keydown', () => {done})")
            page.keyboard.press("f")
            times.append(page.evaluate("bench.result"))
            previews.append(page.evaluate(_FIRST_PREVIEW, following))
    both = [(paint + preview, shown + preview) for (paint, shown), preview in zip(times, previews, strict=True)]
    return [
        _row("next image, embedding prefetched, to interactive", NEXT_IMAGE, times, ""),
        _row("the same, until a first prediction is there", None, both, ""),
    ]


_FIRST_PREVIEW = """(item) => new Promise((resolve) => {
  const start = performance.now();
  const prompt = { item, points: [[900, 600]], labels: [1], box: null, refine: null };
  segany.editor.predictor.ask(prompt, true, () => resolve(performance.now() - start));
})"""


def measure_crowd(folder: Path) -> list[Row]:
    """Select, delete, commit and pan in an image with 1,000 objects."""
    [photograph, *_] = write_photographs(folder / "photos")
    centers = [
        ((column + 0.5) * SIZE_HW[1] / OBJECTS_XY[0], (row + 0.5) * SIZE_HW[0] / OBJECTS_XY[1])
        for row in range(OBJECTS_XY[1])
        for column in range(OBJECTS_XY[0])
    ]

    def fill(store: Store) -> None:
        [item] = store.items.page().items
        crowd = Instances([_disc(*center) for center in centers], SIZE_HW)
        store.annotations.add_instances(item.id, str(uuid.uuid4()), crowd, "benchmark")

    chosen = [centers[number] for number in np.random.default_rng(0).permutation(len(centers))[:REPEATS]]
    times: dict[str, list[Any]] = {"select": [], "delete": [], "commit": []}
    size = "segany.editor.document.value.objects.value.size"
    with _opened(folder, [photograph], fill) as (page, _):
        page.keyboard.press("v")
        for center in chosen:
            page.mouse.move(*_at(page, *center))
            page.wait_for_timeout(100)
            _evaluate(page, "segany.editor.select([])")
            _evaluate(page, "bench.until('pointerup', () => segany.editor.selection.value.length === 1)")
            page.mouse.click(*_at(page, *center))
            times["select"].append(page.evaluate("bench.result"))
            page.wait_for_timeout(100)
            before = page.evaluate(size)
            _evaluate(page, f"bench.until('keydown', () => {size} === {before - 1})")
            page.keyboard.press("Delete")
            times["delete"].append(page.evaluate("bench.result"))
            page.wait_for_timeout(300)
        page.keyboard.press("q")
        for center in chosen:
            page.mouse.click(*_at(page, *center))
            _wait(lambda: page.evaluate(f"{POINT}.prompt.value.isAnswered"))
            before = page.evaluate(size)
            _evaluate(page, f"bench.until('keydown', () => {size} === {before + 1})")
            page.keyboard.press("Enter")
            times["commit"].append(page.evaluate("bench.result"))
            page.wait_for_timeout(300)
        _wait(lambda: page.evaluate("segany.outbox.value.status.value.state === 'saved'"))
        page.keyboard.press("v")
        frames, draws = _pan(page)
    rows = [_row(f"1,000 objects in an image: {name}", CROWD, each, "") for name, each in times.items()]
    draw = f"of which the page draws for {np.percentile(draws, 50):.1f} / {np.percentile(draws, 95):.1f}"
    return [*rows, Row.of("frame time while panning over 1,000 objects", FRAME, frames, draw)]


def _pan(page: Page) -> tuple[list[float], list[float]]:
    """Drag with the middle button. Returns the times between frames and those of drawing them."""
    left, top = _at(page, SIZE_HW[1] / 2, SIZE_HW[0] / 2)
    page.mouse.move(left, top)
    _evaluate(page, "bench.watchFrames()")
    page.mouse.down(button="middle")
    for number in range(PANS):
        page.mouse.move(left + (200 if number % 2 == 0 else -200), top + 40 * (number - 2), steps=60)
    page.mouse.up(button="middle")
    frames = page.evaluate("bench.frames")
    return frames, page.evaluate(f"segany.editor.surface.frameTimes.slice(-{len(frames)})")


@contextlib.contextmanager
def _opened(
    folder: Path, photographs: list[Path], fill: Callable[[Store], None] = lambda _: None
) -> Iterator[tuple[Page, Client]]:
    """A project with photographs, filled further by a function, served, and its first image open in a page."""
    with Store.create(folder / "project") as store:
        add_files(store, find_files(photographs, folder / "project"), on_skipped=_refuse, on_added=lambda _: None)
        fill(store)
    with (
        ServerProcess(folder / "project", "--model", "mobile_sam") as server,
        Client(server.address()) as client,
        open_browser() as browser,
        browser.new_context(viewport=WINDOW) as context,  # type: ignore[arg-type]
    ):
        page = context.new_page()
        page.goto(server.address())
        page.locator(".thumbnail", has_text=photographs[0].name).click()
        _wait(lambda: page.evaluate("!!globalThis.segany?.editor.document.value && !segany.editor.isOpening.value"))
        _wait(lambda: page.evaluate(f"{POINT}.canPredict"))
        [first] = [item.id for item in client.items() if item.name == photographs[0].name]
        _wait_embedded(client, first)
        page.evaluate(CLOCK)
        yield page, client


def _refuse(name: str, message: str) -> None:
    raise RuntimeError(f"{name}: {message}")


def _row(title: str, limits: Limits | None, times: list[tuple[float, float]], note: str) -> Row:
    """Of pairs: until the frame is painted, and until the next one begins."""
    paint, shown = np.array(times).T
    p50, p95 = np.percentile(shown, [50, 95])
    return Row.of(title, limits, list(paint), f"{note}shown {p50:.0f} / {p95:.0f}")


def _evaluate(page: Page, statement: str) -> None:
    """Without its value, which may be a promise."""
    page.evaluate(f"() => {{ {statement}; }}")


def _wait(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"The page or the server took more than {WAIT_SECONDS} s.")
        time.sleep(0.05)


def _wait_embedded(client: Client, item: str) -> None:
    _wait(lambda: client.http.get(f"/api/items/{item}/embedding").status_code == 200)


def _at(page: Page, x: float, y: float) -> tuple[float, float]:
    """Where a pixel of the image lies in the window."""
    left, top = page.evaluate(f"segany.editor.viewport.toScreen([{x}, {y}])")
    box = page.locator(".overlay").bounding_box()
    assert box
    return box["x"] + left, box["y"] + top


def _place(random: np.random.Generator) -> tuple[float, float]:
    height, width = SIZE_HW
    return random.uniform(10, width - 10), random.uniform(10, height - 10)


def _disc(x: float, y: float) -> str:
    rows, columns = np.ogrid[: SIZE_HW[0], : SIZE_HW[1]]
    mask: np.ndarray[Any, np.dtype[np.bool_]] = (rows - y) ** 2 + (columns - x) ** 2 < RADIUS**2
    return encode_masks(mask)[0]["counts"]
