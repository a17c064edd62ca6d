import { describe, expect, it, vi } from "vitest";

import { ActiveTime } from "../app/document/active_time";
import { History } from "../app/document/history";
import { Keymap, chordOf } from "../app/keys/keymap";
import { emptyMask, maskFromRegion } from "../app/mask/mask";
import { inputScale, maskFromLogits } from "../app/predict/logits";
import { NewestWins } from "../app/predict/newest_wins";
import { LabelMap } from "../app/render/label_map";

describe("history", () => {
  it("goes back and forth over hundreds of steps", () => {
    const history = new History<number>();
    let state: number | null = null;
    for (let i = 0; i < 500; i++) {
      history.push({ name: `step ${i}`, changes: [{ id: "a", before: state, after: i }] });
      state = i;
    }
    for (let step; (step = history.undo()); ) state = step.changes[0]!.after;
    expect(state).toBe(null);
    for (let step; (step = history.redo()); ) state = step.changes[0]!.after;
    expect(state).toBe(499);
  });

  it("forgets what was undone once something else is done", () => {
    const history = new History<number>();
    history.push({ name: "one", changes: [{ id: "a", before: null, after: 1 }] });
    history.undo();
    history.push({ name: "two", changes: [{ id: "a", before: null, after: 2 }] });
    expect(history.redo()).toBe(null);
    expect(history.undoName).toBe("two");
  });

  it("reverses the changes of a step in reverse order", () => {
    const history = new History<string>();
    history.push({ name: "both", changes: [{ id: "a", before: null, after: "A" }, { id: "b", before: "B", after: null }] });
    expect(history.undo()!.changes).toEqual([{ id: "b", before: null, after: "B" }, { id: "a", before: "A", after: null }]);
  });

  it("takes an exact state in place of a provisional one", () => {
    const history = new History<string>();
    history.push({ name: "commit", changes: [{ id: "a", before: null, after: "rough" }] });
    history.amend((state) => (state === "rough" ? "exact" : state));
    history.undo();
    expect(history.redo()!.changes[0]!.after).toBe("exact");
  });
});

describe("active time", () => {
  it("leaves pauses out", () => {
    const time = new ActiveTime();
    for (const now of [0, 1000, 2000, 100_000]) time.touch(now);
    expect(time.take()).toBe(7000);
    expect(time.take()).toBe(0);
  });
});

describe("keymap", () => {
  const keymap = new Keymap([
    { action: "undo", context: "editor", chords: ["Mod+Z"] },
    { action: "brush", context: "editor", chords: ["B"] },
    { action: "help", context: "global", chords: ["?"] },
    { action: "grid.open", context: "grid", chords: ["B"] },
  ]);
  const event = (key: string, more: object = {}) =>
    ({ key, code: "", ctrlKey: false, metaKey: false, altKey: false, shiftKey: false, ...more });

  it("reads chords from events", () => {
    expect(chordOf(event("z", { ctrlKey: true }))).toBe("Mod+Z");
    expect(chordOf(event("Z", { metaKey: true, shiftKey: true }))).toBe("Mod+Shift+Z");
    expect(chordOf(event("?", { shiftKey: true }))).toBe("?");
    expect(chordOf(event("!", { shiftKey: true, code: "Digit1" }))).toBe("Shift+1");
    expect(chordOf(event("Shift", { shiftKey: true }))).toBe(null);
    expect(chordOf(event(" "))).toBe("Space");
  });

  it("takes characters of AltGr as they are", () => {
    const altGraph = { ctrlKey: true, altKey: true, getModifierState: (name: string) => name === "AltGraph" };
    expect(chordOf(event("[", altGraph))).toBe("[");
  });

  it("finds the action of a chord where it holds", () => {
    expect(keymap.actionOf("B", ["editor", "global"])).toBe("brush");
    expect(keymap.actionOf("B", ["grid", "global"])).toBe("grid.open");
    expect(keymap.actionOf("B", ["global"])).toBe(null);
  });

  it("rebinds, keeps it, and refuses clashes", () => {
    const changed = keymap.rebind("brush", ["P"]);
    expect(changed.actionOf("P", ["editor"])).toBe("brush");
    expect(changed.actionOf("B", ["editor"])).toBe(null);
    expect(() => changed.rebind("brush", ["Mod+Z"])).toThrow(/undo/);
    expect(() => changed.rebind("help", ["P"])).toThrow(/brush/);
    expect(new Keymap([{ action: "brush", context: "editor", chords: ["B"] }], { brush: ["P"], gone: ["Q"] }).toJSON()).toEqual({ brush: ["P"] });
    expect(changed.reset("brush").toJSON()).toEqual({});
  });
});

describe("newest wins", () => {
  function made() {
    const [sent, shown]: [[number, string][], string[]] = [[], []];
    const queue = new NewestWins<string, string>(
      (seq, request) => sent.push([seq, request]) > 0,
      (request, answer) => shown.push(`${request}: ${answer}`),
    );
    return { queue, sent, shown };
  }

  it("has one request in flight, then the newest", () => {
    const { queue, sent, shown } = made();
    for (const request of ["a", "b", "c"]) queue.ask(request);
    expect(sent.map(([, request]) => request)).toEqual(["a"]);
    queue.answer(sent[0]![0], "1");
    expect(sent.map(([, request]) => request)).toEqual(["a", "c"]);
    queue.answer(sent[1]![0], "2");
    expect(shown).toEqual(["a: 1", "c: 2"]);
    expect(queue.isBusy).toBe(false);
  });

  it("never shows what nobody waits for any more", () => {
    const { queue, sent, shown } = made();
    queue.ask("a");
    queue.cancel();
    queue.ask("b");
    queue.answer(sent[0]![0], "1");
    expect(shown).toEqual([]);
    queue.answer(sent[0]![0], "again");
    queue.answer(sent[1]![0], "2");
    expect(shown).toEqual(["b: 2"]);
  });

  it("goes on after an answer that never comes", () => {
    vi.useFakeTimers();
    const { queue, sent } = made();
    queue.ask("a");
    queue.ask("b");
    vi.advanceTimersByTime(10_000);
    expect(sent.map(([, request]) => request)).toEqual(["a", "b"]);
    vi.useRealTimers();
  });

  it("shows a late answer unless another one was asked for", () => {
    vi.useFakeTimers();
    const { queue, sent, shown } = made();
    queue.ask("a");
    vi.advanceTimersByTime(10_000);
    queue.answer(sent[0]![0], "1");
    expect(shown).toEqual(["a: 1"]);
    queue.ask("b");
    vi.advanceTimersByTime(10_000);
    queue.ask("c");
    queue.answer(sent[1]![0], "2");
    queue.answer(sent[2]![0], "3");
    expect(shown).toEqual(["a: 1", "c: 3"]);
    vi.useRealTimers();
  });
});

describe("logits", () => {
  it("map the image without the padding of longest-side resizing", () => {
    expect(inputScale(512, 256, 1024, "longest_side")).toEqual([1 / 512, 1 / 512]);
    expect(inputScale(512, 256, 1024, "square")).toEqual([1 / 512, 1 / 256]);
  });

  it("become a mask of the image's size by bilinear interpolation", () => {
    const side = 8;
    const logits = Int8Array.from({ length: side * side }, (_, i) => (i % side >= 4 ? 100 : -100));
    const mask = maskFromLogits(logits, side, [1 / 32, 1 / 32], 32, 16);
    expect(mask.box).toEqual([16, 0, 32, 16]);
    expect(mask.area).toBe(256);
    expect(maskFromLogits(new Int8Array(64).fill(-1), side, [1 / 32, 1 / 32], 32, 16)).toEqual(emptyMask(32, 16));
  });
});

describe("label map", () => {
  const square = (x: number, y: number, side: number) =>
    maskFromRegion({ box: [x, y, x + side, y + side], bits: new Uint8Array(side * side).fill(1) }, 20, 20);
  const [a, b] = [{ key: "a", mask: square(0, 0, 10) }, { key: "b", mask: square(5, 5, 10) }];

  it("shows the object above all others, and what is below once it is gone", () => {
    const map = new LabelMap(20, 20);
    map.update([a, b]);
    expect([map.keyAt(2, 2), map.keyAt(7, 7), map.keyAt(17, 17)]).toEqual(["a", "b", null]);
    expect(map.update([a])).toEqual([b.mask.box]);
    expect(map.keyAt(7, 7)).toBe("a");
    expect(map.keyAt(12, 12)).toBe(null);
  });

  it("paints nothing when nothing changed, and both when their order did", () => {
    const map = new LabelMap(20, 20);
    map.update([a, b]);
    expect(map.update([a, b])).toEqual([]);
    map.update([b, a]);
    expect(map.keyAt(7, 7)).toBe("a");
  });

  it("gives the slot of an object that is gone to another", () => {
    const map = new LabelMap(20, 20);
    map.update([a]);
    map.update([]);
    map.update([b]);
    expect(map.slot("b")).toBe(1);
    expect(map.keyAt(7, 7)).toBe("b");
    expect(map.keyAt(2, 2)).toBe(null);
  });
});
