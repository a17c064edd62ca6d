/** Automatic masks as suggestions: filtered in the page, accepted and rejected by click. */

import { computed, signal } from "@preact/signals";

import { ApiError, getProposals, startProposals } from "../api/client";
import { jobs, model, noteJob } from "../context";
import type { Edit } from "../document/item_document";
import { t } from "../i18n";
import { decodeCounts } from "../mask/counts";
import { type Mask, maskIou } from "../mask/mask";
import { notify, say } from "../notices";
import { persisted } from "../settings";
import { type PointerInput, Tool } from "./tool";

export interface Suggestion {
  readonly key: string;
  readonly index: number;
  readonly mask: Mask;
  readonly predictedIou: number;
  readonly stabilityScore: number;
}

/** An object that covers a suggestion this well makes it needless. */
const SAME_IOU = 0.8;

export const thresholds = persisted("everything", { predictedIou: 0.88, stabilityScore: 0.92, area: 0 });

export class EverythingTool extends Tool {
  override readonly cursor = "pointer";
  readonly suggestions = signal<readonly Suggestion[] | null>(null);
  readonly rejected = signal<ReadonlySet<string>>(new Set());
  readonly isLoading = signal(false);
  private item: string | null = null;
  private readonly jobId = signal<string | null>(null);

  readonly job = computed(() => jobs.value.find(({ id }) => id === this.jobId.value) ?? null);

  /** Those above the thresholds that no object covers, larger ones first: smaller ones lie above them. */
  readonly visible = computed(() => {
    const { predictedIou, stabilityScore, area } = thresholds.value;
    return this.open.value.filter(
      (s) => s.predictedIou >= predictedIou && s.stabilityScore >= stabilityScore && s.mask.area >= area,
    );
  });

  private readonly open = computed(() => {
    const objects = [...(this.editor.document.value?.objects.value.values() ?? [])];
    return (this.suggestions.value ?? []).filter(
      ({ key, mask }) => !this.rejected.value.has(key) && !objects.some((o) => o.mask === mask || maskIou(o.mask, mask) > SAME_IOU),
    );
  });

  readonly total = computed(() => this.open.value.length);

  override arm(): void {
    void this.load();
  }

  override disarm(): void {
    this.editor.hovered.value = null;
  }

  /** Another image is open. */
  forget(): void {
    this.item = null;
    this.suggestions.value = null;
    this.rejected.value = new Set();
    this.jobId.value = null;
  }

  async load(): Promise<void> {
    const document = this.editor.document.value;
    if (!document || (this.item === document.id && this.suggestions.value)) return;
    this.item = document.id;
    this.isLoading.value = true;
    try {
      const proposals = await getProposals(document.id);
      if (this.editor.document.value?.id !== document.id) return;
      this.suggestions.value =
        proposals &&
        proposals
          .map(({ counts, predicted_iou, stability_score }, index) => ({
            key: `suggestion:${index}`,
            index,
            mask: decodeCounts(counts, document.width, document.height),
            predictedIou: predicted_iou,
            stabilityScore: stability_score,
          }))
          .sort((a, b) => b.mask.area - a.mask.area);
    } catch (error) {
      notify(t("say.failed", { message: (error as ApiError).message }), "error");
    } finally {
      this.isLoading.value = false;
    }
  }

  async compute(): Promise<void> {
    const document = this.editor.document.value;
    if (!document) return;
    try {
      const job = await startProposals(document.id);
      noteJob(job);
      this.jobId.value = job.id;
      const stop = jobs.subscribe(() => {
        const state = this.job.peek()?.state;
        if (this.jobId.peek() !== job.id || state === "failed" || state === "canceled") queueMicrotask(() => stop());
        else if (state === "done") {
          queueMicrotask(() => stop());
          void this.load();
        }
      });
    } catch (error) {
      notify(t("say.failed", { message: (error as ApiError).message }), "error");
    }
  }

  override move(input: PointerInput): void {
    this.editor.hovered.value = this.keyAt(input);
  }

  override leave(): void {
    this.editor.hovered.value = null;
  }

  override up(input: PointerInput): void {
    const key = this.keyAt(input);
    if (!key) return;
    const suggestion = this.visible.value.find((s) => s.key === key);
    if (!suggestion) {
      this.editor.select([key]);
      return;
    }
    if (input.button === 2 || input.alt) this.reject([suggestion]);
    else this.accept([suggestion]);
  }

  /** Enter takes the suggestion under the pointer or the cursor. */
  override commit(): boolean {
    const suggestion = this.visible.value.find((s) => s.key === this.editor.hovered.value);
    if (suggestion) this.accept([suggestion]);
    return suggestion !== undefined;
  }

  override remove(): boolean {
    const suggestion = this.visible.value.find((s) => s.key === this.editor.hovered.value);
    if (suggestion) this.reject([suggestion]);
    return suggestion !== undefined;
  }

  accept(suggestions: readonly Suggestion[]): void {
    const document = this.editor.document.value;
    if (!document || suggestions.length === 0) return;
    let z = document.nextZ();
    const edits = suggestions.map(({ mask }): Edit => {
      const id = crypto.randomUUID();
      return { id, after: { id, labelId: this.editor.currentLabel.value, attributes: {}, mask, z: z++, source: "auto" } };
    });
    const facts = suggestions.map(({ index, predictedIou, stabilityScore }) => ({ index, predicted_iou: predictedIou, stability_score: stabilityScore }));
    document.edit("accept", edits, [{ kind: "accept", payload: { suggestions: facts }, modelVersion: model.value?.name ?? null }]);
    say(t("say.accepted", { n: suggestions.length }));
  }

  reject(suggestions: readonly Suggestion[]): void {
    this.rejected.value = new Set([...this.rejected.value, ...suggestions.map(({ key }) => key)]);
  }

  private keyAt({ at }: PointerInput): string | null {
    return this.editor.surface?.labelMap.keyAt(at[0], at[1]) ?? null;
  }
}
