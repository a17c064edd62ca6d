/** The editor of one image: what is open, selected, hidden and armed, and what can be done with it. */

import { batch, computed, effect, type Signal, signal, untracked } from "@preact/signals";

import * as api from "./api/client";
import type { Change, ItemState, Source } from "./api/types";
import { activeLabels, labelOf, live, model, outbox, refreshProject } from "./context";
import type { AnnotatedObject, EventDraft } from "./document/annotated_object";
import { ImageCache } from "./document/image_cache";
import { ItemDocument } from "./document/item_document";
import type { XY } from "./geometry";
import { t, type TextKey } from "./i18n";
import { combineMasks, containsPixel, type Mask } from "./mask/mask";
import { notify, say } from "./notices";
import { LocalDecoder } from "./predict/local_decoder";
import { Predictor } from "./predict/predictor";
import { Surface } from "./render/surface";
import { keepInSync } from "./render/sync";
import { Viewport } from "./render/viewport";
import { BrushTool } from "./tools/brush_tool";
import { CutTool } from "./tools/cut_tool";
import { EverythingTool } from "./tools/everything_tool";
import { PolygonTool } from "./tools/polygon_tool";
import { PromptTool } from "./tools/prompt_tool";
import { SelectTool } from "./tools/select_tool";
import type { Tool, ToolName } from "./tools/tool";
import { VertexTool } from "./tools/vertex_tool";

export type Combine = "new" | "add" | "subtract";

export class Editor {
  readonly document = signal<ItemDocument | null>(null);
  readonly error = signal<string | null>(null);
  readonly isOpening = signal(false);
  readonly viewport = new Viewport();
  readonly predictor = new Predictor(live, new LocalDecoder(), () => model.peek()?.decoder ?? false);
  readonly toolName = signal<ToolName>("point");
  /** In the order of selecting; the last one is edited. */
  readonly selection = signal<readonly string[]>([]);
  readonly hovered = signal<string | null>(null);
  readonly hidden = signal<ReadonlySet<string>>(new Set());
  readonly locked = signal<ReadonlySet<string>>(new Set());
  readonly hidesOthers = signal(false);
  readonly hidesMasks = signal(false);
  readonly combine = signal<Combine>("new");
  readonly currentLabel = signal<number | null>(null);
  /** Of the keyboard, in pixels of the image. */
  readonly cursor = signal<XY | null>(null);
  surface: Surface | null = null;
  /** The object as it was before the last combination. */
  lastCombinedWith: AnnotatedObject | null = null;

  /** The object that brush, vertices and cut work on. */
  readonly target = computed(() => {
    const id = this.selection.value.at(-1);
    return (id && this.document.value?.objects.value.get(id)) || null;
  });

  readonly selected = computed(() => this.selection.value.flatMap((id) => this.document.value?.objects.value.get(id) ?? []));

  readonly tools: Readonly<Record<ToolName, Tool>>;
  readonly point: PromptTool;
  readonly box: PromptTool;
  readonly polygon: PolygonTool;
  readonly everything: EverythingTool;

  /** The mask whose pixels the surface shows already, as a tool painted them. */
  paintedMask: Mask | null = null;
  private readonly images = new ImageCache();
  private opening = 0;

  constructor() {
    this.point = new PromptTool(this, false);
    this.box = new PromptTool(this, true);
    this.polygon = new PolygonTool(this);
    this.everything = new EverythingTool(this);
    this.tools = {
      select: new SelectTool(this),
      point: this.point,
      box: this.box,
      brush: new BrushTool(this, false),
      eraser: new BrushTool(this, true),
      polygon: this.polygon,
      vertices: new VertexTool(this),
      cut: new CutTool(this),
      everything: this.everything,
    };
    effect(() => {
      const known = activeLabels.value;
      if (!known.some(({ id }) => id === this.currentLabel.peek())) this.currentLabel.value = known[0]?.id ?? null;
    });
  }

  get tool(): Tool {
    return this.tools[this.toolName.value];
  }

  arm(name: ToolName): void {
    if (name === this.toolName.value) return;
    this.tools[this.toolName.value].disarm();
    this.toolName.value = name;
    this.tools[name].arm();
    this.surface?.requestFrame();
    say(t("say.tool", { name: t(`tool.${name}`) }));
  }

  // Opening

  async open(id: string): Promise<void> {
    const turn = ++this.opening;
    this.close();
    this.isOpening.value = true;
    this.error.value = null;
    live.send({ type: "open", item: id });
    try {
      const [item, unsaved] = await Promise.all([api.getItem(id), outbox.value?.changesOf(id) ?? []]);
      const bitmap = this.images.get(id, item.image);
      if (turn !== this.opening) return;
      const document = new ItemDocument(item, unsaved, (itemId, change) => this.save(itemId, change));
      this.surface?.resize(item.width, item.height);
      this.viewport.setImage(item.width, item.height);
      this.document.value = document;
      const image = await bitmap;
      if (turn !== this.opening) return;
      await this.surface?.setImage(image);
      this.tool.arm();
      say(t("say.image", { name: item.name, n: document.objects.value.size }));
      this.images.prefetch([item.previous_id, item.next_id]);
    } catch (error) {
      if (turn === this.opening) this.error.value = error instanceof Error ? error.message : String(error);
    } finally {
      if (turn === this.opening) this.isOpening.value = false;
    }
  }

  /** Leave the image; what is unfinished is committed. */
  close(): void {
    this.tool.disarm();
    this.everything.forget();
    this.select([]);
    this.hovered.value = null;
    this.hidden.value = new Set();
    this.locked.value = new Set();
    this.hidesOthers.value = false;
    this.cursor.value = null;
    this.document.value = null;
    this.surface?.setPreview(null);
  }

  private save(item: string, change: Change): void {
    const open = this.document.peek()?.item;
    if (open?.id === item && open.state === "todo") open.state = "in_progress"; // as the server does with the first revision
    outbox.value?.enqueue(item, change).catch((error: unknown) => notify(t("say.failed", { message: String(error) }), "error"));
  }

  async setState(state: ItemState): Promise<void> {
    const document = this.document.value;
    if (!document) return;
    try {
      await api.patchItem(document.id, state);
      document.item.state = state;
      document.version.value++;
      void refreshProject();
    } catch (error) {
      notify(t("say.failed", { message: (error as Error).message }), "error");
    }
  }

  // Drawing

  mount(canvas: HTMLCanvasElement, overlay: HTMLCanvasElement, drawCursor: (context: CanvasRenderingContext2D) => void): () => void {
    const surface = new Surface(canvas, overlay, this.viewport, (context) => {
      if (this.document.peek()) untracked(() => this.tool.draw(context));
      drawCursor(context);
    });
    this.surface = surface;
    const stop = keepInSync(this, surface);
    return () => {
      this.close();
      stop();
      surface.dispose();
      this.surface = null;
    };
  }

  isVisible(id: string): boolean {
    return !this.hidden.value.has(id) && (!this.hidesOthers.value || this.selection.value.includes(id));
  }

  /** The object at a place, the one above all others there. */
  objectAt([x, y]: XY): string | null {
    const target = this.target.value;
    if (target && this.isVisible(target.id) && containsPixel(target.mask, Math.floor(x), Math.floor(y))) return target.id;
    const key = this.surface?.labelMap.keyAt(x, y) ?? null;
    return key && this.document.value?.get(key) ? key : null;
  }

  // Selecting

  select(ids: readonly string[]): void {
    if (ids.length === 0 && this.selection.value.length === 0) return;
    this.selection.value = ids;
    if (ids.length === 1 && this.target.value) say(t("say.selected", { label: this.nameOf(this.target.value) }));
  }

  nameOf(object: AnnotatedObject): string {
    return labelOf(object.labelId)?.name ?? t("labels.none");
  }

  selectNext(direction: 1 | -1): void {
    const objects = this.document.value?.ordered.value.filter(({ id }) => !this.hidden.value.has(id)) ?? [];
    if (objects.length === 0) return;
    const shown = [...objects].reverse(); // as in the list: the uppermost first
    const index = shown.findIndex(({ id }) => id === this.selection.value.at(-1));
    const next = shown[index < 0 ? (direction > 0 ? 0 : shown.length - 1) : (index + direction + shown.length) % shown.length]!;
    this.select([next.id]);
  }

  toggle(set: Signal<ReadonlySet<string>>, ids: readonly string[]): void {
    const next = new Set(set.value);
    const turnsOn = ids.some((id) => !next.has(id));
    for (const id of ids) if (turnsOn) next.add(id);
      else next.delete(id);
    set.value = next;
  }

  // Editing

  /** Whether the selected object may be edited; says why not. */
  canEditTarget(): boolean {
    const target = this.target.value;
    if (!target || !this.locked.value.has(target.id)) return true;
    notify(t("say.locked"));
    return false;
  }

  /** A finished mask: a new object, or part of the selected one. @returns the object as it is now. */
  commitMask(mask: Mask, source: Source, events: readonly EventDraft[], name: "commit" | "polygon" = "commit"): AnnotatedObject | null {
    const document = this.document.value;
    if (!document) return null;
    const target = this.combine.value === "new" ? null : this.target.value;
    if (target && !this.canEditTarget()) return null;
    this.lastCombinedWith = target;
    const combined = this.combined(mask, this.combine.value, target);
    if (combined.area === 0) {
      if (target) document.edit("delete", [{ id: target.id, after: null }], events);
      return null;
    }
    const id = target?.id ?? crypto.randomUUID();
    const after: AnnotatedObject = target
      ? { ...target, mask: combined }
      : { id, labelId: this.currentLabel.value, attributes: {}, mask: combined, z: document.nextZ(), source };
    document.edit(target ? "refine" : name, [{ id, after }], events);
    if (!target) say(t("say.committed", { label: this.nameOf(after) }));
    return after;
  }

  combined(mask: Mask, combine: Combine, base: AnnotatedObject | null): Mask {
    if (!base || combine === "new") return mask;
    return combineMasks(base.mask, mask, combine === "add" ? "union" : "difference");
  }

  /** Send the object's revisions only when `work`, which makes its mask exact, is done. */
  holdFor(id: string, work: () => Promise<void>): void {
    outbox.value?.hold(id);
    void work().finally(() => outbox.value?.release(id));
  }

  /** @param isPainted the surface shows these pixels already. */
  replaceTargetMask(name: "brush" | "erase" | "vertex", mask: Mask, events: readonly EventDraft[], isPainted = false): void {
    const document = this.document.value;
    const target = this.target.value;
    if (!document) return;
    if (isPainted) this.paintedMask = mask;
    if (mask.area === 0) {
      if (target) document.edit("delete", [{ id: target.id, after: null }], events);
      this.select([]);
      return;
    }
    const id = target?.id ?? crypto.randomUUID();
    const after: AnnotatedObject = target
      ? { ...target, mask }
      : { id, labelId: this.currentLabel.value, attributes: {}, mask, z: document.nextZ(), source: "manual" };
    batch(() => {
      document.edit(name, [{ id, after }], events);
      if (!target) this.selection.value = [id];
    });
  }

  remove(ids: readonly string[] = this.selection.value): void {
    const objects = this.editable(ids);
    if (objects.length === 0) return;
    const removed = new Set(objects.map(({ id }) => id));
    batch(() => {
      this.selection.value = this.selection.value.filter((id) => !removed.has(id));
      this.document.value?.edit("delete", objects.map(({ id }) => ({ id, after: null })), [{ kind: "edit", payload: { name: "delete" } }]);
    });
    say(t("say.deleted", { n: objects.length }));
  }

  setLabel(labelId: number | null): void {
    this.currentLabel.value = labelId;
    const isPrompting = this.point.isActive.value || this.box.isActive.value;
    if (isPrompting && this.combine.value === "new") return;
    this.edit("label", (object) => (object.labelId === labelId ? object : { ...object, labelId }));
  }

  undo(): void {
    if (this.tool.undo()) return;
    const name = this.document.value?.undoName;
    const changes = this.document.value?.undo();
    this.afterReplay(changes ?? null, name ? t("say.undone", { name: t(`step.${name}` as TextKey) }) : t("edit.nothing_to_undo"));
  }

  redo(): void {
    if (this.tool.redo()) return;
    const name = this.document.value?.redoName;
    const changes = this.document.value?.redo();
    this.afterReplay(changes ?? null, name ? t("say.redone", { name: t(`step.${name}` as TextKey) }) : t("edit.nothing_to_redo"));
  }

  private afterReplay(changes: readonly { id: string; after: unknown }[] | null, text: string): void {
    say(text);
    if (!changes) return;
    const gone = new Set(changes.filter(({ after }) => after === null).map(({ id }) => id));
    if (this.selection.value.some((id) => gone.has(id))) this.selection.value = this.selection.value.filter((id) => !gone.has(id));
  }

  /** Those of the objects that are not locked; says what is in the way. */
  editable(ids: readonly string[] = this.selection.value): AnnotatedObject[] {
    const objects = ids.flatMap((id) => this.document.value?.get(id) ?? []);
    if (objects.length === 0) notify(t("say.nothing_selected"));
    const free = objects.filter(({ id }) => !this.locked.value.has(id));
    if (free.length < objects.length) notify(t("say.locked"));
    return free;
  }

  /** Change all selected objects that are not locked. */
  edit(name: string, change: (object: AnnotatedObject) => AnnotatedObject): void {
    const objects = this.selected.value.filter(({ id }) => !this.locked.value.has(id));
    this.document.value?.edit(name, objects.map((object) => ({ id: object.id, after: change(object) })), [{ kind: "edit", payload: { name } }]);
  }
}
