/** What a tool is: something that takes pointers and keys while it is armed. */

import type { XY } from "../geometry";
import type { Editor } from "../editor";

export type ToolName = "select" | "point" | "box" | "brush" | "eraser" | "polygon" | "vertices" | "cut" | "everything";

export interface PointerInput {
  /** In pixels of the image, not rounded; may lie outside of it. */
  readonly at: XY;
  readonly screen: XY;
  readonly alt: boolean;
  readonly shift: boolean;
  readonly mod: boolean;
  /** 0 the main one, 2 the right one. */
  readonly button: number;
}

export abstract class Tool {
  constructor(protected readonly editor: Editor) {}

  readonly cursor: string = "crosshair";

  /** It became the armed tool. */
  arm(): void {}
  /** Another tool is armed now. Unfinished work is kept or dropped, never half done. */
  disarm(): void {}

  down(_input: PointerInput): void {}
  /** @param isPressed between `down` and `up`. */
  move(_input: PointerInput, _isPressed: boolean): void {}
  up(_input: PointerInput): void {}
  /** The pointer left the image. */
  leave(): void {}

  /** Enter or N. @returns whether there was something to commit. */
  commit(): boolean {
    return false;
  }

  /** Esc. @returns whether there was something to cancel. */
  cancel(): boolean {
    return false;
  }

  /** Del. @returns whether the tool had something of its own to delete. */
  remove(): boolean {
    return false;
  }

  /** Tab. */
  cycle(_direction: 1 | -1): void {}

  /** Undo inside unfinished work. @returns whether there was some. */
  undo(): boolean {
    return false;
  }

  redo(): boolean {
    return false;
  }

  draw(_context: CanvasRenderingContext2D): void {}
}
