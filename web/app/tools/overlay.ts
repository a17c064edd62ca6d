/** Marks above the image: thin, and readable on any of it by a dark line below a light one. */

import type { XY } from "../geometry";

type Context = CanvasRenderingContext2D;

export function strokePath(context: Context, points: readonly XY[], isClosed: boolean, color = "#fff", dash: number[] = []): void {
  if (points.length < 2) return;
  context.beginPath();
  points.forEach(([x, y], i) => (i === 0 ? context.moveTo(x, y) : context.lineTo(x, y)));
  if (isClosed) context.closePath();
  outlined(context, color, dash);
}

export function strokeBox(context: Context, a: XY, b: XY, color = "#fff", dash: number[] = []): void {
  context.beginPath();
  context.rect(Math.round(Math.min(a[0], b[0])) + 0.5, Math.round(Math.min(a[1], b[1])) + 0.5, Math.round(Math.abs(a[0] - b[0])), Math.round(Math.abs(a[1] - b[1])));
  outlined(context, color, dash);
}

function outlined(context: Context, color: string, dash: number[]): void {
  context.lineJoin = "round";
  context.setLineDash([]);
  context.strokeStyle = "rgba(0, 0, 0, 0.55)";
  context.lineWidth = 3.5;
  context.stroke();
  context.setLineDash(dash);
  context.strokeStyle = color;
  context.lineWidth = 1.5;
  context.stroke();
  context.setLineDash([]);
}

/** A prompt: plus on the object, minus beside it. */
export function drawPoint(context: Context, [x, y]: XY, isInside: boolean): void {
  context.beginPath();
  context.arc(x, y, 7, 0, 2 * Math.PI);
  context.fillStyle = isInside ? "#12a150" : "#e5484d";
  context.shadowColor = "rgba(0, 0, 0, 0.5)";
  context.shadowBlur = 6;
  context.fill();
  context.shadowBlur = 0;
  context.strokeStyle = "#fff";
  context.lineWidth = 1.75;
  context.stroke();
  context.beginPath();
  context.moveTo(x - 3, y);
  context.lineTo(x + 3, y);
  if (isInside) {
    context.moveTo(x, y - 3);
    context.lineTo(x, y + 3);
  }
  context.stroke();
}

export function drawVertex(context: Context, [x, y]: XY, isStrong: boolean): void {
  const r = isStrong ? 5.5 : 4;
  context.beginPath();
  context.arc(x, y, r, 0, 2 * Math.PI);
  context.fillStyle = isStrong ? "#fff" : "#1d4ed8";
  context.fill();
  context.strokeStyle = isStrong ? "#1d4ed8" : "#fff";
  context.lineWidth = 1.5;
  context.stroke();
}

/** The cursor of the keyboard. */
export function drawCursor(context: Context, [x, y]: XY): void {
  for (const [color, width] of [["rgba(0, 0, 0, 0.6)", 4], ["#ffd60a", 1.75]] as const) {
    context.strokeStyle = color;
    context.lineWidth = width;
    context.beginPath();
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]] as const) {
      context.moveTo(x + dx * 5, y + dy * 5);
      context.lineTo(x + dx * 16, y + dy * 16);
    }
    context.stroke();
  }
}

export function drawBrush(context: Context, [x, y]: XY, radius: number, shape: "round" | "square", color: string): void {
  context.beginPath();
  if (shape === "round") context.arc(x, y, radius, 0, 2 * Math.PI);
  else context.rect(x - radius, y - radius, 2 * radius, 2 * radius);
  outlined(context, color, []);
}
