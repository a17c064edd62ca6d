/** Keeps what is drawn equal to the state of the editor. */

import { effect } from "@preact/signals";

import { labelColor, objectColor, PATTERNS, suggestionColor } from "../colors";
import { labelOf, labels } from "../context";
import type { Editor } from "../editor";
import { appearance } from "../settings";
import type { Rgb } from "./renderer";
import { type Entry, HOVERED, PATTERN_SHIFT, SELECTED, SUGGESTION, type Surface } from "./surface";

/** @returns how to stop. */
export function keepInSync(editor: Editor, surface: Surface): () => void {
  const stops = [
    effect(() => surface.setScene({ showsMasks: !editor.hidesMasks.value, dim: editor.toolName.value === "everything" ? 0.35 : 0 })),
    effect(() => syncLayers(editor, surface)),
    effect(() => syncActive(editor, surface)),
    effect(() => {
      void [editor.cursor.value, editor.selection.value];
      surface.requestFrame();
    }),
    effect(() => {
      void [editor.currentLabel.value, editor.combine.value, labels.value];
      for (const tool of [editor.point, editor.box]) if (editor.tool === tool) tool.showPreview();
    }),
  ];
  return () => {
    for (const stop of stops) stop();
  };
}

/** All objects but the one that is edited, and below them the suggestions. */
function syncLayers(editor: Editor, surface: Surface): void {
  const document = editor.document.value;
  if (!document) return;
  const active = editor.target.value?.id;
  const suggestions = editor.toolName.value === "everything" ? editor.everything.visible.value : [];
  const objects = document.ordered.value.filter(({ id }) => id !== active && editor.isVisible(id));
  surface.setLayers([...suggestions, ...objects.map(({ id, mask }) => ({ key: id, mask }))]);
  const indices = new Map(suggestions.map(({ key, index }) => [key, index]));
  const selection = new Set(editor.selection.value);
  const hovered = editor.hovered.value;
  surface.setPalette((key): Entry => {
    const isHovered = key === hovered ? HOVERED : 0;
    const index = indices.get(key);
    if (index !== undefined) return { color: suggestionColor(index), flags: SUGGESTION | isHovered };
    const { color, pattern } = styleOf(document.objects.value.get(key)?.labelId ?? null, key);
    return { color, flags: isHovered | (selection.has(key) ? SELECTED : 0) | (pattern << PATTERN_SHIFT) };
  });
}

function syncActive(editor: Editor, surface: Surface): void {
  const target = editor.target.value;
  if (!editor.document.value) return;
  const isShown = target ? editor.isVisible(target.id) : editor.toolName.value === "brush";
  const style = isShown ? styleOf(target ? target.labelId : editor.currentLabel.value, target?.id ?? null) : null;
  surface.setActive(target?.mask ?? null, style, target !== null && target.mask === editor.paintedMask);
}

function styleOf(labelId: number | null, object: string | null): { color: Rgb; pattern: number } {
  const index = labels.value.findIndex(({ id }) => id === labelId);
  const color = appearance.value.colorsObjects && object ? objectColor(object) : labelColor(labelOf(labelId));
  return { color, pattern: index < 0 ? 0 : index % PATTERNS };
}
