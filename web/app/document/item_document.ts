/** The objects of one image while they are edited: what there is, undo and redo, and what is to be saved. */

import { computed, type ReadonlySignal, signal } from "@preact/signals";

import type { Change, ItemWithObjects, ObjectState } from "../api/types";
import { masksEqual } from "../mask/mask";
import { type AnnotatedObject, type EventDraft, fromStored, toChange } from "./annotated_object";
import { ActiveTime } from "./active_time";
import { type Change as StateChange, History } from "./history";

export type Save = (item: string, change: Change) => void;

/** An object after an edit; null removes it. */
export interface Edit {
  readonly id: string;
  readonly after: AnnotatedObject | null;
}

type Objects = ReadonlyMap<string, AnnotatedObject>;

export class ItemDocument {
  readonly id: string;
  readonly width: number;
  readonly height: number;
  private readonly objectsSignal = signal<Objects>(new Map());
  readonly objects: ReadonlySignal<Objects> = this.objectsSignal;
  /** From below to above. */
  readonly ordered = computed(() => [...this.objects.value.values()].sort((a, b) => a.z - b.z));
  /** Changes with every step, for what shows undo and redo. */
  readonly version = signal(0);
  readonly time = new ActiveTime();
  private readonly history = new History<AnnotatedObject>();
  private readonly heads = new Map<string, string>();

  constructor(
    readonly item: ItemWithObjects,
    unsaved: readonly Change[],
    private readonly save: Save,
  ) {
    this.id = item.id;
    this.width = item.width;
    this.height = item.height;
    const objects = new Map<string, AnnotatedObject>();
    for (const state of item.objects) this.load(objects, state.id, state.revision, state);
    for (const change of unsaved) this.load(objects, change.object, change.revision, change);
    this.objectsSignal.value = objects;
  }

  get(id: string): AnnotatedObject | null {
    return this.objects.value.get(id) ?? null;
  }

  get undoName(): string | null {
    return this.version.value >= 0 ? this.history.undoName : null;
  }

  get redoName(): string | null {
    return this.version.value >= 0 ? this.history.redoName : null;
  }

  /** The z of a new object: above all others. */
  nextZ(): number {
    return (this.ordered.value.at(-1)?.z ?? 0) + 1;
  }

  /** The z with which an object lies directly above another, or below all with null. */
  zAbove(id: string, belowId: string | null): number {
    const others = this.ordered.value.filter((other) => other.id !== id);
    const index = belowId === null ? -1 : others.findIndex((other) => other.id === belowId);
    const [below, above] = [others[index]?.z, others[index + 1]?.z];
    if (below === undefined) return (above ?? 1) - 1;
    return above === undefined ? below + 1 : (below + above) / 2;
  }

  /** One step of undo: all edits, or none. */
  edit(name: string, edits: readonly Edit[], events: readonly EventDraft[] = []): void {
    const changes = edits
      .map(({ id, after }) => ({ id, before: this.get(id), after }))
      .filter(({ before, after }) => before !== after);
    if (changes.length === 0) return;
    this.history.push({ name, changes });
    this.apply(changes, events);
  }

  undo(): StateChange<AnnotatedObject>[] | null {
    return this.replay(this.history.undo(), "undo");
  }

  redo(): StateChange<AnnotatedObject>[] | null {
    return this.replay(this.history.redo(), "redo");
  }

  /** Put the exact mask in place of a provisional one, unless the object was edited since. No step of undo. */
  amend(provisional: AnnotatedObject, exact: AnnotatedObject, events: readonly EventDraft[]): void {
    this.history.amend((state) => (state.mask === provisional.mask ? { ...state, mask: exact.mask } : state));
    const current = this.get(provisional.id);
    if (!current || current.mask !== provisional.mask) return;
    const isSame = masksEqual(current.mask, exact.mask);
    this.apply([{ id: current.id, before: current, after: { ...current, mask: exact.mask } }], isSame ? [] : events);
  }

  /** Take what another person saved in place of ours. */
  takeTheirs(theirs: ObjectState): void {
    const objects = new Map(this.objects.value);
    this.load(objects, theirs.id, theirs.revision, theirs);
    this.objectsSignal.value = objects;
    this.version.value++;
  }

  /** The next change of an object is based on this revision. */
  rebase(id: string, revision: string): void {
    this.heads.set(id, revision);
  }

  private replay(step: { changes: readonly StateChange<AnnotatedObject>[] } | null, name: string): StateChange<AnnotatedObject>[] | null {
    if (!step) return null;
    this.apply(step.changes, [{ kind: "edit", payload: { name } }]);
    return [...step.changes];
  }

  private apply(changes: readonly StateChange<AnnotatedObject>[], events: readonly EventDraft[]): void {
    const objects = new Map(this.objects.value);
    const activeMs = this.time.take() / changes.length;
    for (const { id, before, after } of changes) {
      if (after) objects.set(id, after);
      else objects.delete(id);
      const state = after ?? before;
      if (!state) continue;
      const [base, revision] = [this.heads.get(id) ?? null, crypto.randomUUID()];
      this.heads.set(id, revision);
      this.save(this.id, toChange(state, { revision, base, deleted: after === null, activeMs, events }));
    }
    this.objectsSignal.value = objects;
    this.version.value++;
  }

  private load(objects: Map<string, AnnotatedObject>, id: string, revision: string, stored: ObjectState | Change): void {
    this.heads.set(id, revision);
    if (stored.deleted) objects.delete(id);
    else objects.set(id, fromStored(id, stored, this.width, this.height));
  }
}
