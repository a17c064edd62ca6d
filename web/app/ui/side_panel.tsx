/** Labels, the objects of the image, and what is selected. */

import { computed, useComputed, useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect, useMemo, useRef } from "preact/hooks";

import type { Attribute, Label } from "../api/types";
import { labelColor } from "../colors";
import { activeLabels, labelOf, labels } from "../context";
import type { AnnotatedObject } from "../document/annotated_object";
import type { Editor } from "../editor";
import { t } from "../i18n";
import { actionOf, dialog, splitSelected } from "../keys/actions";
import { moveAbove, setAttribute } from "../object_edits";
import { Button, IconButton } from "./controls";
import { Icon, type IconName } from "./icon";
import { VirtualRows } from "./virtual";

const ROW_HEIGHT = 36;

export function SidePanel({ editor }: { editor: Editor }): JSX.Element {
  return (
    <aside class="side-panel" aria-label={t("objects.title")}>
      <LabelPicker editor={editor} />
      <ObjectList editor={editor} />
      <Properties editor={editor} />
    </aside>
  );
}

export function Swatch({ label, text }: { label: Label | null; text?: string }): JSX.Element {
  const [r, g, b] = labelColor(label);
  const isLight = r * 0.299 + g * 0.587 + b * 0.114 > 140;
  return (
    <span class="swatch" style={{ background: `rgb(${r} ${g} ${b})`, color: isLight ? "#000" : "#fff" }} aria-hidden="true">
      {text}
    </span>
  );
}

function LabelPicker({ editor }: { editor: Editor }): JSX.Element {
  return (
    <section class="labels" aria-label={t("labels.title")}>
      <div class="section-head">
        <h2>{t("labels.title")}</h2>
        <IconButton icon="settings" label={t("labels.edit")} size={15} onClick={() => (dialog.value = "labels")} side="left" />
      </div>
      {activeLabels.value.length === 0 ? (
        <div class="label-chips">
          <Button icon="plus" onClick={() => (dialog.value = "labels")}>
            {t("labels.add")}
          </Button>
        </div>
      ) : (
        <div class="label-chips" role="group" aria-label={t("labels.pick")}>
          {activeLabels.value.map((label) => (
            <button type="button" class="chip" key={label.id} aria-pressed={editor.currentLabel.value === label.id} onClick={() => editor.setLabel(label.id)}>
              <Swatch label={label} text={label.hotkey ?? ""} />
              <span class="chip-name">{label.name}</span>
            </button>
          ))}
        </div>
      )}
    </section>
  );
}

function ObjectList({ editor }: { editor: Editor }): JSX.Element {
  const query = useSignal("");
  const rows = useComputed(() => {
    const objects = [...(editor.document.value?.ordered.value ?? [])].reverse(); // the uppermost first
    const wanted = query.value.trim().toLowerCase();
    return wanted ? objects.filter((object) => matches(editor, object, wanted)) : objects;
  });
  const total = editor.document.value?.objects.value.size ?? 0;
  const selection = editor.selection.value;
  const reveal = selection.length > 0 ? rows.value.findIndex(({ id }) => id === selection.at(-1)) : -1;
  const ids = (): string[] => rows.value.map(({ id }) => id);
  const areHidden = total > 0 && rows.value.every(({ id }) => editor.hidden.value.has(id));
  return (
    <section class="objects" aria-label={t("objects.title")}>
      <div class="section-head">
        <h2>{t("objects.title")}</h2>
        <span class="badge">{total.toLocaleString()}</span>
        <span class="grow" />
        {total > 0 && <IconButton icon={areHidden ? "hide" : "show"} label={t(areHidden ? "objects.show_all" : "objects.hide_all")} size={15} onClick={() => editor.toggle(editor.hidden, ids())} side="left" />}
      </div>
      {total > 5 && (
        <label class="search">
          <Icon name="search" size={15} />
          <input type="search" placeholder={t("objects.search")} aria-label={t("objects.search")} value={query.value} onInput={(e) => (query.value = e.currentTarget.value)} />
        </label>
      )}
      {rows.value.length === 0 ? (
        <p class="empty">{t(total === 0 ? "objects.empty" : "objects.nothing")}</p>
      ) : (
        <VirtualRows count={rows.value.length} rowHeight={ROW_HEIGHT} label={t("objects.title")} class="object-list" reveal={reveal} row={(i, top) => <ObjectRow key={rows.value[i]!.id} editor={editor} object={rows.value[i]!} rows={rows.value} index={i} top={top} />} />
      )}
    </section>
  );
}

function matches(editor: Editor, object: AnnotatedObject, query: string): boolean {
  const values = [editor.nameOf(object), object.source, ...Object.values(object.attributes)];
  return values.some((value) => String(value).toLowerCase().includes(query));
}

const SOURCES: Record<AnnotatedObject["source"], IconName> = { manual: "hand", assisted: "point", auto: "everything", imported: "download" };

interface RowProps {
  readonly editor: Editor;
  readonly object: AnnotatedObject;
  readonly rows: readonly AnnotatedObject[];
  readonly index: number;
  readonly top: number;
}

function ObjectRow({ editor, object, rows, index, top }: RowProps): JSX.Element {
  const { id } = object;
  // Each row looks at its own state only: selecting one of a thousand draws two rows.
  const isSelected = useMemo(() => computed(() => editor.selection.value.includes(id)), [id]).value;
  const isHovered = useMemo(() => computed(() => editor.hovered.value === id), [id]).value;
  const isHidden = useMemo(() => computed(() => editor.hidden.value.has(id)), [id]).value;
  const isLocked = useMemo(() => computed(() => editor.locked.value.has(id)), [id]).value;
  const label = labelOf(object.labelId);
  const press = (event: MouseEvent): void => {
    const selection = editor.selection.value;
    if (event.ctrlKey || event.metaKey) editor.select(isSelected ? selection.filter((other) => other !== id) : [...selection, id]);
    else if (event.shiftKey && selection.length > 0) editor.select(range(rows, selection.at(-1)!, id));
    else editor.select([id]);
  };
  const onKey = (event: KeyboardEvent): void => {
    const step = event.key === "ArrowDown" ? 1 : event.key === "ArrowUp" ? -1 : 0;
    const next = rows[index + step];
    if (step === 0 || !next) return;
    event.preventDefault();
    event.stopPropagation();
    editor.select([next.id]);
    requestAnimationFrame(() => document.querySelector<HTMLElement>(`[data-object="${next.id}"]`)?.focus());
  };
  return (
    <li
      class={`object-row ${isSelected ? "selected" : ""} ${isHovered ? "hovered" : ""} ${isHidden ? "is-hidden" : ""}`}
      style={{ transform: `translateY(${top}px)` }}
      aria-setsize={rows.length}
      aria-posinset={index + 1}
      onPointerEnter={() => (editor.hovered.value = id)}
      onPointerLeave={() => (editor.hovered.value = null)}
      draggable
      onDragStart={(event) => event.dataTransfer?.setData("text/x-segany-object", id)}
      onDragOver={(event) => event.dataTransfer?.types.includes("text/x-segany-object") && event.preventDefault()}
      onDrop={(event) => {
        const moved = event.dataTransfer?.getData("text/x-segany-object");
        if (moved && moved !== id) moveAbove(editor, moved, id);
      }}
    >
      <button
        type="button"
        class="object-name"
        data-object={id}
        tabIndex={isSelected || (index === 0 && editor.selection.value.length === 0) ? 0 : -1}
        aria-pressed={isSelected}
        onClick={press}
        onDblClick={() => editor.viewport.showBox(object.mask.box, 16)}
        onKeyDown={onKey}
      >
        <Swatch label={label} />
        <span class="ellipsis">{label?.name ?? t("labels.none")}</span>
        <span class="muted source" title={t(`object.source.${object.source}`)}>
          <Icon name={SOURCES[object.source]} size={13} />
        </span>
        <span class="muted area">{shortArea(object.mask.area)} <span class="visually-hidden">px</span></span>
      </button>
      <div class="row-actions">
        <IconButton icon={isHidden ? "hide" : "show"} label={t(isHidden ? "objects.show" : "objects.hide")} size={15} class={isHidden ? "kept" : ""} onClick={() => editor.toggle(editor.hidden, [id])} side="left" />
        <IconButton icon={isLocked ? "lock" : "unlock"} label={t(isLocked ? "objects.unlock" : "objects.lock")} size={15} class={isLocked ? "kept" : ""} onClick={() => editor.toggle(editor.locked, [id])} side="left" />
        <IconButton icon="trash" label={t("objects.delete")} size={15} onClick={() => editor.remove([id])} side="left" />
      </div>
    </li>
  );
}

function range(rows: readonly AnnotatedObject[], from: string, to: string): string[] {
  const [a, b] = [rows.findIndex(({ id }) => id === from), rows.findIndex(({ id }) => id === to)];
  const ids = rows.slice(Math.min(a, b), Math.max(a, b) + 1).map(({ id }) => id);
  return a > b ? ids.reverse() : ids;
}

const shortArea = (area: number): string => (area < 10_000 ? area.toLocaleString() : area < 1e6 ? `${Math.round(area / 1000)}k` : `${(area / 1e6).toFixed(1)}M`);

const EDITS: readonly { action: string; icon: IconName }[] = [
  { action: "fill_holes", icon: "fillHoles" },
  { action: "remove_specks", icon: "specks" },
  { action: "grow", icon: "grow" },
  { action: "shrink", icon: "shrink" },
  { action: "split", icon: "split" },
  { action: "merge", icon: "merge" },
  { action: "duplicate", icon: "duplicate" },
  { action: "raise", icon: "raise" },
  { action: "lower", icon: "lower" },
];

function Properties({ editor }: { editor: Editor }): JSX.Element | null {
  const selected = editor.selected.value;
  const target = editor.target.value;
  if (!target) return null;
  const label = labelOf(target.labelId);
  const [x0, y0, x1, y1] = target.mask.box;
  return (
    <section class="properties" aria-label={t("object.label")}>
      <div class="section-head">
        <h2>{selected.length > 1 ? t("object.selected", { n: selected.length }) : (label?.name ?? t("labels.none"))}</h2>
        <span class="grow" />
        <IconButton icon="trash" label={t("objects.delete")} action="delete" size={16} onClick={() => editor.remove()} side="left" />
      </div>
      {selected.length === 1 && (
        <p class="facts muted">
          {x1 - x0} × {y1 - y0} · {t("object.area", { n: target.mask.area })} · {t(`object.source.${target.source}`)}
        </p>
      )}
      <select class="label-select" aria-label={t("object.label")} value={target.labelId ?? ""} onChange={(e) => editor.setLabel(e.currentTarget.value === "" ? null : Number(e.currentTarget.value))}>
        <option value="">{t("labels.none")}</option>
        {labels.value
          .filter(({ archived, id }) => !archived || id === target.labelId)
          .map((each) => (
            <option key={each.id} value={each.id}>
              {each.name}
            </option>
          ))}
      </select>
      <div class="edit-buttons" role="group" aria-label={t("object.edit")}>
        {EDITS.filter(({ action }) => action !== "merge" || selected.length > 1).map(({ action, icon }) => (
          <IconButton key={action} icon={icon} label={actionOf(action).name()} action={action} size={16} side="top" onClick={() => (action === "split" ? splitSelected(editor) : actionOf(action).run(editor))} />
        ))}
      </div>
      {label && label.attributes.length > 0 && (
        <div class="attributes">
          {label.attributes.map((attribute) => (
            <AttributeField key={`${target.id}.${attribute.name}`} editor={editor} object={target} attribute={attribute} />
          ))}
        </div>
      )}
    </section>
  );
}

function AttributeField({ editor, object, attribute }: { editor: Editor; object: AnnotatedObject; attribute: Attribute }): JSX.Element {
  const value = object.attributes[attribute.name] ?? "";
  const id = `attribute-${attribute.name}`;
  const input = useRef<HTMLInputElement>(null);
  useEffect(() => {
    if (input.current && document.activeElement !== input.current) input.current.value = String(value);
  }, [value]);
  return (
    <div class="field">
      <label for={id}>{attribute.name}</label>
      {attribute.type === "choice" ? (
        <select id={id} value={value} onChange={(e) => setAttribute(editor, attribute.name, e.currentTarget.value)}>
          <option value="">–</option>
          {attribute.choices.map((choice) => <option key={choice}>{choice}</option>)}
        </select>
      ) : (
        <input
          id={id}
          ref={input}
          type={(attribute.type === "number" ? "number" : "text") as "number"}
          step="any"
          defaultValue={String(value)}
          onChange={(e) => {
            const text = e.currentTarget.value;
            setAttribute(editor, attribute.name, text === "" ? null : attribute.type === "number" ? Number(text) : text);
          }}
        />
      )}
    </div>
  );
}
