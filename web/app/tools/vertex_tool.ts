/** Edits the outline of the selected object by its vertices: a view on the mask, exact where nothing is moved. */

import { effect, signal } from "@preact/signals";

import { clampXY, distance, distanceToSegment, type XY } from "../geometry";
import type { Mask } from "../mask/mask";
import { deleteVertex, type EditableRing, editableRings, insertVertex, moveVertex, rasterizePolygon } from "../mask/polygon";
import { drawVertex, strokePath } from "./overlay";
import { type PointerInput, Tool } from "./tool";

interface Place {
  readonly ring: number;
  readonly vertex: number;
}

const REACH_PX = 9;
/** Distance between boundary and shown lines in pixels of the screen. */
const TOLERANCE_PX = 2.5;

export class VertexTool extends Tool {
  override readonly cursor = "default";
  private readonly rings = signal<readonly EditableRing[]>([]);
  private shownMask: Mask | null = null;
  private hovered: Place | null = null;
  private chosen: Place | null = null;
  private isDragging = false;
  private dispose: (() => void) | null = null;

  override arm(): void {
    this.dispose = effect(() => {
      const mask = this.editor.target.value?.mask ?? null;
      if (mask === this.shownMask) return;
      this.shownMask = mask;
      this.chosen = null;
      this.rings.value = mask ? editableRings(mask, Math.max(0.5, TOLERANCE_PX / this.editor.viewport.view.peek().zoom)) : [];
      this.editor.surface?.requestFrame();
    });
  }

  override disarm(): void {
    this.dispose?.();
    this.shownMask = null;
    this.rings.value = [];
    this.hovered = null;
  }

  override down(input: PointerInput): void {
    const { editor } = this;
    const vertex = this.vertexAt(input.screen);
    if (vertex) {
      if (!editor.canEditTarget()) return;
      this.chosen = vertex;
      this.isDragging = true;
      return;
    }
    const edge = this.edgeAt(input.screen);
    if (edge && editor.canEditTarget()) {
      const before = this.rings.value[edge.ring]!;
      const ring = insertVertex(before, edge.vertex, input.at);
      this.setRing(edge.ring, ring);
      this.chosen = { ring: edge.ring, vertex: 1 };
      this.isDragging = true;
      return;
    }
    const found = editor.objectAt(input.at);
    editor.select(found ? [found] : []);
  }

  override move(input: PointerInput, isPressed: boolean): void {
    if (isPressed && this.isDragging && this.chosen) {
      const { width, height } = this.editor.document.value!;
      const ring = moveVertex(this.rings.value[this.chosen.ring]!, this.chosen.vertex, clampXY(input.at, width, height));
      this.setRing(this.chosen.ring, ring);
      this.chosen = { ...this.chosen, vertex: 1 };
    } else this.hovered = this.vertexAt(input.screen);
    this.editor.surface?.requestFrame();
  }

  override up(): void {
    if (!this.isDragging) return;
    this.isDragging = false;
    this.store();
  }

  override remove(): boolean {
    const place = this.chosen ?? this.hovered;
    if (!place || !this.editor.canEditTarget()) return false;
    this.setRing(place.ring, deleteVertex(this.rings.value[place.ring]!, place.vertex));
    this.chosen = null;
    this.hovered = null;
    this.store();
    return true;
  }

  override cancel(): boolean {
    if (!this.chosen) return false;
    this.chosen = null;
    if (this.isDragging) {
      this.isDragging = false;
      this.shownMask = null;
      this.disarm();
      this.arm();
    }
    this.editor.surface?.requestFrame();
    return true;
  }

  override draw(context: CanvasRenderingContext2D): void {
    this.rings.value.forEach((ring, r) => {
      const vertices = this.onScreen(ring);
      strokePath(context, vertices, true);
      vertices.forEach((at, v) => {
        const isStrong = [this.chosen, this.hovered].some((place) => place?.ring === r && place.vertex === v);
        drawVertex(context, at, isStrong);
      });
    });
  }

  private store(): void {
    const { width, height } = this.editor.document.value!;
    const mask = rasterizePolygon(this.rings.value.map(({ points }) => points), width, height);
    this.shownMask = mask; // these vertices stay: they are this mask's
    this.editor.replaceTargetMask("vertex", mask, [{ kind: "polygon", payload: { vertices: this.rings.value.map((r) => r.vertices.map((v) => r.points[v]!)) } }]);
  }

  private setRing(index: number, ring: EditableRing): void {
    this.rings.value = this.rings.value.map((other, i) => (i === index ? ring : other));
    this.editor.surface?.requestFrame();
  }

  private onScreen(ring: EditableRing): XY[] {
    return ring.vertices.map((v) => this.editor.viewport.toScreen(ring.points[v]!));
  }

  private vertexAt(screen: XY): Place | null {
    return this.nearest((vertices, v) => distance(vertices[v]!, screen));
  }

  private edgeAt(screen: XY): Place | null {
    return this.nearest((vertices, v) => distanceToSegment(screen, vertices[v]!, vertices[(v + 1) % vertices.length]!));
  }

  private nearest(measure: (vertices: readonly XY[], vertex: number) => number): Place | null {
    let [best, bestDistance]: [Place | null, number] = [null, REACH_PX];
    this.rings.value.forEach((ring, r) => {
      const vertices = this.onScreen(ring);
      vertices.forEach((_, v) => {
        const d = measure(vertices, v);
        if (d < bestDistance) [best, bestDistance] = [{ ring: r, vertex: v }, d];
      });
    });
    return best;
  }
}
