/** Draws polygons: corners by clicks, or freely while pressed. */

import { signal } from "@preact/signals";

import { distance, type XY } from "../geometry";
import { rasterizePolygon } from "../mask/polygon";
import { drawVertex, strokePath } from "./overlay";
import { type PointerInput, Tool } from "./tool";

const CLOSE_PX = 10;
const FREE_STEP_PX = 6;

export class PolygonTool extends Tool {
  readonly corners = signal<readonly XY[]>([]);
  private undone: XY[][] = [];
  private pointer: XY | null = null;

  override disarm(): void {
    if (!this.commit()) this.cancel();
  }

  override down(input: PointerInput): void {
    if (input.button === 2) {
      this.undo();
      return;
    }
    const first = this.corners.value[0];
    if (first && this.corners.value.length >= 3 && distance(this.editor.viewport.toScreen(first), input.screen) < CLOSE_PX) {
      this.commit();
      return;
    }
    this.add(input.at);
  }

  override move(input: PointerInput, isPressed: boolean): void {
    this.pointer = input.at;
    const last = this.corners.value.at(-1);
    if (isPressed && last && distance(this.editor.viewport.toScreen(last), input.screen) >= FREE_STEP_PX) this.add(input.at);
    this.editor.surface?.requestFrame();
  }

  override leave(): void {
    this.pointer = null;
    this.editor.surface?.requestFrame();
  }

  override commit(): boolean {
    const document = this.editor.document.value;
    const corners = this.corners.value;
    if (corners.length < 3 || !document) return false;
    this.corners.value = [];
    const mask = rasterizePolygon([corners], document.width, document.height);
    this.editor.commitMask(mask, "manual", [{ kind: "polygon", payload: { points: corners } }], "polygon");
    return true;
  }

  override cancel(): boolean {
    const hadCorners = this.corners.value.length > 0;
    this.corners.value = [];
    this.undone = [];
    this.editor.surface?.requestFrame();
    return hadCorners;
  }

  override remove(): boolean {
    return this.undo();
  }

  override undo(): boolean {
    if (this.corners.value.length === 0) return false;
    this.undone.push([...this.corners.value]);
    this.corners.value = this.corners.value.slice(0, -1);
    this.editor.surface?.requestFrame();
    return true;
  }

  override redo(): boolean {
    const corners = this.undone.pop();
    if (corners) this.corners.value = corners;
    this.editor.surface?.requestFrame();
    return corners !== undefined;
  }

  override draw(context: CanvasRenderingContext2D): void {
    const { viewport } = this.editor;
    const corners = this.corners.value.map((corner) => viewport.toScreen(corner));
    const path = this.pointer && corners.length > 0 ? [...corners, viewport.toScreen(this.pointer)] : corners;
    strokePath(context, path, false);
    if (path.length > 2) strokePath(context, [path.at(-1)!, path[0]!], false, "rgba(255, 255, 255, 0.5)", [4, 4]);
    corners.forEach((corner, i) => drawVertex(context, corner, i === 0));
  }

  private add(at: XY): void {
    this.corners.value = [...this.corners.value, at];
    this.undone = [];
    this.editor.surface?.requestFrame();
  }
}
