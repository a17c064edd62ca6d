import "fake-indexeddb/auto";

import { beforeEach, describe, expect, it } from "vitest";

import { ApiError } from "../app/api/client";
import type { Batch, Change, ObjectState, SaveAnswer } from "../app/api/types";
import { Outbox } from "../app/outbox/outbox";

let project = 0;

function change(object: string, revision: string, base: string | null, more: Partial<Change> = {}): Change {
  return {
    object, revision, base, label_id: 1, attributes: {}, counts: "4", z: 1, source: "manual", deleted: false, active_ms: 10,
    prompt_events: [{ id: `${revision}-event`, sequence: 0, kind: "brush", payload: {}, model_version: null, candidate: null, latency_ms: null }],
    ...more,
  };
}

/** A server that takes each batch once, and refuses revisions with a stale base. */
class FakeServer {
  readonly heads = new Map<string, string>();
  readonly saved: string[] = [];
  readonly batches = new Map<string, SaveAnswer>();
  /** Errors of the next calls; "lost" saves, but the answer does not arrive. */
  failures: (number | "lost")[] = [];

  send = async (_item: string, { batch, changes }: Batch): Promise<SaveAnswer> => {
    const failure = this.failures.shift();
    if (typeof failure === "number") throw new ApiError(failure, `status ${failure}`);
    let answer = this.batches.get(batch);
    if (!answer) {
      answer = { results: [], conflicts: [] };
      for (const { object, revision, base } of changes) {
        if ((this.heads.get(object) ?? null) !== base) {
          answer.conflicts.push({ object, yours: revision, theirs: { id: object, revision: this.heads.get(object) } as ObjectState });
          continue;
        }
        this.heads.set(object, revision);
        this.saved.push(revision);
        answer.results.push({ object, revision, status: "saved" });
      }
      this.batches.set(batch, answer);
    }
    if (failure === "lost") throw new ApiError(0, "connection lost");
    return answer;
  };
}

describe("outbox", () => {
  let server: FakeServer;
  const open = (): Promise<Outbox> => Outbox.open(`project-${project}`, server.send, { delayMs: 60_000 });

  beforeEach(() => {
    project++;
    server = new FakeServer();
  });

  it("saves what it was given", async () => {
    const outbox = await open();
    await outbox.enqueue("item", change("a", "r1", null));
    expect(outbox.status.value).toMatchObject({ state: "saving", unsaved: 1 });
    await outbox.drain();
    expect(server.saved).toEqual(["r1"]);
    expect(outbox.status.value).toEqual({ state: "saved", unsaved: 0, message: "" });
  });

  it("joins changes in a row, with the prompts of all", async () => {
    const outbox = await open();
    await outbox.enqueue("item", change("a", "r1", null));
    await outbox.enqueue("item", change("a", "r2", "r1"));
    const [joined] = await outbox.changesOf("item");
    expect(joined).toMatchObject({ revision: "r2", base: null, active_ms: 20 });
    expect(joined!.prompt_events.map(({ id, sequence }) => [id, sequence])).toEqual([["r1-event", 0], ["r2-event", 1]]);
    await outbox.drain();
    expect(server.saved).toEqual(["r2"]);
  });

  it("keeps the base of changes made while others are on their way", async () => {
    const outbox = await open();
    await outbox.enqueue("item", change("a", "r1", null));
    const draining = outbox.drain();
    await outbox.enqueue("item", change("a", "r2", "r1"));
    await draining;
    await outbox.drain();
    expect(server.saved.at(-1)).toBe("r2");
    expect(server.heads.get("a")).toBe("r2");
    expect(outbox.conflicts.value).toEqual([]);
  });

  it("keeps everything over a restart of the browser, and sends it once", async () => {
    server.failures = [0];
    const before = await open();
    await before.enqueue("item", change("a", "r1", null));
    await before.enqueue("other", change("b", "r2", null));
    await before.drain();
    expect(before.status.value).toMatchObject({ state: "offline", unsaved: 2 });
    const after = await open();
    expect((await after.changesOf("item")).map(({ revision }) => revision)).toEqual(["r1"]);
    await after.drain();
    await before.drain();
    expect(server.saved).toEqual(["r1", "r2"]);
  });

  it("does not save twice when an answer is lost", async () => {
    server.failures = ["lost"];
    const outbox = await open();
    await outbox.enqueue("item", change("a", "r1", null));
    await outbox.drain();
    expect(outbox.status.value.unsaved).toBe(1);
    await outbox.drain();
    expect(server.saved).toEqual(["r1"]);
    expect(outbox.status.value.state).toBe("saved");
  });

  it.each([[401, "expired"], [507, "full"], [503, "offline"]])("on status %i says %s and keeps the work", async (status, state) => {
    server.failures = [status];
    const outbox = await open();
    await outbox.enqueue("item", change("a", "r1", null));
    await outbox.drain();
    expect(outbox.status.value).toMatchObject({ state, unsaved: 1 });
    await outbox.drain();
    expect(server.saved).toEqual(["r1"]);
  });

  it("sets a refused batch aside, and goes on with others", async () => {
    server.failures = [422];
    const outbox = await open();
    await outbox.enqueue("item", change("a", "r1", null));
    await outbox.enqueue("other", change("b", "r2", null));
    await outbox.drain();
    expect(server.saved).toEqual(["r2"]);
    expect(outbox.status.value).toMatchObject({ state: "refused", unsaved: 1 });
    await outbox.retryRefused();
    await outbox.drain();
    expect(server.saved).toEqual(["r2", "r1"]);
  });

  it("keeps both versions of a conflict until a person decides", async () => {
    server.heads.set("a", "theirs");
    const outbox = await open();
    await outbox.enqueue("item", change("a", "mine", "old"));
    await outbox.enqueue("item", change("b", "r2", null));
    await outbox.drain();
    expect(server.saved).toEqual(["r2"]);
    const reopened = await open();
    const [conflict] = reopened.conflicts.value;
    expect(conflict).toMatchObject({ object: "a", mine: { revision: "mine" }, theirs: { revision: "theirs" } });
    await reopened.settle(conflict!, change("a", "settled", "theirs"));
    await reopened.drain();
    expect(server.heads.get("a")).toBe("settled");
    expect(reopened.conflicts.value).toEqual([]);
  });

  it("shows two tabs' changes of one object as a conflict", async () => {
    server.heads.set("a", "r0");
    const [one, two] = [await open(), await open()];
    await one.enqueue("item", change("a", "r1", "r0"));
    await two.enqueue("item", change("a", "r2", "r0"));
    await one.drain();
    expect(server.saved).toEqual(["r1"]);
    expect(one.conflicts.value.map(({ mine }) => mine.revision)).toEqual(["r2"]);
  });

  it("holds an object until its exact mask is there", async () => {
    const outbox = await open();
    outbox.hold("a");
    await outbox.enqueue("item", change("a", "r1", null));
    await outbox.enqueue("item", change("b", "r2", null));
    await outbox.drain();
    expect(server.saved).toEqual(["r2"]);
    outbox.release("a");
    await outbox.drain();
    expect(server.saved).toEqual(["r2", "r1"]);
  });
});
