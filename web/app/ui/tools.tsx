/** The tools at the left, and what the armed one can be told, above the image. */

import type { ComponentChildren, JSX } from "preact";

import { embeddings, live, model } from "../context";
import type { Combine, Editor } from "../editor";
import { t, type TextKey } from "../i18n";
import { resizeBrush } from "../keys/actions";
import { brush } from "../settings";
import { thresholds } from "../tools/everything_tool";
import type { PromptTool } from "../tools/prompt_tool";
import type { ToolName } from "../tools/tool";
import { Button, IconButton, Segmented, Slider } from "./controls";
import { Icon, type IconName } from "./icon";

const GROUPS: readonly (readonly [ToolName, IconName][])[] = [
  [["select", "select"]],
  [["point", "point"], ["box", "box"], ["everything", "everything"]],
  [["brush", "brush"], ["eraser", "eraser"], ["polygon", "polygon"]],
  [["vertices", "vertices"], ["cut", "cut"]],
];

export function ToolRail({ editor }: { editor: Editor }): JSX.Element {
  return (
    <div class="tool-rail" role="toolbar" aria-label={t("tools.title")} aria-orientation="vertical">
      {GROUPS.map((group, i) => (
        <div class="tool-group" key={i}>
          {group.map(([name, icon]) => (
            <IconButton key={name} icon={icon} label={t(`tool.${name}`)} action={`tool.${name}`} pressed={editor.toolName.value === name} onClick={() => editor.arm(name)} side="right" size={19} />
          ))}
        </div>
      ))}
    </div>
  );
}

export function ToolOptions({ editor }: { editor: Editor }): JSX.Element {
  const name = editor.toolName.value;
  return (
    <div class="tool-options" role="region" aria-label={t(`tool.${name}`)}>
      <div class="options-row">{options(editor, name)}</div>
      <ModelNote editor={editor} name={name} />
    </div>
  );
}

function options(editor: Editor, name: ToolName): ComponentChildren {
  if (name === "point" || name === "box") return <PromptOptions editor={editor} tool={editor[name]} name={name} />;
  if (name === "brush" || name === "eraser") return <BrushOptions editor={editor} name={name} />;
  if (name === "everything") return <EverythingOptions editor={editor} />;
  if (name === "polygon") return <PolygonOptions editor={editor} />;
  const needsTarget = (name === "vertices" || name === "cut") && !editor.target.value;
  return <Hint text={needsTarget ? `hint.${name}.none` : (`hint.${name}` as TextKey)} />;
}

const Hint = ({ text }: { text: TextKey }): JSX.Element => <p class="hint">{t(text)}</p>;

function CombineOption({ editor }: { editor: Editor }): JSX.Element | null {
  if (!editor.target.value && editor.combine.value === "new") return null;
  return (
    <Segmented
      label={t("option.combine")}
      value={editor.combine.value}
      options={(["new", "add", "subtract"] as const).map((value) => ({ value, label: t(`option.${value}`) }))}
      onChange={(value: Combine) => (editor.combine.value = value)}
    />
  );
}

function PromptOptions({ editor, tool, name }: { editor: Editor; tool: PromptTool; name: "point" | "box" }): JSX.Element {
  const scores = tool.isActive.value ? (tool.prompt.value.shown?.answer.scores ?? []) : [];
  return (
    <>
      <CombineOption editor={editor} />
      {scores.length > 1 && (
        <div class="candidates" role="group" aria-label={t("option.candidates")}>
          {scores.map((score, i) => (
            <button type="button" key={i} aria-pressed={tool.candidate.value === i} aria-label={t("option.candidate", { n: i + 1 })} onClick={() => tool.choose(i)}>
              <b>{i + 1}</b>
              <span>{score.toFixed(2)}</span>
            </button>
          ))}
        </div>
      )}
      <Hint text={tool.isActive.value ? "hint.point.active" : `hint.${name}`} />
      {tool.isActive.value && (
        <>
          <Button kind="primary" action="commit" onClick={() => tool.commit()}>
            {t("option.commit")}
          </Button>
          <IconButton icon="close" label={t("option.cancel")} action="cancel" onClick={() => tool.cancel()} />
        </>
      )}
    </>
  );
}

function BrushOptions({ editor, name }: { editor: Editor; name: "brush" | "eraser" }): JSX.Element {
  const { size, shape } = brush.value;
  const target = editor.target.value;
  return (
    <>
      <IconButton icon="minus" label={t("action.smaller")} action="smaller" onClick={() => resizeBrush(-1)} />
      <Slider label={t("option.size")} value={Math.sqrt(size)} min={1} max={20} step={0.1} shown={t("option.px", { n: size })} onInput={(v) => (brush.value = { ...brush.value, size: Math.round(v * v) })} />
      <IconButton icon="plus" label={t("action.larger")} action="larger" onClick={() => resizeBrush(1)} />
      <Segmented label={t("option.size")} value={shape} options={[{ value: "round", label: t("option.round") }, { value: "square", label: t("option.square") }]} onChange={(value) => (brush.value = { ...brush.value, shape: value })} />
      <Hint text={name === "eraser" ? (target ? "hint.eraser" : "hint.eraser.none") : target ? "hint.brush.edit" : "hint.brush.new"} />
    </>
  );
}

function PolygonOptions({ editor }: { editor: Editor }): JSX.Element {
  const count = editor.polygon.corners.value.length;
  return (
    <>
      <CombineOption editor={editor} />
      <Hint text="hint.polygon" />
      {count >= 3 && (
        <Button kind="primary" action="commit" onClick={() => editor.polygon.commit()}>
          {t("option.commit")}
        </Button>
      )}
    </>
  );
}

function EverythingOptions({ editor }: { editor: Editor }): JSX.Element {
  const tool = editor.everything;
  const job = tool.job.value;
  const isRunning = job?.state === "running" || job?.state === "queued";
  if (tool.isLoading.value || isRunning) {
    return (
      <>
        <progress value={isRunning && job.total > 0 ? job.done / job.total : undefined} aria-label={t("everything.computing")} />
        <Hint text="everything.computing" />
      </>
    );
  }
  if (!tool.suggestions.value) {
    return (
      <Button kind="primary" icon="everything" disabled={model.value?.state !== "ready"} onClick={() => void tool.compute()}>
        {t("everything.compute")}
      </Button>
    );
  }
  if (tool.suggestions.value.length === 0) return <Hint text="everything.none" />;
  const shown = tool.visible.value;
  const set = (change: Partial<typeof thresholds.value>): void => {
    thresholds.value = { ...thresholds.value, ...change };
  };
  const { predictedIou, stabilityScore, area } = thresholds.value;
  return (
    <>
      <Slider label={t("everything.iou")} value={predictedIou} min={0.5} max={1} step={0.005} shown={predictedIou.toFixed(2)} onInput={(v) => set({ predictedIou: v })} />
      <Slider label={t("everything.stability")} value={stabilityScore} min={0.5} max={1} step={0.005} shown={stabilityScore.toFixed(2)} onInput={(v) => set({ stabilityScore: v })} />
      <Slider label={t("everything.area")} value={Math.sqrt(area)} min={0} max={200} step={1} shown={t("option.px", { n: area })} onInput={(v) => set({ area: Math.round(v * v) })} />
      <span class="muted nowrap">{t("everything.shown", { n: shown.length, total: tool.total.value })}</span>
      <Button kind="primary" icon="check" disabled={shown.length === 0} onClick={() => tool.accept(shown)}>
        {t("everything.accept_all")}
      </Button>
      <IconButton icon="close" label={t("everything.reject_all")} disabled={shown.length === 0} onClick={() => tool.reject(shown)} />
      {tool.rejected.value.size > 0 && <IconButton icon="reset" label={t("everything.restore")} onClick={() => (tool.rejected.value = new Set())} />}
    </>
  );
}

/** Why the model cannot be asked, where a tool needs it. */
function ModelNote({ editor, name }: { editor: Editor; name: ToolName }): JSX.Element | null {
  if (name !== "point" && name !== "box" && name !== "everything") return null;
  const state = model.value?.state;
  const id = editor.document.value?.id;
  const news = id ? embeddings.value[id] : undefined;
  const embedding = news?.embedding;
  const params = { name: model.value?.name ?? "", message: model.value?.message ?? "" };
  let text: string | null = null;
  if (state === "failed") text = t("model.failed", params);
  else if (state === "loading") text = t("model.loading", params);
  else if (!live.connected.value) text = t("model.offline");
  else if (embedding === "failed") text = t("model.embedding_failed", { message: news?.message ?? "" });
  else if (embedding !== "ready" && editor.document.value) text = t("model.embedding");
  if (!text) return null;
  const isTrouble = state === "failed" || embedding === "failed";
  return (
    <p class={`model-note ${isTrouble ? "trouble" : ""}`} role="status">
      {isTrouble ? <Icon name="alert" size={15} /> : <span class="spinner" />}
      {text}
    </p>
  );
}
