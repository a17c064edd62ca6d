/** What a person chose for the page on this machine. */

import { effect, type Signal, signal } from "@preact/signals";

import type { Chord } from "./keys/keymap";
import type { Appearance } from "./render/renderer";

const PREFIX = "segany.";

/** A signal that is kept in the browser. Values of an older page that lack fields are completed. */
export function persisted<T>(name: string, initial: T): Signal<T> {
  const stored = signal(read(name, initial));
  let isFirst = true;
  effect(() => {
    const text = JSON.stringify(stored.value);
    if (!isFirst) {
      try {
        localStorage.setItem(PREFIX + name, text);
      } catch {
        // Storage is full or forbidden: it holds for this visit.
      }
    }
    isFirst = false;
  });
  return stored;
}

function read<T>(name: string, initial: T): T {
  try {
    const text = localStorage.getItem(PREFIX + name);
    if (text === null) return initial;
    const value = JSON.parse(text) as T;
    const isRecord = typeof initial === "object" && initial !== null && !Array.isArray(initial);
    return isRecord ? { ...initial, ...value } : value;
  } catch {
    return initial;
  }
}

export type Theme = "system" | "dark" | "light";

export const DEFAULT_APPEARANCE: Appearance = {
  brightness: 0,
  contrast: 1,
  gamma: 1,
  opacity: 0.4,
  outlineOnly: false,
  patterns: false,
  colorsObjects: false,
};

export const appearance = persisted<Appearance>("appearance", DEFAULT_APPEARANCE);
export const theme = persisted<Theme>("theme", "system");
export const language = persisted<string>("language", "");
export const keyOverrides = persisted<Record<string, readonly Chord[]>>("keys", {});
export const brush = persisted<{ size: number; shape: "round" | "square" }>("brush", { size: 12, shape: "round" });
export const wheelPans = persisted("wheel-pans", false);
export const gridSize = persisted("grid-size", 220);
