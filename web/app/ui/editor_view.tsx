/** One image: the canvas with everything around it. */

import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect } from "preact/hooks";

import type { Editor } from "../editor";
import { t } from "../i18n";
import { Canvas } from "./canvas";
import { Button } from "./controls";
import { SidePanel } from "./side_panel";
import { ToolOptions, ToolRail } from "./tools";
import { EditorTopBar } from "./top_bar";
import { ViewBar } from "./view_bar";

/** Room that the bars above the canvas take. */
const MARGINS = { left: 74, top: 74, right: 74, bottom: 74 };

export function EditorView({ editor, item }: { editor: Editor; item: string }): JSX.Element {
  const isSpaceDown = useSignal(false);
  useEffect(() => {
    editor.viewport.setMargins(MARGINS);
    void editor.open(item);
  }, [editor, item]);
  useEffect(() => {
    const onKey = (event: KeyboardEvent): void => {
      const isElsewhere = event.target instanceof HTMLElement && event.target.closest("button, input, select, textarea, a, dialog");
      if (event.key !== " " || (event.type === "keydown" && isElsewhere)) return;
      isSpaceDown.value = event.type === "keydown";
      if (event.type === "keydown") event.preventDefault();
    };
    const release = (): void => {
      isSpaceDown.value = false;
    };
    addEventListener("keydown", onKey);
    addEventListener("keyup", onKey);
    addEventListener("blur", release);
    return () => {
      removeEventListener("keydown", onKey);
      removeEventListener("keyup", onKey);
      removeEventListener("blur", release);
    };
  }, []);
  return (
    <div class="editor-view">
      <EditorTopBar editor={editor} />
      <main class="stage">
        <Canvas editor={editor} isSpaceDown={isSpaceDown.value} />
        <ToolRail editor={editor} />
        <ToolOptions editor={editor} />
        <ViewBar editor={editor} />
        {editor.isOpening.value && <div class="loading-line" role="progressbar" aria-label={t("app.opening")} />}
        {editor.error.value !== null && (
          <div class="blocker" role="alert">
            <h2>{t("error.title")}</h2>
            <p>{editor.error.value}</p>
            <Button onClick={() => void editor.open(item)}>{t("error.retry")}</Button>
          </div>
        )}
      </main>
      <SidePanel editor={editor} />
    </div>
  );
}
