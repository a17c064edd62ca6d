/** Points and boxes to masks: preview under the pointer, clicks that add and subtract, candidates, commit. */

import { computed, signal } from "@preact/signals";

import type { PredictPrompt, Step } from "../api/live_messages";
import { labelColor } from "../colors";
import { embeddings, labelOf, live, model } from "../context";
import type { EventDraft } from "../document/annotated_object";
import { type Box, boxOfCorners, clampXY, distance, type XY } from "../geometry";
import { t } from "../i18n";
import { decodeCounts } from "../mask/counts";
import { notify, say } from "../notices";
import { inputScale, maskFromLogits } from "../predict/logits";
import type { Answer } from "../predict/predictor";
import { drawPoint, strokeBox } from "./overlay";
import { type PointerInput, Tool } from "./tool";

interface Point {
  readonly at: XY;
  readonly label: 0 | 1;
}

/** One prediction that was shown, as it is stored: enough to make it again. */
interface Shown {
  readonly prompt: PredictPrompt;
  readonly multimask: boolean;
  readonly answer: Answer;
  readonly eventId: string;
  candidate: number;
  /** The prediction whose logits were fed back. */
  readonly previous: Shown | null;
}

interface Prompt {
  readonly points: readonly Point[];
  readonly box: Box | null;
  /** Its prediction, or, while that is on its way, the one before it. */
  readonly shown: Shown | null;
  readonly isAnswered: boolean;
}

const NO_PROMPT: Prompt = { points: [], box: null, shown: null, isAnswered: false };
const DRAG_PX = 5;
/** A preview is not shown longer than this once the pointer is somewhere else. */
const STALE_MS = 250;

export class PromptTool extends Tool {
  readonly prompt = signal<Prompt>(NO_PROMPT);
  private readonly hover = signal<Shown | null>(null);
  readonly candidate = signal(0);
  readonly isActive = computed(() => this.prompt.value.points.length > 0 || this.prompt.value.box !== null);
  /** What is shown: the prediction of the prompt, or that of the pointer. */
  readonly shown = computed(() => this.prompt.value.shown ?? this.hover.value);
  private undone: Prompt[] = [];
  private done: Prompt[] = [];
  private pressedAt: PointerInput | null = null;
  private dragTo: XY | null = null;
  private staleTimer: ReturnType<typeof setTimeout> | null = null;
  private commitsWhenAnswered = false;

  constructor(
    editor: ConstructorParameters<typeof Tool>[0],
    /** A press begins a box at once. */
    private readonly drawsBoxes: boolean,
  ) {
    super(editor);
  }

  get canPredict(): boolean {
    const document = this.editor.document.value;
    return document !== null && model.value?.state === "ready" && live.connected.value && embeddings.value[document.id]?.embedding !== "failed";
  }

  override disarm(): void {
    this.commit();
    this.reset();
  }

  override down(input: PointerInput): void {
    this.pressedAt = input;
    this.dropHover();
  }

  override move(input: PointerInput, isPressed: boolean): void {
    if (isPressed && this.pressedAt) {
      const isDrag = this.drawsBoxes || distance(input.screen, this.pressedAt.screen) > DRAG_PX;
      if (isDrag && this.pressedAt.button === 0) {
        this.dragTo = this.inside(input.at);
        this.editor.surface?.requestFrame();
      }
      return;
    }
    if (this.isActive.value || this.drawsBoxes) return;
    this.askHover(input.at);
  }

  override up(input: PointerInput): void {
    const pressed = this.pressedAt;
    this.pressedAt = null;
    const dragTo = this.dragTo;
    this.dragTo = null;
    this.editor.surface?.requestFrame();
    if (!pressed) return;
    if (dragTo && distance(pressed.screen, input.screen) > DRAG_PX) {
      const box = boxOfCorners(this.inside(pressed.at), dragTo);
      if (box[2] - box[0] >= 1 && box[3] - box[1] >= 1) this.change({ ...this.prompt.value, box, isAnswered: false });
      return;
    }
    const isSubtracting = pressed.button === 2 || pressed.alt;
    if (!this.isInside(pressed.at)) return;
    if (isSubtracting && !this.isActive.value) {
      notify(t("say.click_first"));
      return;
    }
    if (this.drawsBoxes && !this.isActive.value) return;
    const point: Point = { at: pressed.at, label: isSubtracting ? 0 : 1 };
    this.change({ ...this.prompt.value, points: [...this.prompt.value.points, point], isAnswered: false });
  }

  override leave(): void {
    this.dropHover();
  }

  override cycle(direction: 1 | -1): void {
    const { shown } = this;
    const count = shown.value?.answer.scores.length ?? 0;
    if (count < 2) return;
    this.choose((this.candidate.value + direction + count) % count);
  }

  choose(candidate: number): void {
    const shown = this.shown.value;
    if (!shown) return;
    shown.candidate = candidate;
    this.candidate.value = candidate;
    this.showPreview();
    say(t("say.candidate", { n: candidate + 1, score: shown.answer.scores[candidate]!.toFixed(2) }));
  }

  override commit(): boolean {
    if (!this.isActive.value) return false;
    const { shown, isAnswered } = this.prompt.value;
    if (!shown || !isAnswered) {
      this.commitsWhenAnswered = true;
      return true;
    }
    this.store(shown);
    this.reset();
    return true;
  }

  override cancel(): boolean {
    const wasActive = this.isActive.value || this.dragTo !== null;
    this.reset();
    return wasActive;
  }

  override undo(): boolean {
    const before = this.done.pop();
    if (!before) return false;
    this.undone.push(this.prompt.value);
    this.restore(before);
    return true;
  }

  override redo(): boolean {
    const after = this.undone.pop();
    if (!after) return false;
    this.done.push(this.prompt.value);
    this.restore(after);
    return true;
  }

  override draw(context: CanvasRenderingContext2D): void {
    const { viewport } = this.editor;
    const { points, box } = this.prompt.value;
    const drag = this.dragTo && this.pressedAt ? boxOfCorners(this.inside(this.pressedAt.at), this.dragTo) : null;
    for (const shape of [drag ?? box]) {
      if (shape) strokeBox(context, viewport.toScreen([shape[0], shape[1]]), viewport.toScreen([shape[2], shape[3]]), "#fff", drag ? [] : [6, 4]);
    }
    for (const { at, label } of points) drawPoint(context, viewport.toScreen(at), label === 1);
  }

  /** Drawn again when colors change. */
  showPreview(): void {
    const { surface } = this.editor;
    const shown = this.shown.value;
    surface?.setPreview(shown && { color: this.previewColor(), candidate: shown.candidate });
  }

  private previewColor(): readonly [number, number, number] {
    const { combine, target, currentLabel } = this.editor;
    const object = combine.value === "new" ? null : target.value;
    return combine.value === "subtract" && object ? [229, 72, 77] : labelColor(labelOf(object ? object.labelId : currentLabel.value));
  }

  private askHover(at: XY): void {
    if (!this.canPredict || !this.isInside(at)) {
      this.dropHover();
      return;
    }
    const prompt = this.predictPrompt([{ at, label: 1 }], null, null);
    // The last preview stands while the next one is on its way, but not for long.
    this.staleTimer ??= setTimeout(() => this.hidePreview(), STALE_MS);
    this.editor.predictor.ask(prompt, true, (answer) => {
      if (this.isActive.value || this.pressedAt) return;
      this.receive(prompt, true, answer, null, (shown) => (this.hover.value = shown));
    });
  }

  private change(next: Prompt): void {
    const before = this.prompt.value;
    this.done.push(before);
    this.undone = [];
    this.prompt.value = next;
    const first = next.points[0];
    const hovered = this.hover.peek();
    this.hover.value = null;
    if (hovered && !before.shown && !next.box && next.points.length === 1 && first && sameXY(hovered.prompt.points[0]!, first.at)) {
      this.prompt.value = { ...next, shown: hovered, isAnswered: true }; // it was asked already, for the preview
      this.editor.predictor.cancel();
      this.showPreview();
      return;
    }
    this.askPrompt(before.shown);
  }

  private askPrompt(previous: Shown | null): void {
    if (!this.canPredict) {
      notify(t(model.value?.state === "ready" ? "model.offline" : "model.failed", { name: model.value?.name ?? "", message: model.value?.message ?? "" }), "error");
      this.reset();
      return;
    }
    const asked = this.prompt.value;
    const refine = previous && { token: previous.answer.token, candidate: previous.candidate };
    const prompt = this.predictPrompt(asked.points, asked.box, refine);
    const multimask = asked.points.length === 1 && !asked.box && !refine;
    const show = (answer: Answer): void => {
      if (this.prompt.value.points !== asked.points || this.prompt.value.box !== asked.box) return;
      this.receive(prompt, multimask, answer, previous, (shown) => (this.prompt.value = { ...this.prompt.value, shown, isAnswered: true }));
      if (this.commitsWhenAnswered) this.commit();
    };
    this.editor.predictor.ask(prompt, multimask, show, chainOf(previous).map(stepOf));
  }

  private receive(prompt: PredictPrompt, multimask: boolean, answer: Answer, previous: Shown | null, keep: (shown: Shown) => void): void {
    const document = this.editor.document.value;
    if (document?.id !== prompt.item) return;
    if (this.staleTimer) clearTimeout(this.staleTimer);
    this.staleTimer = null;
    const candidate = answer.scores.indexOf(Math.max(...answer.scores));
    this.editor.surface?.setPreviewImage({ logits: answer.logits, side: answer.side, scale: this.scale() });
    keep({ prompt, multimask, answer, previous, candidate, eventId: crypto.randomUUID() });
    this.candidate.value = candidate;
    this.showPreview();
  }

  private store(shown: Shown): void {
    const document = this.editor.document.value!;
    const { answer, candidate, prompt } = shown;
    const logits = answer.logits.subarray(candidate * answer.side ** 2, (candidate + 1) * answer.side ** 2);
    const mask = maskFromLogits(logits, answer.side, this.scale(), document.width, document.height);
    const object = this.editor.commitMask(mask, "assisted", eventsOf(shown));
    if (!object) return;
    const outcome = this.editor.combine.value;
    const base = this.editor.lastCombinedWith;
    this.editor.holdFor(object.id, async () => {
      const exact = await this.editor.predictor.exact(prompt, shown.multimask ? candidate : null, chainOf(shown.previous).map(stepOf));
      if (!exact) return;
      const exactMask = decodeCounts(exact.counts, document.width, document.height);
      document.amend(object, { ...object, mask: this.editor.combined(exactMask, outcome, base) }, []);
    });
  }

  private restore(prompt: Prompt): void {
    this.editor.predictor.cancel();
    this.prompt.value = prompt;
    if (prompt.shown && prompt.isAnswered) {
      const { answer } = prompt.shown;
      this.editor.surface?.setPreviewImage({ logits: answer.logits, side: answer.side, scale: this.scale() });
      this.candidate.value = prompt.shown.candidate;
    } else if (this.isActive.value) this.askPrompt(null);
    this.showPreview();
  }

  private reset(): void {
    this.editor.predictor.cancel();
    this.commitsWhenAnswered = false;
    [this.done, this.undone] = [[], []];
    this.pressedAt = null;
    this.dragTo = null;
    this.prompt.value = NO_PROMPT;
    this.dropHover();
  }

  private dropHover(): void {
    if (!this.isActive.value) this.editor.predictor.cancel();
    if (this.hover.value) this.hover.value = null;
    if (this.staleTimer) clearTimeout(this.staleTimer);
    this.staleTimer = null;
    this.showPreview();
  }

  private hidePreview(): void {
    this.staleTimer = null;
    this.hover.value = null;
    this.showPreview();
  }

  private predictPrompt(points: readonly Point[], box: Box | null, refine: PredictPrompt["refine"]): PredictPrompt {
    return {
      item: this.editor.document.value!.id,
      points: points.map(({ at }) => [at[0], at[1]]),
      labels: points.map(({ label }) => label),
      box: box && [...box],
      refine,
    };
  }

  private scale(): XY {
    const { width, height } = this.editor.document.value!;
    const { input_size, resize } = model.value?.preprocessing ?? { input_size: 1024, resize: "longest_side" as const };
    return inputScale(width, height, input_size, resize);
  }

  private isInside([x, y]: XY): boolean {
    const { width, height } = this.editor.document.value!;
    return x >= 0 && y >= 0 && x <= width && y <= height;
  }

  private inside(at: XY): XY {
    const { width, height } = this.editor.document.value!;
    return clampXY(at, width, height);
  }
}

const sameXY = (a: readonly [number, number], b: XY): boolean => Math.abs(a[0] - b[0]) < 0.5 && Math.abs(a[1] - b[1]) < 0.5;

/** All predictions up to this one, oldest first. */
function chainOf(shown: Shown | null): Shown[] {
  const chain: Shown[] = [];
  for (let step = shown; step; step = step.previous) chain.unshift(step);
  return chain;
}

const stepOf = ({ prompt: { points, labels, box }, multimask, candidate }: Shown): Step => ({ points, labels, box, multimask, candidate });

/** All predictions that led to this one, oldest first, and which candidate was taken. */
function eventsOf(shown: Shown): EventDraft[] {
  return [
    ...chainOf(shown).map(({ prompt, multimask, answer, candidate, eventId, previous }): EventDraft => ({
      id: eventId,
      kind: prompt.box ? "box" : "point",
      payload: {
        points: prompt.points,
        labels: prompt.labels,
        box: prompt.box,
        multimask,
        refine: previous && { event: previous.eventId, candidate: previous.candidate },
      },
      modelVersion: model.peek()?.name ?? null,
      candidate,
      latencyMs: answer.latencyMs,
    })),
    { kind: "accept", payload: { event: shown.eventId }, modelVersion: model.peek()?.name ?? null, candidate: shown.candidate },
  ];
}
