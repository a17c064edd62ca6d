/** Which view is shown, kept in the fragment of the address. */

import { signal } from "@preact/signals";

export type Route = { readonly view: "grid" } | { readonly view: "item"; readonly item: string };

function read(): Route {
  const match = /^#\/items\/([^/?]+)/.exec(location.hash);
  return match ? { view: "item", item: decodeURIComponent(match[1]!) } : { view: "grid" };
}

export const route = signal<Route>(read());

addEventListener("hashchange", () => {
  route.value = read();
});

export const itemHref = (id: string): string => `#/items/${encodeURIComponent(id)}`;

export function openItem(id: string): void {
  location.hash = itemHref(id);
}

export function openGrid(): void {
  location.hash = "#/";
}
