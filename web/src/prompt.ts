/** What to segment, in pixels of the original image, and as the decoder takes it. */

import { SeganyError } from "./errors";
import type { Manifest, Preprocessing, SizeHW } from "./manifest";

/** `segany.Prompt`: points, a box, a rough mask, or any of these together, for one object. */
export interface Prompt {
  /** Pixels of the original image, x then y. */
  readonly pointsXY?: readonly (readonly [number, number])[];
  /** 1 on the object, 0 beside it; all on it when left out. */
  readonly labels?: readonly number[];
  /** Left, top, right, bottom in pixels of the original image. */
  readonly boxXYXY?: readonly [number, number, number, number];
  /** `lowResLogits` of one candidate of an earlier prediction. */
  readonly maskLogits?: Float32Array;
}

/** "multi" three candidates, "single" one, "auto" three where the prompt is ambiguous and one otherwise. */
export type MaskMode = "auto" | "multi" | "single";

const FOREGROUND = 1;
const PADDING = -1;
const BOX_CORNERS = [2, 3];

/** Which of the decoder's four masks are wanted: 0 the single one, 1 to 3 those of an ambiguous prompt. */
export function wantedCandidates(prompt: Prompt, masks: MaskMode): number[] {
  if (!["auto", "multi", "single"].includes(masks)) {
    throw new SeganyError(`masks must be "auto", "multi" or "single", got ${JSON.stringify(masks)}.`);
  }
  const isAmbiguous = (prompt.pointsXY?.length ?? 0) <= 1 && !prompt.boxXYXY && !prompt.maskLogits;
  return masks === "multi" || (masks === "auto" && isAmbiguous) ? [1, 2, 3] : [0];
}

/**
 * A prompt as the decoder takes it: points [1, N, 2] in pixels of the model's input, and labels [1, N].
 *
 * @throws SeganyError the prompt is empty, lies outside the image, or contradicts itself.
 */
export function labeledPoints(prompt: Prompt, sizeHW: SizeHW, manifest: Manifest) {
  check(prompt, sizeHW, manifest.low_res_size);
  const points = (prompt.pointsXY ?? []).flat();
  const labels = [...(prompt.labels ?? (prompt.pointsXY ?? []).map(() => FOREGROUND))];
  if (prompt.boxXYXY) {
    points.push(...prompt.boxXYXY);
    labels.push(...BOX_CORNERS);
  }
  // The models were trained with a padding point there.
  if (points.length > 0 && (manifest.pads_boxes || !prompt.boxXYXY)) {
    points.push(0, 0);
    labels.push(PADDING);
  }
  return {
    points: toInputXY(Float32Array.from(points), sizeHW, manifest.preprocessing),
    labels: BigInt64Array.from(labels, BigInt),
  };
}

/** Map x, y, x, y, ... from an image to pixels of the model's input. */
function toInputXY(pointsXY: Float32Array, sizeHW: SizeHW, preprocessing: Preprocessing): Float32Array {
  const [height, width] = resizedHW(sizeHW, preprocessing);
  const scaleXY = [width / sizeHW[1], height / sizeHW[0]];
  return pointsXY.map((value, index) => value * scaleXY[index % 2]!);
}

/** Size of the image inside the input, before padding. */
function resizedHW(sizeHW: SizeHW, { input_size: size, resize }: Preprocessing): SizeHW {
  if (resize === "square") return [size, size];
  const scale = size / Math.max(...sizeHW);
  const [height, width] = sizeHW;
  // Halves round up, as in Python. A sliver keeps at least one pixel.
  return [Math.max(1, Math.floor(height * scale + 0.5)), Math.max(1, Math.floor(width * scale + 0.5))];
}

function check(prompt: Prompt, sizeHW: SizeHW, lowResSize: number): void {
  const { pointsXY, labels, boxXYXY, maskLogits } = prompt;
  if (!pointsXY?.length && !boxXYXY && !maskLogits) {
    throw new SeganyError("The prompt is empty. Give at least one of pointsXY, boxXYXY and maskLogits.");
  }
  if (labels && labels.length !== (pointsXY?.length ?? 0)) {
    throw new SeganyError(
      `There are ${pointsXY?.length ?? 0} points but ${labels.length} labels. Give one label a point.`,
    );
  }
  if (labels?.some((label) => label !== 0 && label !== 1)) {
    throw new SeganyError(`labels must be 1 (foreground) or 0 (background), got ${labels.join(", ")}.`);
  }
  checkBox(boxXYXY);
  const corners = boxXYXY ? [boxXYXY.slice(0, 2), boxXYXY.slice(2)] : [];
  for (const point of [...(pointsXY ?? []), ...corners]) checkInside(point, sizeHW);
  if (maskLogits && maskLogits.length !== lowResSize ** 2) {
    throw new SeganyError(
      `maskLogits has ${maskLogits.length} values, but the model takes ${lowResSize} x ${lowResSize}: ` +
        "the lowResLogits of one candidate of an earlier prediction, not a mask at image size.",
    );
  }
}

function checkBox(boxXYXY: Prompt["boxXYXY"]): void {
  if (!boxXYXY) return;
  const [x0, y0, x1, y1] = boxXYXY;
  if (boxXYXY.length !== 4 || !(x1 > x0 && y1 > y0)) {
    throw new SeganyError(
      `boxXYXY (${boxXYXY.join(", ")}) has no area: it needs x1 > x0 and y1 > y0 ` +
        "(left, top, right, bottom; not width and height).",
    );
  }
}

function checkInside(point: readonly number[], [height, width]: SizeHW): void {
  const [x, y] = point as [number, number];
  if (point.length !== 2 || !(x >= 0 && x <= width && y >= 0 && y <= height)) {
    throw new SeganyError(
      `Point (${point.join(", ")}) lies outside the image, which is ${width} wide and ${height} high. ` +
        "Coordinates are pixels of the original image, x then y.",
    );
  }
}
