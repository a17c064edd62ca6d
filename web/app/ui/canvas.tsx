/** The image: passes pointers and touches to the armed tool, and pans and zooms. */

import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";

import type { Editor } from "../editor";
import { distance, type XY } from "../geometry";
import { t } from "../i18n";
import { NoWebGL2Error } from "../render/program";
import { theme, wheelPans } from "../settings";
import { drawCursor } from "../tools/overlay";
import type { PointerInput } from "../tools/tool";

const WHEEL_SPEED = 0.0016;
const PINCH_SPEED = 0.012;

interface Pinch {
  readonly center: XY;
  readonly span: number;
}

export function Canvas({ editor, isSpaceDown }: { editor: Editor; isSpaceDown: boolean }): JSX.Element {
  const [canvas, overlay] = [useRef<HTMLCanvasElement>(null), useRef<HTMLCanvasElement>(null)];
  const isMissing = useSignal(false);
  useEffect(() => {
    try {
      return editor.mount(canvas.current!, overlay.current!, (context) => {
        const cursor = editor.cursor.peek();
        if (cursor) drawCursor(context, editor.viewport.toScreen(cursor));
      });
    } catch (error) {
      if (!(error instanceof NoWebGL2Error)) throw error;
      isMissing.value = true;
      return undefined;
    }
  }, [editor]);
  useEffect(() => {
    const update = (): void => {
      const style = getComputedStyle(document.documentElement).getPropertyValue("--canvas-rgb").split(",").map(Number);
      editor.surface?.setScene({ background: [style[0] ?? 20, style[1] ?? 21, style[2] ?? 24] });
    };
    update();
    const isDark = matchMedia("(prefers-color-scheme: dark)");
    isDark.addEventListener("change", update);
    return () => isDark.removeEventListener("change", update);
  }, [editor, theme.value, editor.document.value]);
  usePointers(editor, overlay, isSpaceDown);
  const isLost = editor.surface?.isLost.value ?? false;
  const tool = editor.tool;
  return (
    <div
      class="canvas"
      role="application"
      tabIndex={0}
      id="canvas"
      aria-label={t("canvas.label", { name: editor.document.value?.item.name ?? "" })}
      style={{ cursor: isSpaceDown ? "grab" : tool.cursor }}
    >
      <canvas ref={canvas} />
      <canvas ref={overlay} class="overlay" />
      {(isMissing.value || isLost) && (
        <div class="blocker" role="alert">
          <h2>{t(isLost ? "webgl.lost_title" : "webgl.title")}</h2>
          <p>{t(isLost ? "webgl.lost" : "webgl.text")}</p>
        </div>
      )}
    </div>
  );
}

function usePointers(editor: Editor, overlay: { current: HTMLCanvasElement | null }, isSpaceDown: boolean): void {
  const space = useRef(isSpaceDown);
  space.current = isSpaceDown;
  useEffect(() => {
    const element = overlay.current!;
    const { viewport } = editor;
    const touches = new Map<number, XY>();
    let pressed: number | null = null;
    let panFrom: XY | null = null;
    let pinch: Pinch | null = null;

    const place = (event: MouseEvent): XY => {
      const { left, top } = element.getBoundingClientRect();
      return [event.clientX - left, event.clientY - top];
    };
    const input = (event: MouseEvent, button: number): PointerInput => {
      const screen = place(event);
      return { screen, at: viewport.toImage(screen), alt: event.altKey, shift: event.shiftKey, mod: event.ctrlKey || event.metaKey, button };
    };
    const measure = (): Pinch => {
      const [a, b] = [...touches.values()] as [XY, XY];
      return { center: [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2], span: distance(a, b) };
    };
    const abort = (): void => {
      if (pressed !== null) editor.tool.cancel();
      pressed = null;
    };
    const down = (event: PointerEvent): void => {
      if (!editor.document.peek()) return;
      document.getElementById("canvas")?.focus({ preventScroll: true });
      editor.cursor.value = null;
      editor.document.peek()?.time.touch();
      element.setPointerCapture(event.pointerId);
      if (event.pointerType === "touch") {
        touches.set(event.pointerId, place(event));
        if (touches.size === 2) {
          abort(); // the first finger meant to pan
          pinch = measure();
          return;
        }
      }
      if (event.button === 1 || (event.button === 0 && space.current)) {
        panFrom = place(event);
        event.preventDefault();
      } else if ((event.button === 0 || event.button === 2) && pressed === null && touches.size < 2) {
        pressed = event.button;
        editor.tool.down(input(event, pressed));
      }
    };
    const move = (event: PointerEvent): void => {
      if (!editor.document.peek()) return;
      if (touches.has(event.pointerId)) touches.set(event.pointerId, place(event));
      if (pinch && touches.size === 2) {
        const next = measure();
        viewport.pan(next.center[0] - pinch.center[0], next.center[1] - pinch.center[1]);
        viewport.zoomAt(next.center, next.span / Math.max(1, pinch.span));
        pinch = next;
      } else if (panFrom) {
        const at = place(event);
        viewport.pan(at[0] - panFrom[0], at[1] - panFrom[1]);
        panFrom = at;
      } else if (!pinch) {
        editor.document.peek()?.time.touch();
        // Strokes want every place the pointer was at, not only one a frame.
        const events = pressed !== null ? (event.getCoalescedEvents?.() ?? []) : [];
        for (const each of events.length > 0 ? events : [event]) editor.tool.move(input(each, pressed ?? 0), pressed !== null);
      }
    };
    const up = (event: PointerEvent): void => {
      touches.delete(event.pointerId);
      if (touches.size < 2) pinch = touches.size === 0 ? null : pinch;
      if (panFrom) panFrom = null;
      else if (pressed !== null && event.button === pressed) {
        const button = pressed;
        pressed = null;
        editor.tool.up(input(event, button));
      }
    };
    const cancel = (event: PointerEvent): void => {
      touches.delete(event.pointerId);
      abort();
      panFrom = null;
      pinch = null;
    };
    const wheel = (event: WheelEvent): void => {
      event.preventDefault();
      const unit = event.deltaMode === 1 ? 16 : 1;
      const isPinch = event.ctrlKey;
      if (!isPinch && (wheelPans.value || event.shiftKey)) {
        const [dx, dy] = event.shiftKey && event.deltaX === 0 ? [event.deltaY, 0] : [event.deltaX, event.deltaY];
        viewport.pan(-dx * unit, -dy * unit);
      } else viewport.zoomAt(place(event), Math.exp(-event.deltaY * unit * (isPinch ? PINCH_SPEED : WHEEL_SPEED)));
    };
    const leave = (): void => editor.tool.leave();
    const noMenu = (event: Event): void => event.preventDefault();
    element.addEventListener("pointerdown", down);
    element.addEventListener("pointermove", move);
    element.addEventListener("pointerup", up);
    element.addEventListener("pointercancel", cancel);
    element.addEventListener("pointerleave", leave);
    element.addEventListener("wheel", wheel, { passive: false });
    element.addEventListener("contextmenu", noMenu);
    return () => {
      element.removeEventListener("pointerdown", down);
      element.removeEventListener("pointermove", move);
      element.removeEventListener("pointerup", up);
      element.removeEventListener("pointercancel", cancel);
      element.removeEventListener("pointerleave", leave);
      element.removeEventListener("wheel", wheel);
      element.removeEventListener("contextmenu", noMenu);
    };
  }, [editor]);
}
