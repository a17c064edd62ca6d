/** Files on their way to the server, in parts: it takes at most 1,000 in a request, and what arrived is kept. */

import { signal } from "@preact/signals";

import { inParts } from "./api/parts";

/** Files of all uploads that go on. */
export const uploading = signal({ done: 0, total: 0 });

/** Send files part by part. Where a part fails, those before it stay. */
export async function sendInParts(files: readonly File[], send: (part: readonly File[], number: number) => Promise<void>): Promise<void> {
  const count = (done: number, total: number): void => {
    uploading.value = { done: uploading.value.done + done, total: uploading.value.total + total };
  };
  let sent = 0;
  count(0, files.length);
  try {
    for (const [number, part] of inParts(files).entries()) {
      await send(part, number);
      sent += part.length;
      count(part.length, 0);
    }
  } finally {
    count(-sent, -files.length);
  }
}
