/** Where one is, whether it is saved, and the way to everything else. */

import type { JSX } from "preact";

import type { ItemState } from "../api/types";
import { isExpired, jobs, outbox, project } from "../context";
import type { Editor } from "../editor";
import { t, type TextKey } from "../i18n";
import { dialog, type DialogName, hidesConflicts } from "../keys/actions";
import { openGrid, openItem } from "../route";
import { uploading } from "../uploads";
import { IconButton, Popover } from "./controls";
import { Icon, type IconName } from "./icon";

export const STATES: readonly ItemState[] = ["todo", "in_progress", "done", "skipped"];

const MENU: readonly { icon: IconName; text: TextKey; dialog: DialogName }[] = [
  { icon: "upload", text: "menu.import", dialog: "import" },
  { icon: "download", text: "menu.export", dialog: "export" },
  { icon: "tags", text: "menu.labels", dialog: "labels" },
  { icon: "settings", text: "menu.settings", dialog: "settings" },
  { icon: "keyboard", text: "menu.keys", dialog: "keys" },
  { icon: "activity", text: "menu.jobs", dialog: "jobs" },
];

export function MainMenu(): JSX.Element {
  return (
    <Popover icon="menu" label={t("menu.title")} class="main-menu">
      {(close) =>
        MENU.map((entry) => (
          <button
            type="button"
            class="menu-item"
            key={entry.dialog}
            onClick={() => {
              close();
              dialog.value = entry.dialog;
            }}
          >
            <Icon name={entry.icon} size={16} />
            {t(entry.text)}
          </button>
        ))
      }
    </Popover>
  );
}

export function JobsIndicator(): JSX.Element | null {
  if (uploading.value.total > 0) return <UploadProgress />;
  const running = jobs.value.filter(({ state }) => state === "running" || state === "queued");
  if (running.length === 0) return null;
  const [done, total] = [running.reduce((sum, job) => sum + job.done, 0), running.reduce((sum, job) => sum + job.total, 0)];
  return (
    <button type="button" class="jobs-indicator" onClick={() => (dialog.value = "jobs")} aria-label={t("jobs.title")}>
      <progress value={total > 0 ? done / total : undefined} aria-label={t("jobs.title")} />
      <span>{t(`job.${running[0]!.kind}` as TextKey)}</span>
    </button>
  );
}

export function UploadProgress(): JSX.Element {
  const { done, total } = uploading.value;
  return (
    <div class="jobs-indicator" role="status">
      <progress value={done / total} aria-label={t("add.title")} />
      <span>{t("add.progress", { done, n: total })}</span>
    </div>
  );
}

export function SaveStatus(): JSX.Element | null {
  const box = outbox.value;
  if (!box) return null;
  const { unsaved, message } = box.status.value;
  const state = isExpired.value ? "expired" : box.status.value.state;
  const conflicts = box.conflicts.value.length;
  const isTrouble = state !== "saved" && state !== "saving";
  const text = t(state === "expired" && unsaved === 0 ? "save.ended" : `save.${state}`, { n: unsaved, message });
  return (
    <div class={`save-status ${isTrouble ? "trouble" : ""}`} role="status">
      <span class="save-text" title={text}>
        <Icon name={isTrouble ? "offline" : state} size={16} />
        <span>{text}</span>
      </span>
      {state === "expired" && (
        <button type="button" class="link" onClick={() => (dialog.value = "sign_in")}>
          {t("save.sign_in")}
        </button>
      )}
      {isTrouble && state !== "expired" && (
        <button type="button" class="link" onClick={() => void (state === "refused" ? box.retryRefused() : box.drain())}>
          {t("save.retry")}
        </button>
      )}
      {conflicts > 0 && (
        <button type="button" class="link conflicts" onClick={() => (hidesConflicts.value = false)}>
          <Icon name="alert" size={16} />
          {t("save.conflicts", { n: conflicts })}
        </button>
      )}
    </div>
  );
}

export function Brand(): JSX.Element {
  return (
    <a class="brand" href="#/" aria-label={t("nav.images")}>
      <svg width="22" height="22" viewBox="0 0 24 24" aria-hidden="true">
        <path class="brand-shape" d="M12 2.5c5.2 0 9.5 3.6 9.5 8.6 0 4-2.6 5.4-4.4 7.3-1.5 1.6-2.7 3.1-5.6 3.1-5.4 0-9-4.3-9-9.6C2.500 6.400 6.600 2.500 12 2.500z" />
        <circle class="brand-point" cx="12.400" cy="11.400" r="3.100" />
      </svg>
    </a>
  );
}

export function EditorTopBar({ editor }: { editor: Editor }): JSX.Element {
  const doc = editor.document.value;
  const item = doc?.item;
  void doc?.version.value;
  const position = item?.position;
  return (
    <header class="top-bar">
      <div class="top-left">
        <Brand />
        <button type="button" class="crumb" onClick={openGrid}>
          <Icon name="grid" size={16} />
          <span>{project.value?.name}</span>
        </button>
      </div>
      <nav class="top-center" aria-label={t("grid.title")}>
        <IconButton icon="previous" label={t("nav.previous")} action="previous" disabled={!item?.previous_id} onClick={() => openItem(item!.previous_id!)} />
        <div class="item-name">
          <h1 class={item ? "" : "visually-hidden"} title={item?.name}>
            {item?.name ?? project.value?.name}
          </h1>
          {position !== undefined && <span class="muted">{t("nav.position", { n: position + 1, total: item?.total ?? 0 })}</span>}
        </div>
        <IconButton icon="next" label={t("nav.next")} action="next" disabled={!item?.next_id} onClick={() => openItem(item!.next_id!)} />
        {item && (
          <select class={`state-select ${item.state}`} aria-label={t("nav.state")} value={item.state} onChange={(e) => void editor.setState(e.currentTarget.value as ItemState)}>
            {STATES.map((state) => (
              <option key={state} value={state}>
                {t(`state.${state}`)}
              </option>
            ))}
          </select>
        )}
      </nav>
      <div class="top-right">
        <JobsIndicator />
        <SaveStatus />
        <IconButton icon="undo" label={t("edit.undo")} action="undo" onClick={() => editor.undo()} />
        <IconButton icon="redo" label={t("edit.redo")} action="redo" onClick={() => editor.redo()} />
        <IconButton icon="keyboard" label={t("keys.title")} action="keys" onClick={() => (dialog.value = "keys")} />
        <MainMenu />
      </div>
    </header>
  );
}
