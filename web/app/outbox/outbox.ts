/**
 * What is not saved on the server yet, kept in the browser, and sent exactly once.
 *
 * A change is written to IndexedDB first (`pending`). To be sent, changes move into a batch in one transaction; a batch
 * keeps its id until the server has answered, and the server takes each id once. So a crash, a closed tab, or an answer
 * that got lost neither loses nor doubles anything.
 */

import { type ReadonlySignal, signal } from "@preact/signals";

import { ApiError } from "../api/client";
import type { Batch, Change, ObjectState, SaveAnswer } from "../api/types";
import { openDatabase, result, transact } from "./database";

export type SaveState = "saved" | "saving" | "offline" | "expired" | "full" | "refused";

export interface Conflict {
  readonly item: string;
  readonly object: string;
  readonly mine: Change;
  readonly theirs: ObjectState;
}

export interface OutboxStatus {
  readonly state: SaveState;
  /** Changes that the server does not have. */
  readonly unsaved: number;
  readonly message: string;
}

interface PendingRecord {
  readonly key?: number;
  readonly item: string;
  readonly change: Change;
}

interface BatchRecord extends Batch {
  readonly order: number;
  readonly item: string;
  readonly refused?: string;
}

type Send = (item: string, batch: Batch) => Promise<SaveAnswer>;

interface Options {
  readonly delayMs?: number;
  readonly onConflict?: (conflict: Conflict) => void;
}

const STORES = ["pending", "batches", "conflicts"] as const;
const MAX_CHANGES = 200;
const MAX_RETRY_MS = 15_000;

export class Outbox {
  private readonly statusSignal = signal<OutboxStatus>({ state: "saved", unsaved: 0, message: "" });
  readonly status: ReadonlySignal<OutboxStatus> = this.statusSignal;
  readonly conflicts = signal<readonly Conflict[]>([]);
  /** Objects whose exact mask is being computed: sent only once it is there. */
  private readonly held = new Set<string>();
  private timer: ReturnType<typeof setTimeout> | null = null;
  private draining: Promise<void> | null = null;
  private failures = 0;
  private writes: Promise<unknown> = Promise.resolve();

  private constructor(
    private readonly db: IDBDatabase,
    private readonly name: string,
    private readonly send: Send,
    private readonly options: Options,
  ) {}

  static async open(project: string, send: Send, options: Options = {}): Promise<Outbox> {
    const name = `segany-outbox-${project}`;
    const db = await openDatabase(name, 1, (created) => {
      created.createObjectStore("pending", { keyPath: "key", autoIncrement: true });
      created.createObjectStore("batches", { keyPath: "batch" });
      created.createObjectStore("conflicts", { keyPath: ["item", "object"] });
    });
    const outbox = new Outbox(db, name, send, options);
    await outbox.refresh();
    return outbox;
  }

  /** Keep a change. Resolves once it is on disk; the server gets it soon after. */
  async enqueue(item: string, change: Change): Promise<void> {
    this.show("saving", this.status.value.unsaved + 1);
    const write = this.writes.then(() =>
      transact(this.db, ["pending"], "readwrite", async (transaction) => {
        const store = transaction.objectStore("pending");
        const records = (await result(store.getAll())) as PendingRecord[];
        const last = records.filter((r) => r.change.object === change.object).at(-1);
        // Two changes in a row become one revision. Another tab's are not in a row: the server shall see both.
        const record = last?.change.revision === change.base ? { ...last, change: join(last.change, change) } : { item, change };
        await result(store.put(record));
      }),
    );
    this.writes = write.catch(() => undefined);
    await write;
    this.schedule(this.options.delayMs ?? 500);
  }

  /** Changes of an item that the server may not have, oldest first. */
  async changesOf(item: string): Promise<Change[]> {
    await this.writes;
    const { pending, batches } = await this.read();
    return [...batches.filter((b) => b.item === item).flatMap((b) => b.changes), ...pending.filter((p) => p.item === item).map((p) => p.change)];
  }

  hold(object: string): void {
    this.held.add(object);
  }

  release(object: string): void {
    if (this.held.delete(object)) this.schedule(0);
  }

  schedule(delayMs: number): void {
    if (this.timer) clearTimeout(this.timer);
    this.timer = setTimeout(() => void this.drain(), delayMs);
  }

  /** Send all there is, in order. One tab of the browser at a time does it. */
  drain(): Promise<void> {
    if (this.timer) clearTimeout(this.timer);
    this.timer = null;
    this.draining ??= this.locked(() => this.drainAll()).finally(() => {
      this.draining = null;
    });
    return this.draining;
  }

  /** A conflict is settled; `change`, if any, is based on the other's revision. */
  async settle(conflict: Conflict, change: Change | null): Promise<void> {
    await transact(this.db, ["conflicts"], "readwrite", async (transaction) => {
      await result(transaction.objectStore("conflicts").delete([conflict.item, conflict.object]));
    });
    if (change) await this.enqueue(conflict.item, change);
    await this.refresh();
  }

  /** Try refused changes again, such as after an update of the server. */
  async retryRefused(): Promise<void> {
    await transact(this.db, ["batches"], "readwrite", async (transaction) => {
      const store = transaction.objectStore("batches");
      for (const { refused: _, ...record } of (await result(store.getAll())) as BatchRecord[]) await result(store.put(record));
    });
    this.schedule(0);
  }

  private async locked(work: () => Promise<void>): Promise<void> {
    await (globalThis.navigator?.locks ? navigator.locks.request(this.name, work) : work());
  }

  private async drainAll(): Promise<void> {
    await this.writes;
    for (;;) {
      const batch = await this.nextBatch();
      if (!batch) break;
      this.show("saving");
      try {
        await this.finish(batch, await this.send(batch.item, { batch: batch.batch, changes: batch.changes }));
        this.failures = 0;
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
        if (await this.failed(batch, error)) return;
      }
    }
    await this.refresh();
  }

  /** The oldest batch that is not refused, or a new one of what is pending. */
  private nextBatch(): Promise<BatchRecord | null> {
    return transact(this.db, STORES, "readwrite", async (transaction) => {
      const batches = transaction.objectStore("batches");
      const waiting = ((await result(batches.getAll())) as BatchRecord[])
        .filter((b) => b.refused === undefined)
        .sort((a, b) => a.order - b.order);
      if (waiting[0]) return waiting[0];
      const pending = transaction.objectStore("pending");
      const records = ((await result(pending.getAll())) as PendingRecord[]).filter((r) => !this.held.has(r.change.object));
      const item = records[0]?.item;
      if (item === undefined) return null;
      const chosen = new Map<string, PendingRecord>(); // one change an object: the next is based on it
      for (const record of records) {
        if (record.item === item && !chosen.has(record.change.object) && chosen.size < MAX_CHANGES) {
          chosen.set(record.change.object, record);
        }
      }
      const changes = [...chosen.values()].map(({ change }) => change);
      const record: BatchRecord = { batch: crypto.randomUUID(), order: Date.now(), item, changes };
      await result(batches.put(record));
      for (const { key } of chosen.values()) await result(pending.delete(key!));
      return record;
    });
  }

  private async finish(batch: BatchRecord, { conflicts }: SaveAnswer): Promise<void> {
    const records = conflicts.flatMap(({ object, theirs }): Conflict[] => {
      const mine = batch.changes.find((change) => change.object === object);
      return mine ? [{ item: batch.item, object, mine, theirs }] : [];
    });
    await transact(this.db, ["batches", "conflicts"], "readwrite", async (transaction) => {
      for (const record of records) await result(transaction.objectStore("conflicts").put(record));
      await result(transaction.objectStore("batches").delete(batch.batch));
    });
    await this.refresh();
    for (const record of records) this.options.onConflict?.(record);
  }

  /** @returns whether to stop for now. */
  private async failed(batch: BatchRecord, error: ApiError): Promise<boolean> {
    const isExpired = error.status === 401 || error.status === 403;
    if (error.status >= 400 && error.status < 500 && !isExpired && ![408, 425, 429].includes(error.status)) {
      await transact(this.db, ["batches"], "readwrite", async (transaction) => {
        await result(transaction.objectStore("batches").put({ ...batch, refused: error.message }));
      });
      return false; // it would be refused again; what follows need not be
    }
    await this.refresh();
    this.show(isExpired ? "expired" : error.status === 507 ? "full" : "offline", undefined, error.message);
    if (!isExpired) this.schedule(Math.min(MAX_RETRY_MS, 500 * 2 ** this.failures++));
    return true;
  }

  private read(): Promise<{ pending: PendingRecord[]; batches: BatchRecord[]; conflicts: Conflict[] }> {
    return transact(this.db, STORES, "readonly", async (transaction) => {
      const [pending, batches, conflicts] = await Promise.all(
        STORES.map((name) => result<unknown[]>(transaction.objectStore(name).getAll())),
      );
      return {
        pending: pending as PendingRecord[],
        batches: (batches as BatchRecord[]).sort((a, b) => a.order - b.order),
        conflicts: conflicts as Conflict[],
      };
    });
  }

  private async refresh(): Promise<void> {
    const { pending, batches, conflicts } = await this.read();
    this.conflicts.value = conflicts;
    const unsaved = pending.length + batches.reduce((sum, { changes }) => sum + changes.length, 0);
    const refused = batches.find((b) => b.refused !== undefined);
    this.show(refused ? "refused" : unsaved > 0 ? "saving" : "saved", unsaved, refused?.refused ?? "");
    const canBeSent = batches.length > 0 || pending.some(({ change }) => !this.held.has(change.object));
    if (canBeSent && !this.timer && !this.draining) this.schedule(0);
  }

  private show(state: SaveState, unsaved = this.status.value.unsaved, message = ""): void {
    this.statusSignal.value = { state, unsaved, message };
  }
}

/** Two revisions in a row as one: it is based on what the first was based on, and has the prompts of both. */
function join(first: Change, second: Change): Change {
  const prompt_events = [...first.prompt_events, ...second.prompt_events].map((event, sequence) => ({ ...event, sequence }));
  return { ...second, base: first.base, active_ms: first.active_ms + second.active_ms, prompt_events };
}
