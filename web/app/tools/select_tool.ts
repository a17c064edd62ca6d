/** Selects the object under the pointer. */

import { type PointerInput, Tool } from "./tool";

export class SelectTool extends Tool {
  override readonly cursor = "default";

  override move(input: PointerInput): void {
    this.editor.hovered.value = this.editor.objectAt(input.at);
  }

  override leave(): void {
    this.editor.hovered.value = null;
  }

  override disarm(): void {
    this.leave();
  }

  override up(input: PointerInput): void {
    const found = this.editor.objectAt(input.at);
    const selection = this.editor.selection.value;
    if (!found) {
      if (!input.shift) this.editor.select([]);
    } else if (input.shift || input.mod) {
      this.editor.select(selection.includes(found) ? selection.filter((id) => id !== found) : [...selection, found]);
    } else this.editor.select([found]);
  }
}
