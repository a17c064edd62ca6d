/** What the page tells: to everybody as a note that fades, and to screen readers in a live region. */

import { signal } from "@preact/signals";

export interface Notice {
  readonly id: number;
  readonly text: string;
  readonly kind: "info" | "error";
}

export const announcement = signal("");
export const notices = signal<readonly Notice[]>([]);

const SHOWN_MS = 2_500;
const ERROR_SHOWN_MS = 8_000;
let lastId = 0;

/** For screen readers alone: what others see in the image. */
export function say(text: string): void {
  announcement.value = announcement.value === text ? `${text}\u00a0` : text; // the same text again is read again
}

export function notify(text: string, kind: Notice["kind"] = "info"): void {
  const notice: Notice = { id: ++lastId, text, kind };
  notices.value = [...notices.value.slice(-2), notice];
  setTimeout(() => dismiss(notice.id), kind === "error" ? ERROR_SHOWN_MS : SHOWN_MS);
  say(text);
}

export function dismiss(id: number): void {
  notices.value = notices.value.filter((notice) => notice.id !== id);
}
