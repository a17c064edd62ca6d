/** Everything that keys can do, with the keys by default. */

import { computed, signal } from "@preact/signals";

import type { Editor } from "../editor";
import { activeLabels } from "../context";
import { listItems } from "../api/client";
import { clamp, type XY } from "../geometry";
import { t, type TextKey } from "../i18n";
import { fillHoles, growMask, removeSpecks, splitParts } from "../mask/morphology";
import { notify, say } from "../notices";
import { duplicate, editMasks, merge, reorder, replaceByParts } from "../object_edits";
import { openGrid, openItem } from "../route";
import { appearance, brush, keyOverrides } from "../settings";
import type { PointerInput, ToolName } from "../tools/tool";
import { type Binding, Keymap } from "./keymap";

export interface Action extends Binding {
  readonly group: "tools" | "segment" | "edit" | "objects" | "view" | "images" | "page";
  readonly name: () => string;
  readonly run: (editor: Editor) => void;
  /** Whether holding the key repeats it. */
  readonly repeats?: boolean;
}

export type DialogName = "keys" | "settings" | "labels" | "export" | "import" | "jobs" | "sign_in";
export const dialog = signal<DialogName | null>(null);
/** Conflicts are shown until a person closes them without a decision; the mark beside "Saved" opens them again. */
export const hidesConflicts = signal(false);

const SPECK_AREA = 64;
const CURSOR_STEP_PX = 12;
const PAN_STEP_PX = 80;

const named = (key: TextKey): (() => string) => () => t(key);

type Group = Action["group"];

function action(id: string, group: Group, name: () => string, chords: readonly string[], run: Action["run"], repeats = false): Action {
  return { action: id, context: group === "page" ? "global" : "editor", group, name, chords, run, repeats };
}

const tool = (id: ToolName, chord: string): Action => action(`tool.${id}`, "tools", named(`tool.${id}`), [chord], (editor) => editor.arm(id));

/** How far a brush grows with one key: finely when small, coarsely when large. */
export function resizeBrush(direction: 1 | -1): void {
  const { size } = brush.value;
  const step = size < 8 || (size === 8 && direction < 0) ? 1 : size < 32 ? 2 : Math.round(size / 8);
  brush.value = { ...brush.value, size: clamp(size + direction * step, 1, 400) };
}

function moveCursor(editor: Editor, dx: number, dy: number, pixels: number): void {
  const document = editor.document.value;
  if (!document) return;
  const { viewport } = editor;
  const step = pixels > 0 ? pixels : Math.max(1, Math.round(CURSOR_STEP_PX / viewport.view.value.zoom));
  const [x, y] = editor.cursor.value ?? viewport.toImage(viewport.center());
  // On centers of pixels, so that a pixel of a brush is where the cursor is.
  const at: XY = [
    clamp(Math.floor(x) + dx * step, 0, document.width - 1) + 0.5,
    clamp(Math.floor(y) + dy * step, 0, document.height - 1) + 0.5,
  ];
  editor.cursor.value = at;
  viewport.reveal(at);
  editor.tool.move(cursorInput(editor, 0), cursorPressed);
  say(t("say.cursor", { x: Math.floor(at[0]), y: Math.floor(at[1]) }));
}

let cursorPressed = false;

function cursorInput(editor: Editor, button: number): PointerInput {
  const at = editor.cursor.value ?? editor.viewport.toImage(editor.viewport.center());
  return { at, screen: editor.viewport.toScreen(at), alt: false, shift: false, mod: false, button };
}

function press(editor: Editor, button: number): void {
  if (!editor.document.value) return;
  editor.cursor.value ??= editor.viewport.toImage(editor.viewport.center());
  const input = cursorInput(editor, button);
  editor.tool.down(input);
  editor.tool.up(input);
}

function toggleDrag(editor: Editor): void {
  if (!editor.document.value) return;
  editor.cursor.value ??= editor.viewport.toImage(editor.viewport.center());
  const input = cursorInput(editor, 0);
  cursorPressed = !cursorPressed;
  if (cursorPressed) editor.tool.down(input);
  else {
    editor.tool.move(input, true);
    editor.tool.up(input);
  }
}

function cursorAction(id: string, dx: number, dy: number, key: string): Action[] {
  return [
    action(`cursor.${id}`, "segment", named(`action.cursor_${id}` as TextKey), [key], (editor) => moveCursor(editor, dx, dy, 0), true),
    action(`cursor.fine_${id}`, "segment", () => `${t(`action.cursor_${id}` as TextKey)}, 1 px`, [`Shift+${key}`], (editor) => moveCursor(editor, dx, dy, 1), true),
  ];
}

function openNeighbor(editor: Editor, which: "previous_id" | "next_id"): void {
  const id = editor.document.value?.item[which];
  if (id) openItem(id);
  else if (editor.document.value) notify(t(which === "next_id" ? "say.last" : "say.first"));
}

async function openNextTodo(editor: Editor): Promise<void> {
  const { items } = await listItems({ offset: 0, limit: 2, state: "todo" });
  const next = items.find(({ id }) => id !== editor.document.value?.id);
  if (next) openItem(next.id);
  else openGrid();
}

export function splitSelected(editor: Editor): void {
  const target = editor.target.value;
  if (!target) return notify(t("say.nothing_selected"));
  if (!editor.canEditTarget()) return;
  const parts = splitParts(target.mask);
  if (parts.length < 2) notify(t("say.one_part"));
  else replaceByParts(editor, "split", target, parts);
}

const changeOpacity = (by: number): void => {
  appearance.value = { ...appearance.value, opacity: clamp(Math.round((appearance.value.opacity + by) * 10) / 10, 0, 1) };
};

export const ACTIONS: readonly Action[] = [
  tool("select", "V"),
  tool("point", "Q"),
  tool("box", "W"),
  tool("brush", "B"),
  tool("eraser", "X"),
  tool("polygon", "P"),
  tool("vertices", "M"),
  tool("cut", "C"),
  tool("everything", "E"),
  action("commit", "segment", named("action.commit"), ["Enter", "N"], (editor) => {
    editor.tool.commit();
  }),
  action("cancel", "segment", named("action.cancel"), ["Esc"], (editor) => {
    if (cursorPressed) cursorPressed = false;
    if (editor.tool.cancel()) return;
    if (editor.selection.value.length > 0) editor.select([]);
    else editor.cursor.value = null;
  }),
  action("cycle", "segment", named("action.cycle"), ["Tab"], (editor) => editor.tool.cycle(1)),
  action("cycle_back", "segment", named("action.cycle_back"), ["Shift+Tab"], (editor) => editor.tool.cycle(-1)),
  ...cursorAction("left", -1, 0, "Left"),
  ...cursorAction("right", 1, 0, "Right"),
  ...cursorAction("up", 0, -1, "Up"),
  ...cursorAction("down", 0, 1, "Down"),
  action("cursor.add", "segment", named("action.cursor_add"), ["A"], (editor) => press(editor, 0)),
  action("cursor.subtract", "segment", named("action.cursor_subtract"), ["S"], (editor) => press(editor, 2)),
  action("cursor.corner", "segment", named("action.cursor_corner"), ["R"], toggleDrag),
  action("combine.new", "segment", named("option.new"), ["Shift+N"], (editor) => (editor.combine.value = "new")),
  action("combine.add", "segment", named("option.add"), ["Shift+A"], (editor) => (editor.combine.value = "add")),
  action("combine.subtract", "segment", named("option.subtract"), ["Shift+S"], (editor) => (editor.combine.value = "subtract")),
  action("undo", "edit", named("edit.undo"), ["Mod+Z"], (editor) => editor.undo(), true),
  action("redo", "edit", named("edit.redo"), ["Mod+Shift+Z", "Mod+Y"], (editor) => editor.redo(), true),
  action("delete", "edit", named("action.delete"), ["Del", "Backspace"], (editor) => {
    if (!editor.tool.remove()) editor.remove();
  }),
  action("smaller", "edit", named("action.smaller"), ["["], () => resizeBrush(-1), true),
  action("larger", "edit", named("action.larger"), ["]"], () => resizeBrush(1), true),
  action("fill_holes", "edit", named("edit.fill_holes"), ["Shift+F"], (editor) => editMasks(editor, "fill_holes", (mask) => fillHoles(mask))),
  action("remove_specks", "edit", named("edit.remove_specks"), ["Shift+K"], (editor) => editMasks(editor, "remove_specks", (mask) => removeSpecks(mask, SPECK_AREA), { min_area: SPECK_AREA })),
  action("grow", "edit", named("edit.grow"), ["Shift+G"], (editor) => editMasks(editor, "grow", (mask) => growMask(mask, 1), { radius: 1 }), true),
  action("shrink", "edit", named("edit.shrink"), ["Shift+T"], (editor) => editMasks(editor, "shrink", (mask) => growMask(mask, -1), { radius: 1 }), true),
  action("merge", "edit", named("edit.merge"), ["J"], (editor) => merge(editor)),
  action("split", "edit", named("edit.split"), ["Shift+J"], splitSelected),
  action("duplicate", "edit", named("edit.duplicate"), ["Mod+D"], (editor) => duplicate(editor)),
  ...Array.from({ length: 9 }, (_, i) =>
    action(`label.${i + 1}`, "objects", () => t("action.label", { n: i + 1 }), [String(i + 1)], (editor) => {
      const label = activeLabels.value.find(({ hotkey }) => hotkey === String(i + 1));
      if (label) editor.setLabel(label.id);
    }),
  ),
  action("select_next", "objects", named("action.select_next"), ["."], (editor) => editor.selectNext(1), true),
  action("select_previous", "objects", named("action.select_previous"), [","], (editor) => editor.selectNext(-1), true),
  action("select_all", "objects", named("action.select_all"), ["Mod+A"], (editor) => editor.select(editor.document.value?.ordered.value.map(({ id }) => id) ?? [])),
  action("hide", "objects", named("action.hide"), ["H"], (editor) => editor.toggle(editor.hidden, editor.selection.value)),
  action("hide_others", "objects", named("action.hide_others"), ["Shift+H"], (editor) => (editor.hidesOthers.value = !editor.hidesOthers.value)),
  action("lock", "objects", named("action.lock"), ["L"], (editor) => editor.toggle(editor.locked, editor.selection.value)),
  action("raise", "objects", named("edit.raise"), ["PageUp"], (editor) => reorder(editor, "front")),
  action("lower", "objects", named("edit.lower"), ["PageDown"], (editor) => reorder(editor, "back")),
  action("fit", "view", named("view.fit"), ["0"], (editor) => editor.viewport.fit()),
  action("actual_size", "view", named("view.actual"), ["Shift+1"], (editor) => editor.viewport.actualSize()),
  action("zoom_in", "view", named("view.in"), ["+", "="], (editor) => editor.viewport.zoomStep(1), true),
  action("zoom_out", "view", named("view.out"), ["-"], (editor) => editor.viewport.zoomStep(-1), true),
  action("zoom_object", "view", named("action.zoom_object"), ["Z"], (editor) => {
    const box = editor.target.value?.mask.box;
    if (box) editor.viewport.showBox(box, 16);
  }),
  action("pan_left", "view", named("action.pan_left"), ["Mod+Left"], (editor) => editor.viewport.pan(PAN_STEP_PX, 0), true),
  action("pan_right", "view", named("action.pan_right"), ["Mod+Right"], (editor) => editor.viewport.pan(-PAN_STEP_PX, 0), true),
  action("pan_up", "view", named("action.pan_up"), ["Mod+Up"], (editor) => editor.viewport.pan(0, PAN_STEP_PX), true),
  action("pan_down", "view", named("action.pan_down"), ["Mod+Down"], (editor) => editor.viewport.pan(0, -PAN_STEP_PX), true),
  action("hide_masks", "view", named("action.hide_masks"), ["Shift+M"], (editor) => (editor.hidesMasks.value = !editor.hidesMasks.value)),
  action("outline", "view", named("action.outline"), ["O"], () => (appearance.value = { ...appearance.value, outlineOnly: !appearance.value.outlineOnly })),
  action("opacity", "view", named("action.opacity"), ["Shift+O"], () => changeOpacity(0.1), true),
  action("opacity_less", "view", named("action.opacity_less"), ["Alt+O"], () => changeOpacity(-0.1), true),
  action("previous", "images", named("nav.previous"), ["D"], (editor) => openNeighbor(editor, "previous_id")),
  action("next", "images", named("nav.next"), ["F"], (editor) => openNeighbor(editor, "next_id")),
  action("mark_done", "images", named("action.mark_done"), ["Mod+Enter"], (editor) => {
    editor.tool.commit();
    void editor.setState("done").then(() => openNeighbor(editor, "next_id"));
  }),
  action("next_todo", "images", named("action.next_todo"), ["Shift+D"], (editor) => void openNextTodo(editor)),
  action("grid", "images", named("nav.images"), ["G"], () => openGrid()),
  action("keys", "page", named("action.keys"), ["?", "F1"], () => (dialog.value = dialog.value === "keys" ? null : "keys")),
];

export const keymap = computed(() => new Keymap(ACTIONS, keyOverrides.value));

export const actionOf = (id: string): Action => ACTIONS.find(({ action }) => action === id)!;

const SHOWN: Record<string, string> = { Left: "←", Right: "→", Up: "↑", Down: "↓", Backspace: "⌫", Space: "␣", Enter: "↵", PageUp: "PgUp", PageDown: "PgDn" };
const isMac = /Mac|iPhone|iPad/.test(navigator.userAgent);

/** A chord as it is shown on keys, part by part. */
export function chordParts(chord: string): string[] {
  const parts = chord === "+" ? ["+"] : chord.split("+").map((part) => part || "+");
  return parts.map((part) => SHOWN[part] ?? (part === "Mod" ? (isMac ? "⌘" : "Ctrl") : part === "Shift" ? "⇧" : part));
}

export const chordText = (id: string): string => {
  const [chord] = keymap.value.chordsOf(id);
  return chord ? chordParts(chord).join(" ") : "";
};

/** A text with its key, for tooltips. */
export const withKey = (text: string, id: string): string => {
  const chord = chordText(id);
  return chord ? `${text} (${chord})` : text;
};
