/** Cuts the selected object along a line that is drawn across it. */

import { distance, type XY } from "../geometry";
import { cutMask } from "../mask/morphology";
import { t } from "../i18n";
import { notify } from "../notices";
import { replaceByParts } from "../object_edits";
import { strokePath } from "./overlay";
import { type PointerInput, Tool } from "./tool";

const STEP_PX = 3;

export class CutTool extends Tool {
  private line: XY[] = [];

  override disarm(): void {
    this.line = [];
  }

  override down(input: PointerInput): void {
    const { editor } = this;
    if (!editor.target.value) {
      const found = editor.objectAt(input.at);
      if (found) editor.select([found]);
      else notify(t("hint.cut.none"));
      return;
    }
    if (editor.canEditTarget()) this.line = [input.at];
  }

  override move(input: PointerInput, isPressed: boolean): void {
    const last = this.line.at(-1);
    if (!isPressed || !last) return;
    const { viewport } = this.editor;
    // Shift draws one straight line.
    if (input.shift) this.line = [this.line[0]!, input.at];
    else if (distance(viewport.toScreen(last), input.screen) >= STEP_PX) this.line.push(input.at);
    this.editor.surface?.requestFrame();
  }

  override up(input: PointerInput): void {
    const target = this.editor.target.value;
    const line = [...this.line, input.at];
    this.line = [];
    this.editor.surface?.requestFrame();
    if (!target || line.length < 2) return;
    const parts = cutMask(target.mask, line);
    if (parts.length === 1) {
      const other = this.editor.objectAt(input.at);
      if (line.length === 2 && other && other !== target.id) this.editor.select([other]);
      else notify(t("say.not_cut"));
      return;
    }
    replaceByParts(this.editor, "cut", target, parts, { points: line });
  }

  override cancel(): boolean {
    const hadLine = this.line.length > 0;
    this.line = [];
    this.editor.surface?.requestFrame();
    return hadLine;
  }

  override draw(context: CanvasRenderingContext2D): void {
    strokePath(context, this.line.map((at) => this.editor.viewport.toScreen(at)), false, "#ffd60a", [6, 4]);
  }
}
