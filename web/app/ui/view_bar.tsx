/** Zoom, and how the image and the masks look. */

import type { JSX } from "preact";

import type { Editor } from "../editor";
import { t } from "../i18n";
import { appearance, DEFAULT_APPEARANCE } from "../settings";
import { Button, IconButton, Popover, Slider, Toggle } from "./controls";

export function ViewBar({ editor }: { editor: Editor }): JSX.Element {
  const { viewport } = editor;
  const percent = Math.round(viewport.view.value.zoom * (globalThis.devicePixelRatio || 1) * 100);
  return (
    <div class="view-bar" role="toolbar" aria-label={t("view.title")}>
      <IconButton icon="minus" label={t("view.out")} action="zoom_out" onClick={() => viewport.zoomStep(-1)} side="top" />
      <button type="button" class="zoom" aria-label={`${percent} %, ${t("view.actual")}`} data-tip={t("view.actual")} data-side="top" onClick={() => viewport.actualSize()}>
        {percent} %
      </button>
      <IconButton icon="plus" label={t("view.in")} action="zoom_in" onClick={() => viewport.zoomStep(1)} side="top" />
      <IconButton icon="fit" label={t("view.fit")} action="fit" onClick={() => viewport.fit()} side="top" />
      <span class="divider" />
      <IconButton icon={editor.hidesMasks.value ? "hide" : "show"} label={t("view.hide_masks")} action="hide_masks" pressed={editor.hidesMasks.value} onClick={() => (editor.hidesMasks.value = !editor.hidesMasks.value)} side="top" />
      <Popover icon="adjust" label={t("view.adjust")} side="above">
        {() => <AppearancePanel editor={editor} />}
      </Popover>
    </div>
  );
}

function AppearancePanel({ editor }: { editor: Editor }): JSX.Element {
  const look = appearance.value;
  const set = (change: Partial<typeof look>): void => {
    appearance.value = { ...look, ...change };
  };
  const percent = (value: number): string => `${Math.round(value * 100)} %`;
  return (
    <div class="appearance">
      <Slider label={t("view.opacity")} value={look.opacity} min={0} max={1} step={0.02} shown={percent(look.opacity)} onInput={(opacity) => set({ opacity })} />
      <Toggle label={t("view.outline")} checked={look.outlineOnly} onChange={(outlineOnly) => set({ outlineOnly })} />
      <Toggle label={t("view.patterns")} checked={look.patterns} onChange={(patterns) => set({ patterns })} />
      <Toggle label={t("view.colors_objects")} checked={look.colorsObjects} onChange={(colorsObjects) => set({ colorsObjects })} />
      <Toggle label={t("view.hide_others")} checked={editor.hidesOthers.value} onChange={(on) => (editor.hidesOthers.value = on)} />
      <hr />
      <Slider label={t("view.brightness")} value={look.brightness} min={-0.5} max={0.5} step={0.01} shown={percent(look.brightness)} onInput={(brightness) => set({ brightness })} />
      <Slider label={t("view.contrast")} value={look.contrast} min={0.2} max={3} step={0.02} shown={look.contrast.toFixed(2)} onInput={(contrast) => set({ contrast })} />
      <Slider label={t("view.gamma")} value={look.gamma} min={0.3} max={3} step={0.02} shown={look.gamma.toFixed(2)} onInput={(gamma) => set({ gamma })} />
      <Button icon="reset" onClick={() => (appearance.value = DEFAULT_APPEARANCE)}>
        {t("view.reset")}
      </Button>
    </div>
  );
}
