import { signal } from "@preact/signals";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import type { Label } from "../app/api/types";
import type { AnnotatedObject } from "../app/document/annotated_object";
import { ImageCache } from "../app/document/image_cache";
import type { Editor } from "../app/editor";
import type { Box } from "../app/geometry";
import { type Mask, maskFromRegion } from "../app/mask/mask";
import type { Layer } from "../app/render/label_map";
import { joinRects, type Rgb } from "../app/render/renderer";
import { type Entry, HOVERED, PATTERN_SHIFT, SELECTED, SUGGESTION, type Surface } from "../app/render/surface";
import { keepInSync } from "../app/render/sync";

const fetched = vi.hoisted((): string[] => []);

vi.mock("../app/api/client", () => ({
  getImage: async (id: string) => {
    fetched.push(id);
    if (id === "bad") throw new Error("It cannot be read.");
    return new Blob([id]);
  },
}));

vi.mock("../app/context", async () => {
  const { signal } = await import("@preact/signals");
  const labels = signal<Label[]>([
    { id: 1, name: "cat", color: "#ff0000", archived: false, attributes: [] },
    { id: 2, name: "cup", color: "#00ff00", archived: false, attributes: [] },
  ]);
  return { labels, labelOf: (id: number | null) => labels.value.find((label) => label.id === id) ?? null };
});

const SIZE = 20;

const square = ([x0, y0, x1, y1]: Box): Mask => maskFromRegion({ box: [x0, y0, x1, y1], bits: new Uint8Array((x1 - x0) * (y1 - y0)).fill(1) }, SIZE, SIZE);

const object = (id: string, labelId: number | null, z: number): AnnotatedObject => ({
  id, labelId, attributes: {}, mask: square([z, z, z + 5, z + 5]), z, source: "manual",
});

describe("keeping what is drawn in sync", () => {
  function made() {
    const objects = signal(new Map([object("a", 1, 1), object("b", 2, 2), object("c", null, 3)].map((each) => [each.id, each])));
    const selection = signal<readonly string[]>([]);
    const [hidden, hidesOthers, toolName] = [signal(new Set<string>()), signal(false), signal("point")];
    const target = { get value() { return objects.value.get(selection.value.at(-1) ?? "") ?? null; } };
    const tool = { showPreview: vi.fn() };
    const editor = {
      document: signal({ objects, ordered: { get value() { return [...objects.value.values()].sort((a, b) => a.z - b.z); } } }),
      selection, target, hidden, hidesOthers, toolName, hovered: signal<string | null>(null), hidesMasks: signal(false), cursor: signal(null),
      currentLabel: signal<number | null>(1), combine: signal("new"), point: tool, box: {}, tool, paintedMask: null as Mask | null,
      everything: { visible: signal([{ key: "s", mask: square([9, 9, 12, 12]), index: 4 }]) },
      isVisible: (id: string) => !hidden.value.has(id) && (!hidesOthers.value || selection.value.includes(id)),
    };
    const drawn = { layers: [] as readonly Layer[], entry: (() => ({ color: [0, 0, 0], flags: 0 })) as (key: string) => Entry, scene: {} as object };
    const active = vi.fn<(mask: Mask | null, style: { color: Rgb; pattern: number } | null, isPainted?: boolean) => void>();
    const surface = {
      setLayers: (layers: readonly Layer[]) => (drawn.layers = layers),
      setPalette: (entry: (key: string) => Entry) => (drawn.entry = entry),
      setScene: (scene: object) => (drawn.scene = scene),
      setActive: active,
      requestFrame: vi.fn(),
    };
    const stop = keepInSync(editor as unknown as Editor, surface as unknown as Surface);
    return { editor, objects, drawn, active, tool, stop, keys: () => drawn.layers.map(({ key }) => key) };
  }

  it("draws objects from below to above, in their labels' colors and patterns", () => {
    const { drawn, keys } = made();
    expect(keys()).toEqual(["a", "b", "c"]);
    expect(drawn.entry("a")).toEqual({ color: [255, 0, 0], flags: 0 });
    expect(drawn.entry("b")).toEqual({ color: [0, 255, 0], flags: 1 << PATTERN_SHIFT });
  });

  it("takes the edited object out of the layers, with its own mask", () => {
    const { editor, objects, active, drawn, keys } = made();
    editor.selection.value = ["b", "a"];
    expect(keys()).toEqual(["b", "c"]);
    expect(drawn.entry("b").flags & SELECTED).toBe(SELECTED);
    expect(active).toHaveBeenLastCalledWith(objects.value.get("a")!.mask, { color: [255, 0, 0], pattern: 0 }, false);
    editor.paintedMask = square([0, 0, 2, 2]);
    objects.value = new Map(objects.value).set("a", { ...objects.value.get("a")!, mask: editor.paintedMask });
    expect(active).toHaveBeenLastCalledWith(editor.paintedMask, expect.anything(), true);
  });

  it("draws neither what is hidden nor, on demand, what is not selected", () => {
    const { editor, active, keys } = made();
    editor.hidden.value = new Set(["b"]);
    expect(keys()).toEqual(["a", "c"]);
    editor.selection.value = ["b"];
    expect(active.mock.lastCall?.[1]).toBe(null);
    editor.hidden.value = new Set();
    editor.hidesOthers.value = true;
    expect(keys()).toEqual([]);
    expect(active.mock.lastCall?.[1]).toEqual({ color: [0, 255, 0], pattern: 1 });
  });

  it("shows suggestions below all objects while the tool for them is armed", () => {
    const { editor, drawn, keys } = made();
    editor.toolName.value = "everything";
    expect(keys()).toEqual(["s", "a", "b", "c"]);
    editor.hovered.value = "s";
    expect(drawn.entry("s").flags).toBe(SUGGESTION | HOVERED);
    expect(drawn.scene).toEqual({ showsMasks: true, dim: 0.35 });
  });

  it("colors the preview anew with the label, until it is stopped", () => {
    const { editor, tool, stop } = made();
    const before = tool.showPreview.mock.calls.length;
    editor.currentLabel.value = 2;
    expect(tool.showPreview.mock.calls.length).toBe(before + 1);
    stop();
    editor.currentLabel.value = 1;
    expect(tool.showPreview.mock.calls.length).toBe(before + 1);
  });
});

describe("joining rectangles", () => {
  it("joins what shares much, keeps apart what does not, and drops what is empty", () => {
    expect(joinRects([[0, 0, 10, 10], [2, 2, 10, 10], [100, 100, 5, 5], [3, 3, 0, 8]])).toEqual([[0, 0, 12, 12], [100, 100, 5, 5]]);
  });

  it("covers every pixel of the rectangles", () => {
    let state = 3;
    const random = (n: number): number => (state = (state * 1103515245 + 12345) & 0x7fffffff) % n;
    for (let round = 0; round < 50; round++) {
      const rects = Array.from({ length: 8 }, () => [random(40), random(40), random(15), random(15)] as const);
      const joined = joinRects(rects);
      const covers = (x: number, y: number, set: readonly (readonly number[])[]): boolean =>
        set.some(([left, top, width, height]) => x >= left! && x < left! + width! && y >= top! && y < top! + height!);
      for (let x = 0; x < 55; x++) for (let y = 0; y < 55; y++) if (covers(x, y, rects)) expect(covers(x, y, joined)).toBe(true);
      expect(joined.length).toBeLessThanOrEqual(rects.length);
    }
  });
});

describe("the cache of images", () => {
  beforeEach(() => {
    fetched.length = 0;
    vi.stubGlobal("createImageBitmap", async (blob: Blob) => ({ text: await blob.text() }));
  });
  afterEach(() => vi.unstubAllGlobals());

  it("decodes an image once, and has the next ones before they are opened", async () => {
    const cache = new ImageCache();
    const first = await cache.get("one");
    cache.prefetch(["two", null]);
    expect(await cache.get("one")).toBe(first);
    await cache.get("two");
    expect(fetched.length).toBe(2);
  });

  it("forgets the one that was not used for longest", async () => {
    const cache = new ImageCache();
    for (const id of ["1", "2", "3", "4", "1", "5"]) await cache.get(id);
    await cache.get("1");
    expect(fetched.length).toBe(5);
    await cache.get("2");
    expect(fetched.length).toBe(6);
  });

  it("tries again after a failure, and a failed prefetch troubles nobody", async () => {
    const cache = new ImageCache();
    cache.prefetch(["bad"]);
    await expect(cache.get("bad")).rejects.toThrow("It cannot be read.");
    await expect(cache.get("bad")).rejects.toThrow("It cannot be read.");
    expect(fetched.length).toBe(2);
  });
});
