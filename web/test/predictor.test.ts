import { signal } from "@preact/signals";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import type { Live, LiveMessage } from "../app/api/live";
import type { LiveUp, PredictPrompt, Step } from "../app/api/live_messages";
import type { LocalDecoder } from "../app/predict/local_decoder";
import { type Answer, Predictor } from "../app/predict/predictor";

const SIDE = 2;
const STEPS: readonly Step[] = [{ points: [[1, 1]], labels: [1], box: null, multimask: true, candidate: 2 }];
const LOGITS = new Int8Array(SIDE ** 2).fill(1);

/** A server that answers after some time, and a decoder in the page that does. */
class Setting {
  readonly sent: LiveUp[] = [];
  readonly shown: Answer[] = [];
  readonly connected = signal(true);
  serverMs = 10;
  hereMs = 30;
  hasDecoder = true;
  private readonly ready = new Set<string>();
  private listener: (message: LiveMessage) => void = () => undefined;
  private made = 0;

  readonly predictor = new Predictor(
    {
      connected: this.connected,
      listen: (listener: (message: LiveMessage) => void) => (this.listener = listener),
      send: (message: LiveUp) => this.send(message),
    } as unknown as Live,
    {
      has: (item: string) => this.ready.has(item),
      prepare: (item: string) => this.ready.add(item),
      remember: () => undefined,
      decode: async () => {
        await new Promise((resolve) => setTimeout(resolve, this.hereMs));
        return { token: `here ${++this.made}`, scores: [1], side: SIDE, logits: LOGITS };
      },
    } as unknown as LocalDecoder,
    () => this.hasDecoder,
  );

  prompt(refine: PredictPrompt["refine"] = null): PredictPrompt {
    return { item: "a", points: [[1, 1]], labels: [1], box: null, refine };
  }

  async ask(refine: PredictPrompt["refine"] = null): Promise<Answer> {
    this.predictor.ask(this.prompt(refine), refine === null, (answer) => void this.shown.push(answer), refine ? STEPS : []);
    await vi.advanceTimersByTimeAsync(500);
    return this.shown.at(-1)!;
  }

  async slowServer(): Promise<void> {
    this.serverMs = 100;
    for (let i = 0; i < 10; i++) await this.ask();
  }

  predictions(): number {
    return this.sent.filter(({ type }) => type === "predict").length;
  }

  private send(message: LiveUp): boolean {
    if (!this.connected.peek()) return false;
    this.sent.push(message);
    if (message.type !== "predict" && message.type !== "exact") return true;
    const { seq } = message;
    if (message.refine?.token.startsWith("here")) {
      setTimeout(() => this.listener({ type: "error", seq, code: "unknown_token", message: "?" }), this.serverMs);
    } else if (message.type === "predict") {
      const token = `server ${++this.made}`;
      const answer = { seq, token, scores: [1], candidates: 1, latency_ms: 5, side: SIDE, quantization: 0.1, logits: LOGITS };
      setTimeout(() => this.listener({ type: "prediction", ...answer }), this.serverMs);
    } else {
      setTimeout(() => this.listener({ type: "mask", seq, counts: "", score: 1, area: 1, box_xyxy: [0, 0, 1, 1] }), this.serverMs);
    }
    return true;
  }
}

describe("where predictions are made", () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  it("is the server while it is fast", async () => {
    const setting = new Setting();
    for (let i = 0; i < 5; i++) await setting.ask();
    expect(setting.predictions()).toBe(5);
  });

  it("is the page where the server is slow, which is asked now and then", async () => {
    const setting = new Setting();
    await setting.slowServer();
    const before = setting.predictions();
    for (let i = 0; i < 64; i++) await setting.ask();
    expect(setting.predictions() - before).toBeGreaterThan(2);
    expect(setting.predictions() - before).toBeLessThan(8);
  });

  it("is the server where the page is slower still", async () => {
    const setting = new Setting();
    setting.hereMs = 200;
    await setting.slowServer();
    const before = setting.predictions();
    for (let i = 0; i < 10; i++) await setting.ask();
    expect(setting.predictions() - before).toBeGreaterThanOrEqual(9);
  });

  it("is the page while there is no connection", async () => {
    const setting = new Setting();
    await setting.slowServer();
    setting.connected.value = false;
    const before = setting.predictions();
    expect((await setting.ask()).token).toContain("here");
    expect(setting.predictions()).toBe(before);
  });

  it("asks a slow server for the decoder once", async () => {
    const setting = new Setting();
    setting.hasDecoder = false;
    await setting.slowServer();
    expect(setting.sent.filter(({ type }) => type === "want_decoder")).toHaveLength(1);
  });
});

describe("the mask that is stored", () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  it("is made by the server from its own predictions in place of those of the page", async () => {
    const setting = new Setting();
    await setting.slowServer();
    const first = await setting.ask();
    expect(first.token).toContain("here");
    const second = await setting.ask({ token: first.token, candidate: 2 });
    expect(second.token).toContain("here");
    const before = setting.sent.length;
    const exact = setting.predictor.exact(setting.prompt({ token: second.token, candidate: 0 }), null, STEPS);
    await vi.advanceTimersByTimeAsync(1_000);
    expect(await exact).not.toBeNull();
    const sent = setting.sent.slice(before);
    expect(sent.map(({ type }) => type)).toEqual(["exact", "exact"]);
    expect(sent[1]).toMatchObject({ refine: null, steps: STEPS });
  });
});
