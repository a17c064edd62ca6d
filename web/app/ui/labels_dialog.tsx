/** The label schema: names, colors, keys and attributes. */

import { type Signal, useSignal } from "@preact/signals";
import type { JSX } from "preact";

import { ApiError, putLabels } from "../api/client";
import type { Attribute, Label, StaleLabels } from "../api/types";
import { LABEL_COLORS } from "../colors";
import { project } from "../context";
import { t } from "../i18n";
import { Button, Dialog, Field, IconButton } from "./controls";
import { Icon } from "./icon";

const HOTKEYS = ["1", "2", "3", "4", "5", "6", "7", "8", "9"];
const TYPES: readonly Attribute["type"][] = ["text", "number", "choice"];

export function LabelsDialog({ onClose }: { onClose: () => void }): JSX.Element {
  const known = new Set(project.value?.labels.map(({ id }) => id));
  const draft = useSignal<readonly Label[]>(structuredClone(project.value?.labels ?? []));
  const problem = useSignal("");
  const change = (id: number, by: Partial<Label>): void => {
    draft.value = draft.value.map((label) => (label.id === id ? { ...label, ...by } : by.hotkey && label.hotkey === by.hotkey ? { ...label, hotkey: null } : label));
  };
  const add = (): void => {
    const id = Math.max(0, ...draft.value.map((label) => label.id)) + 1;
    const hotkey = HOTKEYS.find((key) => !draft.value.some((label) => label.hotkey === key)) ?? null;
    const color = LABEL_COLORS.find((each) => !draft.value.some((label) => label.color === each)) ?? LABEL_COLORS[id % LABEL_COLORS.length]!;
    draft.value = [...draft.value, { id, name: "", color, hotkey, archived: false, attributes: [] }];
    requestAnimationFrame(() => document.querySelector<HTMLInputElement>(`#label-name-${id}`)?.focus());
  };
  return (
    <Dialog
      title={t("schema.title")}
      onClose={onClose}
      wide
      footer={
        <>
          <p class={problem.value ? "problem" : "muted"} role={problem.value ? "alert" : undefined}>
            {problem.value || t("schema.hint")}
          </p>
          <Button onClick={onClose}>{t("dialog.cancel")}</Button>
          <Button kind="primary" onClick={() => void save(draft, problem, onClose)}>
            {t("schema.save")}
          </Button>
        </>
      }
    >
      {draft.value.length === 0 && <p class="muted schema-empty">{t("schema.empty")}</p>}
      <ul class="schema">
        {draft.value.map((label) => (
          <LabelRow key={label.id} label={label} isNew={!known.has(label.id)} onEnter={add} onChange={(by) => change(label.id, by)} onRemove={() => (draft.value = draft.value.filter(({ id }) => id !== label.id))} />
        ))}
      </ul>
      <Button icon="plus" onClick={add}>
        {t("schema.add")}
      </Button>
    </Dialog>
  );
}

async function save(draft: Signal<readonly Label[]>, problem: Signal<string>, close: () => void): Promise<void> {
  const names = draft.value.map(({ name }) => name.trim());
  if (names.some((name) => name === "") || new Set(names).size < names.length) {
    problem.value = t("schema.invalid");
    return;
  }
  try {
    project.value = await putLabels(project.value?.label_version ?? 0, draft.value.map((label, i) => ({ ...label, name: names[i]! })));
    close();
  } catch (error) {
    if (error instanceof ApiError && error.status === 409) {
      project.value = (error.body as StaleLabels).project;
      draft.value = structuredClone(project.value.labels);
      problem.value = t("schema.stale");
    } else problem.value = t("say.failed", { message: (error as Error).message });
  }
}

interface RowProps {
  readonly label: Label;
  readonly isNew: boolean;
  readonly onEnter: () => void;
  readonly onChange: (by: Partial<Label>) => void;
  readonly onRemove: () => void;
}

function LabelRow({ label, isNew, onEnter, onChange, onRemove }: RowProps): JSX.Element {
  const setAttribute = (index: number, by: Partial<Attribute> | null): void => {
    const attributes = label.attributes.flatMap((each, i) => (i !== index ? [each] : by ? [{ ...each, ...by }] : []));
    onChange({ attributes });
  };
  return (
    <li class={`schema-label ${label.archived ? "archived" : ""}`}>
      <div class="schema-row">
        <label class="color-well">
          <span class="visually-hidden">{t("schema.color")}</span>
          <input type="color" value={label.color} onInput={(e) => onChange({ color: e.currentTarget.value })} />
        </label>
        <input id={`label-name-${label.id}`} class="grow" aria-label={t("schema.name")} placeholder={t("schema.name")} value={label.name} onInput={(e) => onChange({ name: e.currentTarget.value })} onKeyDown={(e) => e.key === "Enter" && onEnter()} />
        <select aria-label={t("schema.hotkey")} value={label.hotkey ?? ""} onChange={(e) => onChange({ hotkey: e.currentTarget.value || null })}>
          <option value="">–</option>
          {HOTKEYS.map((key) => (
            <option key={key}>{key}</option>
          ))}
        </select>
        <IconButton icon="plus" label={t("schema.attribute")} size={16} onClick={() => onChange({ attributes: [...label.attributes, { name: "", type: "text", choices: [] }] })} />
        {isNew ? (
          <IconButton icon="trash" label={t("schema.remove")} size={16} onClick={onRemove} />
        ) : (
          <IconButton icon={label.archived ? "reset" : "archive"} label={t(label.archived ? "schema.restore" : "schema.archive")} size={16} onClick={() => onChange({ archived: !label.archived })} />
        )}
      </div>
      {label.archived && (
        <p class="muted archived-note">
          <Icon name="archive" size={14} /> {t("schema.archived")}
        </p>
      )}
      {label.attributes.map((attribute, i) => (
        <div class="schema-attribute" key={i}>
          <Field label={t("schema.attribute_name")}>{(id) => <input id={id} value={attribute.name} onInput={(e) => setAttribute(i, { name: e.currentTarget.value })} />}</Field>
          <Field label={t("schema.type")}>
            {(id) => (
              <select id={id} value={attribute.type} onChange={(e) => setAttribute(i, { type: e.currentTarget.value as Attribute["type"] })}>
                {TYPES.map((type) => (
                  <option key={type} value={type}>
                    {t(`schema.type.${type}`)}
                  </option>
                ))}
              </select>
            )}
          </Field>
          {attribute.type === "choice" && (
            <Field label={t("schema.choices")}>
              {(id) => <input id={id} value={attribute.choices.join(", ")} onChange={(e) => setAttribute(i, { choices: e.currentTarget.value.split(",").map((c) => c.trim()).filter(Boolean) })} />}
            </Field>
          )}
          <IconButton icon="close" label={t("schema.remove")} size={15} onClick={() => setAttribute(i, null)} />
        </div>
      ))}
    </li>
  );
}
