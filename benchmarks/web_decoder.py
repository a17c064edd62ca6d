"""The decoder in a web page, driven from Python: takes prompts of segany, returns arrays."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

import segany
from segany.core.arrays import BoolArray, FloatArray
from segany.core.prompt import MaskMode

if TYPE_CHECKING:
    from playwright.sync_api import Page

_OPEN = """
async ([manifest, embedding, threads]) => {
  window.decoder = await segany.openDecoder(manifest, threads ? { threads } : {});
  window.embedding = segany.readEmbedding(await (await fetch(embedding)).arrayBuffer());
}
"""

_DECODE = """
async ([prompt, options]) => {
  if (prompt.maskLogits) prompt.maskLogits = new Float32Array(Uint8Array.fromBase64(prompt.maskLogits).buffer);
  const found = await decoder.decode(embedding, prompt, options);
  const text = (array) => new Uint8Array(array.buffer, array.byteOffset, array.byteLength).toBase64();
  return { ...found, masks: found.masks.map(text), scores: text(found.scores), low: found.lowResLogits.map(text) };
}
"""

_TIME = """
async ([prompt, options, repeats]) => {
  const times = [];
  for (let i = 0; i < repeats; i++) {
    const start = performance.now();
    await decoder.decode(embedding, prompt, options);
    times.push((performance.now() - start) / 1000);
  }
  return times;
}
"""


@dataclass(frozen=True, eq=False)
class WebPrediction:
    """The prediction of a page's decoder: masks [M, H, W], scores [M], low-res logits [M, h, w]."""

    masks: BoolArray
    scores: FloatArray
    low_res_logits: FloatArray
    best: int


class WebDecoder:
    """A decoder and an embedding that are open in a page."""

    def __init__(self, page: Page, manifest: str, embedding: str, threads: int | None = None) -> None:
        """Open both in a page of `open_page`, by their addresses. The first decoder fixes the number of threads."""
        self._page = page
        page.evaluate(_OPEN, [manifest, embedding, threads])

    def decode(self, prompt: segany.Prompt, masks: MaskMode = "auto") -> WebPrediction:
        """Decode a prompt to masks at the size of the image."""
        found = self._page.evaluate(_DECODE, [_as_json(prompt), {"masks": masks}])
        masks_of = [_array(text, np.uint8).reshape(found["sizeHW"]) for text in found["masks"]]
        low_res = [_array(text, np.float32) for text in found["low"]]
        return WebPrediction(
            masks=np.stack(masks_of).astype(np.bool_),
            scores=_array(found["scores"], np.float32),
            low_res_logits=np.stack([logits.reshape(-1, math.isqrt(logits.size)) for logits in low_res]),
            best=found["best"],
        )

    def seconds(self, prompt: segany.Prompt, repeats: int, **options: Any) -> list[float]:
        """Return the times of decodes; `options` are `DecodeOptions` of the front end."""
        times: list[float] = self._page.evaluate(_TIME, [_as_json(prompt), options, repeats])
        return times


def _as_json(prompt: segany.Prompt) -> dict[str, Any]:
    """Convert a prompt to JSON for the front end, with the mask as base64."""
    values = {"pointsXY": prompt.points_xy, "labels": prompt.labels, "boxXYXY": prompt.box_xyxy}
    found: dict[str, Any] = {name: value.tolist() for name, value in values.items() if value is not None}
    if prompt.mask_logits is not None:
        found["maskLogits"] = base64.b64encode(prompt.mask_logits.tobytes()).decode()
    return found


def _array(text: str, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    return np.frombuffer(base64.b64decode(text), dtype)
