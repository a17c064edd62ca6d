import { readFileSync } from "node:fs";

import { beforeAll, expect, it, vi } from "vitest";

import type { Action } from "../app/keys/actions";

let actions: readonly Action[];
let parts: (chord: string) => string[];
let groupName: (group: Action["group"]) => string;

beforeAll(async () => {
  vi.stubGlobal("location", new URL("http://127.0.0.1/#/"));
  vi.stubGlobal("navigator", { userAgent: "Linux", language: "en" });
  vi.stubGlobal("addEventListener", () => undefined);
  const keys = await import("../app/keys/actions");
  const { t } = await import("../app/i18n");
  [actions, parts, groupName] = [keys.ACTIONS, keys.chordParts, (group) => t(`group.${group}`)];
});

const keycap = (chord: string): string => `\`${parts(chord).map((part) => (part === "⇧" ? "Shift" : part)).join("+")}\``;

/** The nine keys of labels are one row. */
function rows(): string[] {
  const shown = actions.filter(({ action }) => !/^label\.[2-9]$/.test(action));
  return shown.map(({ action, group, name, chords }) =>
    action === "label.1" ? `| ${groupName(group)} | Label 1 to 9 | \`1\` … \`9\` |` : `| ${groupName(group)} | ${name()} | ${chords.map(keycap).join(" ")} |`,
  );
}

it("are all in the manual", () => {
  const table = ["| | action | keys |", "|---|---|---|", ...rows()].join("\n");
  const manual = readFileSync(new URL("../../docs/serve.md", import.meta.url), "utf8");
  const written = manual.slice(manual.indexOf("| | action")).split("\n\n")[0];
  if (written !== table) console.log(table);
  expect(written).toBe(table);
});
