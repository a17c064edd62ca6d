/** The WebSocket of the page: prompts up, predictions and progress down. It reconnects by itself. */

import { signal } from "@preact/signals";

import type { LiveDown, LiveUp, PredictionHeader } from "./live_messages";

export interface Prediction extends PredictionHeader {
  /** [candidates, side, side], row by row. */
  readonly logits: Int8Array;
}

export type LiveMessage = Exclude<LiveDown, PredictionHeader> | Prediction;

const FIRST_RETRY_MS = 500;
const MAX_RETRY_MS = 3_000;

export class Live {
  readonly connected = signal(false);
  private socket: WebSocket | null = null;
  private header: PredictionHeader | null = null;
  private retryMs = FIRST_RETRY_MS;
  private closed = false;
  private readonly listeners = new Set<(message: LiveMessage) => void>();
  private opened: string | null = null;

  constructor(private readonly url: string) {}

  connect(): void {
    if (this.socket || this.closed) return;
    const socket = new WebSocket(this.url);
    this.socket = socket;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      this.connected.value = true;
      this.retryMs = FIRST_RETRY_MS;
      if (this.opened) this.send({ type: "open", item: this.opened });
    };
    socket.onmessage = ({ data }: MessageEvent<string | ArrayBuffer>) => this.receive(data);
    socket.onclose = () => {
      this.socket = null;
      this.header = null;
      this.connected.value = false;
      if (!this.closed) setTimeout(() => this.connect(), this.retryMs);
      this.retryMs = Math.min(MAX_RETRY_MS, this.retryMs * 2);
    };
  }

  /** @returns whether it was sent. */
  send(message: LiveUp): boolean {
    if (message.type === "open") this.opened = message.item;
    if (this.socket?.readyState !== WebSocket.OPEN) return false;
    this.socket.send(JSON.stringify(message));
    return true;
  }

  listen(listener: (message: LiveMessage) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  close(): void {
    this.closed = true;
    this.socket?.close();
  }

  private receive(data: string | ArrayBuffer): void {
    if (typeof data === "string") {
      const message = JSON.parse(data) as LiveDown;
      if (message.type === "prediction") this.header = message;
      else this.tell(message);
    } else if (this.header) {
      const header = this.header;
      this.header = null;
      this.tell({ ...header, logits: new Int8Array(data) });
    }
  }

  private tell(message: LiveMessage): void {
    for (const listener of [...this.listeners]) listener(message);
  }
}
