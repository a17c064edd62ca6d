/** One object of an image in the editor. It never changes: an edit gives another value. */

import type { AttributeValues, Change, ObjectState, PromptEvent, PromptKind, Source } from "../api/types";
import { decodeCounts, encodeCounts } from "../mask/counts";
import type { Mask } from "../mask/mask";

export interface AnnotatedObject {
  readonly id: string;
  readonly labelId: number | null;
  readonly attributes: AttributeValues;
  readonly mask: Mask;
  /** Objects of higher z lie above. */
  readonly z: number;
  readonly source: Source;
}

/** What a tool did, before it is numbered and saved. */
export interface EventDraft {
  /** Given where later events refer to it. */
  readonly id?: string;
  readonly kind: PromptKind;
  readonly payload: Record<string, unknown>;
  readonly modelVersion?: string | null;
  readonly candidate?: number | null;
  readonly latencyMs?: number | null;
}

type Stored = Pick<ObjectState, "label_id" | "attributes" | "counts" | "z" | "source">;

export const fromStored = (id: string, stored: Stored, width: number, height: number): AnnotatedObject => ({
  id,
  labelId: stored.label_id,
  attributes: stored.attributes as AttributeValues,
  mask: decodeCounts(stored.counts, width, height),
  z: stored.z,
  source: stored.source,
});

export interface RevisionFacts {
  readonly revision: string;
  readonly base: string | null;
  readonly deleted: boolean;
  readonly activeMs: number;
  readonly events: readonly EventDraft[];
}

export function toChange(object: AnnotatedObject, facts: RevisionFacts): Change {
  return {
    object: object.id,
    revision: facts.revision,
    base: facts.base,
    label_id: object.labelId,
    attributes: object.attributes,
    counts: encodeCounts(object.mask),
    z: object.z,
    source: object.source,
    deleted: facts.deleted,
    active_ms: Math.round(facts.activeMs),
    prompt_events: facts.events.map(toPromptEvent),
  };
}

const toPromptEvent = (event: EventDraft, sequence: number): PromptEvent => ({
  id: event.id ?? crypto.randomUUID(),
  sequence,
  kind: event.kind,
  payload: event.payload,
  model_version: event.modelVersion ?? null,
  candidate: event.candidate ?? null,
  latency_ms: event.latencyMs === undefined || event.latencyMs === null ? null : Math.round(event.latencyMs),
});
