import { describe, expect, it } from "vitest";

import { inParts } from "../app/api/parts";

const sizes = (parts: readonly (readonly { readonly size: number }[])[]): number[][] => parts.map((part) => part.map(({ size }) => size));
const files = (...of: number[]): { size: number }[] => of.map((size) => ({ size }));

describe("parts of an upload", () => {
  it("have at most so many files", () => {
    expect(sizes(inParts(files(1, 2, 3, 4, 5), 2, 100))).toEqual([[1, 2], [3, 4], [5]]);
    expect(inParts(files(...Array<number>(101).fill(1))).map((part) => part.length)).toEqual([50, 50, 1]);
  });

  it("have at most so many bytes, unless a file alone has more", () => {
    expect(sizes(inParts(files(60, 40, 1, 200, 1, 100), 10, 100))).toEqual([[60, 40], [1], [200], [1], [100]]);
    expect(inParts(files(2 ** 25, 2 ** 25, 1)).map((part) => part.length)).toEqual([2, 1]);
  });

  it("are none of nothing", () => {
    expect(inParts([])).toEqual([]);
  });
});
