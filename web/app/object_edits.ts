/** What is done to whole objects: their masks, parts, order and attributes. */

import type { AnnotatedObject } from "./document/annotated_object";
import type { Edit } from "./document/item_document";
import type { Editor } from "./editor";
import { t } from "./i18n";
import type { Mask } from "./mask/mask";
import { uniteMasks } from "./mask/morphology";
import { notify } from "./notices";

export type MaskEdit = "fill_holes" | "remove_specks" | "grow" | "shrink";

/** Apply a function to the masks of all selected objects. */
export function editMasks(editor: Editor, name: MaskEdit, change: (mask: Mask) => Mask, payload: Record<string, unknown> = {}): void {
  const edits = editor.editable().map((object): Edit => {
    const mask = change(object.mask);
    return { id: object.id, after: mask.area === 0 ? null : { ...object, mask } };
  });
  editor.document.value?.edit(name, edits, [{ kind: "edit", payload: { name, ...payload } }]);
}

export function replaceByParts(editor: Editor, name: "cut" | "split", object: AnnotatedObject, parts: readonly Mask[], payload: Record<string, unknown> = {}): void {
  const document = editor.document.value;
  if (!document) return;
  let z = document.nextZ();
  const edits = parts.map((mask, i): Edit => {
    const id = i === 0 ? object.id : crypto.randomUUID();
    return { id, after: { ...object, id, mask, z: i === 0 ? object.z : z++ } };
  });
  document.edit(name, edits, [{ kind: "edit", payload: { name, from: object.id, ...payload } }]);
  editor.select([object.id]);
  notify(t("say.parts", { n: parts.length }));
}

export function merge(editor: Editor): void {
  const objects = editor.editable();
  const [first] = objects;
  if (!first || objects.length < 2) {
    notify(t("say.select_two"));
    return;
  }
  const mask = uniteMasks(objects.map((object) => object.mask));
  const edits: Edit[] = objects.map(({ id }) => ({ id, after: id === first.id ? { ...first, mask } : null }));
  editor.document.value?.edit("merge", edits, [{ kind: "edit", payload: { name: "merge", objects: objects.map(({ id }) => id) } }]);
  editor.select([first.id]);
}

export function duplicate(editor: Editor): void {
  const document = editor.document.value;
  if (!document) return;
  let z = document.nextZ();
  const copies = editor.editable().map((object) => ({ ...object, id: crypto.randomUUID(), z: z++ }));
  document.edit("duplicate", copies.map((after) => ({ id: after.id, after })), [{ kind: "edit", payload: { name: "duplicate" } }]);
  editor.select(copies.map(({ id }) => id));
}

export function setAttribute(editor: Editor, name: string, value: string | number | null): void {
  editor.edit("attributes", (object) => {
    const { [name]: _, ...others } = object.attributes;
    return { ...object, attributes: value === null || value === "" ? others : { ...others, [name]: value } };
  });
}

/** Move the selected objects above or below all others. */
export function reorder(editor: Editor, direction: "front" | "back"): void {
  const ordered = editor.document.value?.ordered.value ?? [];
  const [low, high] = [ordered[0]?.z ?? 0, ordered.at(-1)?.z ?? 0];
  const moved = editor.selected.value.length;
  let step = 0;
  editor.edit("order", (object) => ({ ...object, z: direction === "front" ? high + ++step : low - moved + step++ }));
}

/** Put an object of the list directly above another, or below all with null. */
export function moveAbove(editor: Editor, id: string, belowId: string | null): void {
  const document = editor.document.value;
  const object = document?.get(id);
  if (!document || !object) return;
  const z = document.zAbove(id, belowId);
  if (z !== object.z) document.edit("order", [{ id, after: { ...object, z } }], [{ kind: "edit", payload: { name: "order" } }]);
}
