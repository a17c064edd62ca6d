/** Brush and eraser: exact pixels at any zoom, one step of undo a stroke. */

import { EMPTY_BOX, isEmptyBox, uniteBoxes, type Box, type XY } from "../geometry";
import { t } from "../i18n";
import { paintSegment, snapToPixels } from "../mask/brush";
import { emptyMask, replaceColumns } from "../mask/mask";
import { notify } from "../notices";
import { brush } from "../settings";
import { drawBrush } from "./overlay";
import { type PointerInput, Tool } from "./tool";

interface Stroke {
  readonly value: 0 | 1;
  readonly points: XY[];
  box: Box;
}

export class BrushTool extends Tool {
  override readonly cursor = "none";
  private stroke: Stroke | null = null;
  private pointer: XY | null = null;

  constructor(
    editor: ConstructorParameters<typeof Tool>[0],
    private readonly erases: boolean,
  ) {
    super(editor);
  }

  override disarm(): void {
    this.cancel();
    this.pointer = null;
  }

  override down(input: PointerInput): void {
    const { editor } = this;
    const value = this.erases !== (input.button === 2 || input.alt) ? 0 : 1; // the other way round with the right button
    if (!editor.target.value && value === 0) {
      notify(t("hint.eraser.none"));
      return;
    }
    if (!editor.canEditTarget()) return;
    this.stroke = { value, points: [], box: EMPTY_BOX };
    this.extend(input.at);
  }

  override move(input: PointerInput, isPressed: boolean): void {
    this.pointer = input.at;
    if (isPressed && this.stroke) this.extend(input.at);
    this.editor.surface?.requestFrame();
  }

  override up(): void {
    const { stroke, editor } = this;
    this.stroke = null;
    const document = editor.document.value;
    const surface = editor.surface;
    if (!stroke || !document || !surface || isEmptyBox(stroke.box)) return;
    const target = editor.target.value;
    const mask = replaceColumns(target?.mask ?? emptyMask(document.width, document.height), surface.activeBits, stroke.box[0], stroke.box[2]);
    const payload = { points: stroke.points, size: brush.value.size, shape: brush.value.shape, value: stroke.value };
    editor.replaceTargetMask(stroke.value ? "brush" : "erase", mask, [{ kind: "brush", payload }], true);
  }

  override leave(): void {
    this.pointer = null;
    this.editor.surface?.requestFrame();
  }

  override cancel(): boolean {
    const { stroke } = this;
    this.stroke = null;
    if (!stroke) return false;
    this.editor.surface?.restoreActive(stroke.box);
    return true;
  }

  /** Undo in the middle of a stroke takes the stroke back. */
  override undo(): boolean {
    return this.cancel();
  }

  override commit(): boolean {
    if (!this.editor.target.value || this.erases) return false;
    this.editor.select([]); // the next stroke begins another object
    return true;
  }

  override draw(context: CanvasRenderingContext2D): void {
    if (!this.pointer) return;
    const { viewport } = this.editor;
    const { size, shape } = brush.value;
    const center = viewport.toScreen(snapToPixels(this.pointer, size));
    drawBrush(context, center, Math.max(1.5, (size / 2) * viewport.view.value.zoom), shape, this.erases ? "#ff9ea0" : "#fff");
  }

  private extend(at: XY): void {
    const { stroke, editor } = this;
    const document = editor.document.value;
    if (!stroke || !editor.surface || !document) return;
    const { size, shape } = brush.value;
    const point = snapToPixels(at, size);
    const previous = stroke.points.at(-1) ?? point;
    if (stroke.points.length > 0 && previous[0] === point[0] && previous[1] === point[1]) return;
    stroke.points.push(point);
    const box = paintSegment(editor.surface.activeBits, [document.width, document.height], previous, point, size, stroke.value, shape);
    stroke.box = uniteBoxes(stroke.box, box);
    editor.surface.touchActive(box);
  }
}
