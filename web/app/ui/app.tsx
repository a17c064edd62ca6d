/** The page: which view, which dialog, what is told, and what keys do. */

import { useSignal } from "@preact/signals";
import type { ComponentChildren, JSX } from "preact";
import { useEffect, useMemo } from "preact/hooks";

import { enter, entrance, model, outbox, project, resume } from "../context";
import { Editor } from "../editor";
import { locale, t } from "../i18n";
import { actionOf, dialog, hidesConflicts, keymap } from "../keys/actions";
import { chordOf } from "../keys/keymap";
import { announcement, dismiss, notices } from "../notices";
import { route } from "../route";
import { theme } from "../settings";
import { Button } from "./controls";
import { ConflictDialog } from "./conflict_dialog";
import { ExportDialog, ImportDialog, JobsDialog } from "./exchange_dialogs";
import { EditorView } from "./editor_view";
import { addImages, GridView } from "./grid_view";
import { Icon } from "./icon";
import { KeysDialog } from "./keys_dialog";
import { LabelsDialog } from "./labels_dialog";
import { SettingsDialog } from "./settings_dialog";
import { SignInDialog, SignInForm } from "./sign_in";

export function App(): JSX.Element {
  useEffect(() => {
    const begin = (): void => void enter().catch(() => (entrance.value = "unreachable"));
    const onHash = (): void => {
      if (location.hash.startsWith("#token=")) begin(); // a new link, opened in this tab
    };
    const onFocus = (): void => void resume().catch(() => undefined);
    begin();
    addEventListener("hashchange", onHash);
    addEventListener("focus", onFocus);
    return () => {
      removeEventListener("hashchange", onHash);
      removeEventListener("focus", onFocus);
    };
  }, []);
  useEffect(() => {
    document.documentElement.lang = locale.value;
    document.documentElement.dataset["theme"] = theme.value;
  }, [locale.value, theme.value]);
  return (
    <>
      {entrance.value === "open" ? <Project /> : <Entrance />}
      <div class="notices">
        {notices.value.map(({ id, text, kind }) => (
          <div class={`notice ${kind}`} key={id}>
            {kind === "error" && <Icon name="alert" size={16} />}
            <span>{text}</span>
            <button type="button" class="icon-button" aria-label={t("dialog.close")} onClick={() => dismiss(id)}>
              <Icon name="close" size={14} />
            </button>
          </div>
        ))}
      </div>
      <div class="visually-hidden" role="log" aria-live="polite">
        {announcement.value}
      </div>
    </>
  );
}

function Project(): JSX.Element {
  const editor = useMemo(() => new Editor(), []);
  const { value: where } = route;
  useKeys(editor);
  useEffect(() => {
    document.title = [where.view === "item" ? editor.document.value?.item.name : null, project.value?.name, t("app.name")].filter(Boolean).join(" · ");
  }, [where, editor.document.value, project.value]);
  useEffect(() => {
    // For measurements from outside, such as benchmarks.
    (globalThis as { segany?: unknown }).segany = { editor, model, outbox };
  }, [editor]);
  return (
    <DropTarget>
      {where.view === "grid" ? <GridView /> : <EditorView editor={editor} item={where.item} />}
      <Dialogs editor={editor} />
    </DropTarget>
  );
}

function Dialogs({ editor }: { editor: Editor }): JSX.Element | null {
  const close = (): void => {
    dialog.value = null;
  };
  const conflict = outbox.value?.conflicts.value[0];
  switch (dialog.value) {
    case "keys":
      return <KeysDialog onClose={close} />;
    case "settings":
      return <SettingsDialog onClose={close} />;
    case "labels":
      return <LabelsDialog onClose={close} />;
    case "export":
      return <ExportDialog onClose={close} />;
    case "import":
      return <ImportDialog onClose={close} />;
    case "jobs":
      return <JobsDialog onClose={close} />;
    case "sign_in":
      return <SignInDialog onClose={close} />;
    default:
      return conflict && !hidesConflicts.value ? <ConflictDialog key={conflict.mine.revision} conflict={conflict} editor={editor} /> : null;
  }
}

const TYPES_TEXT = "input:not([type=range]):not([type=checkbox]):not([type=color]), textarea, select";
/** Keys with a meaning of their own on a control that has the focus. */
const CONTROL_KEYS = ["Enter", "Space", "Tab", "Shift+Tab", "Left", "Right", "Up", "Down", "PageUp", "PageDown"];

function useKeys(editor: Editor): void {
  useEffect(() => {
    const onKey = (event: KeyboardEvent): void => {
      const chord = chordOf(event);
      if (!chord || event.defaultPrevented) return;
      const target = event.target instanceof HTMLElement ? event.target : document.body;
      if (target.closest(TYPES_TEXT) && !(chord.startsWith("F") && chord.length > 1)) return;
      const isOnControl = target.closest("button, a, input, summary, [role=slider]") !== null;
      if (isOnControl && CONTROL_KEYS.includes(chord)) return;
      const isDialogOpen = document.querySelector("dialog[open]") !== null;
      const isInEditor = route.peek().view === "item" && editor.document.peek() !== null && !isDialogOpen;
      const id = keymap.peek().actionOf(chord, isInEditor ? ["editor", "global"] : ["global"]);
      if (!id) return;
      const action = actionOf(id);
      if (event.repeat && !action.repeats) {
        event.preventDefault();
        return;
      }
      // Tab moves the focus, unless a prompt is being made.
      if ((id === "cycle" || id === "cycle_back") && !isPrompting(editor)) return;
      event.preventDefault();
      editor.document.peek()?.time.touch();
      action.run(editor);
    };
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, [editor]);
}

function isPrompting(editor: Editor): boolean {
  const name = editor.toolName.peek();
  return (name === "point" || name === "box") && (editor[name].isActive.peek() || editor[name].shown.peek() !== null);
}

/** Files that are dropped on the page, or pasted, become images of the project. */
function DropTarget({ children }: { children: ComponentChildren }): JSX.Element {
  const isOver = useSignal(false);
  useEffect(() => {
    const onPaste = (event: ClipboardEvent): void => {
      const files = [...(event.clipboardData?.files ?? [])].filter(({ type }) => type.startsWith("image/"));
      if (files.length === 0) return;
      event.preventDefault();
      void addImages(files);
    };
    addEventListener("paste", onPaste);
    return () => removeEventListener("paste", onPaste);
  }, []);
  const hasFiles = (event: DragEvent): boolean => event.dataTransfer?.types.includes("Files") ?? false;
  return (
    <div
      class="page"
      onDragOver={(event) => {
        if (!hasFiles(event)) return;
        event.preventDefault();
        isOver.value = true;
      }}
      onDragLeave={(event) => {
        if (!event.relatedTarget) isOver.value = false;
      }}
      onDrop={(event) => {
        isOver.value = false;
        if (!hasFiles(event)) return;
        event.preventDefault();
        void addImages([...(event.dataTransfer?.files ?? [])]);
      }}
    >
      {children}
      {isOver.value && (
        <div class="drop-hint">
          <Icon name="addImages" size={40} />
          <p>{t("grid.drop")}</p>
        </div>
      )}
    </div>
  );
}

/** Before the project is open: a link is needed, or the server. */
function Entrance(): JSX.Element {
  if (entrance.value === "opening") return <main class="entrance" aria-busy="true"><span class="spinner large" /><p class="visually-hidden">{t("app.opening")}</p></main>;
  const isLocked = entrance.value === "locked";
  return (
    <main class="entrance">
      <div class="card">
        <h1>{t(isLocked ? "locked.title" : "unreachable.title")}</h1>
        <p>{t(isLocked ? "locked.text" : "unreachable.text")}</p>
        {isLocked ? (
          <SignInForm />
        ) : (
          <Button kind="primary" onClick={() => void enter().catch(() => (entrance.value = "unreachable"))}>
            {t("unreachable.retry")}
          </Button>
        )}
      </div>
    </main>
  );
}
