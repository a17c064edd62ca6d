/** Two versions of one object: both are shown, and a person says which one holds. */

import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";

import { getItem, imageUrl } from "../api/client";
import type { Change, ItemWithObjects, ObjectState } from "../api/types";
import { labelColor } from "../colors";
import { labelOf, outbox } from "../context";
import { fromStored } from "../document/annotated_object";
import type { Editor } from "../editor";
import { growBox, uniteBoxes, type Box } from "../geometry";
import { locale, t } from "../i18n";
import { hidesConflicts } from "../keys/actions";
import { cropMask, type Mask } from "../mask/mask";
import { notify } from "../notices";
import type { Conflict } from "../outbox/outbox";
import { useSignal } from "@preact/signals";
import { Button, Dialog } from "./controls";

type Version = Change | ObjectState;

export function ConflictDialog({ conflict, editor }: { conflict: Conflict; editor: Editor }): JSX.Element | null {
  const item = useSignal<ItemWithObjects | null>(null);
  useEffect(() => {
    void getItem(conflict.item).then((found) => (item.value = found)).catch((error: Error) => notify(error.message, "error"));
  }, [conflict]);
  if (!item.value) return null;
  const { width, height } = item.value;
  const [mine, theirs] = [conflict.mine, conflict.theirs].map((version) => fromStored(conflict.object, version, width, height).mask) as [Mask, Mask];
  const both = uniteBoxes(mine.box, theirs.box);
  const box = growBox(both, Math.max(24, (both[2] - both[0]) / 6), width, height);
  const settle = async (choice: "mine" | "theirs" | "both"): Promise<void> => {
    const revision = crypto.randomUUID();
    const copy: Change = { ...conflict.mine, prompt_events: [], active_ms: 0, revision, base: conflict.theirs.revision };
    if (choice === "both") Object.assign(copy, { object: crypto.randomUUID(), base: null });
    await outbox.value?.settle(conflict, choice === "theirs" ? null : copy);
    if (editor.document.value?.id === conflict.item) {
      if (choice !== "mine") editor.document.value.takeTheirs(conflict.theirs);
      if (choice !== "theirs") editor.document.value.takeTheirs(asState(copy));
    }
  };
  return (
    <Dialog
      title={t("conflict.title")}
      onClose={() => (hidesConflicts.value = true)}
      wide
      footer={
        <>
          <Button onClick={() => void settle("both")}>{t("conflict.keep_both")}</Button>
          <span class="grow" />
          <Button kind="primary" onClick={() => void settle("mine")}>
            {t("conflict.keep_mine")}
          </Button>
          <Button kind="primary" onClick={() => void settle("theirs")}>
            {t("conflict.keep_theirs")}
          </Button>
        </>
      }
    >
      <p>{t("conflict.text")}</p>
      <p class="muted">{item.value.name}</p>
      <div class="versions">
        <VersionView title={t("conflict.mine")} version={conflict.mine} mask={mine} box={box} item={item.value} />
        <VersionView title={t("conflict.theirs")} version={conflict.theirs} mask={theirs} box={box} item={item.value} />
      </div>
    </Dialog>
  );
}

const asState = (change: Change): ObjectState => ({
  ...change,
  id: change.object,
  parent: change.base,
  box_xyxy: [0, 0, 0, 0],
  area: 0,
  author: "",
  model_version: null,
  created_at: "",
});

function VersionView({ title, version, mask, box, item }: { title: string; version: Version; mask: Mask; box: Box; item: ItemWithObjects }): JSX.Element {
  const canvas = useRef<HTMLCanvasElement>(null);
  const label = labelOf(version.label_id);
  useEffect(() => {
    const image = new Image();
    image.src = imageUrl(item.id, item.image);
    void image.decode().then(() => canvas.current && drawVersion(canvas.current, image, version.deleted ? null : mask, box, labelColor(label)));
  }, [version, item]);
  const by = "author" in version && version.created_at ? t("conflict.by", { author: version.author, time: new Date(version.created_at).toLocaleString(locale.value) }) : "";
  return (
    <figure>
      <canvas ref={canvas} role="img" aria-label={title} />
      <figcaption>
        <b>{title}</b>
        <span>{version.deleted ? t("conflict.deleted") : (label?.name ?? t("labels.none"))}</span>
        <span class="muted">{by}</span>
      </figcaption>
    </figure>
  );
}

function drawVersion(canvas: HTMLCanvasElement, image: HTMLImageElement, mask: Mask | null, box: Box, [r, g, b]: readonly [number, number, number]): void {
  const [width, height] = [box[2] - box[0], box[3] - box[1]];
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d")!;
  context.drawImage(image, box[0], box[1], width, height, 0, 0, width, height);
  if (!mask) return;
  const { bits } = cropMask(mask, box);
  const pixels = context.getImageData(0, 0, width, height);
  for (let x = 0; x < width; x++) {
    for (let y = 0; y < height; y++) {
      if (!bits[x * height + y]) continue;
      const isEdge = !bits[(x - 1) * height + y] || !bits[(x + 1) * height + y] || !bits[x * height + y - 1] || !bits[x * height + y + 1];
      const amount = isEdge ? 1 : 0.45;
      const at = (y * width + x) * 4;
      [r, g, b].forEach((value, c) => (pixels.data[at + c] = pixels.data[at + c]! * (1 - amount) + value * amount));
    }
  }
  context.putImageData(pixels, 0, 0);
}
