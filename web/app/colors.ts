/** Colors and patterns of objects and suggestions. */

import type { Label } from "./api/types";
import type { Rgb } from "./render/renderer";

/** Seen on most photographs: a new project has no labels yet. */
export const NO_LABEL: Rgb = [56, 189, 248];
export const PATTERNS = 8;

export function parseColor(text: string): Rgb {
  const match = /^#([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2})$/i.exec(text);
  return match ? [parseInt(match[1]!, 16), parseInt(match[2]!, 16), parseInt(match[3]!, 16)] : NO_LABEL;
}

export const labelColor = (label: Label | null): Rgb => (label ? parseColor(label.color) : NO_LABEL);

/** Neighbors in the list are far apart in hue. */
export function suggestionColor(index: number): Rgb {
  const hue = (index * 137.508 + 200) % 360;
  const channel = (n: number): number => {
    const k = (n + hue / 30) % 12;
    return Math.round(255 * (0.62 - 0.32 * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
  };
  return [channel(0), channel(8), channel(4)];
}

/** The same for an object at every visit. */
export const objectColor = (id: string): Rgb => suggestionColor(parseInt(id.slice(0, 6), 16) % 997);

/** For new labels: apart from each other, on dark and on light images. */
export const LABEL_COLORS = [
  "#4f8cff", "#f2994a", "#27ae60", "#bb6bd9", "#eb5757", "#2dc5c5", "#f2c94c", "#8d6e63", "#ff7eb6", "#7bc043", "#5c6bc0", "#00897b",
];
