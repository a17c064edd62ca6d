/** Texts of the page, in one catalog a language. */

import { computed } from "@preact/signals";

import { language } from "../settings";
import { de } from "./de";
import { en } from "./en";

export type TextKey = keyof typeof en;
type Params = Readonly<Record<string, string | number>>;

const CATALOGS: Record<string, Partial<Record<TextKey, string>>> = { en, de };
export const LANGUAGES: Record<string, string> = { en: "English", de: "Deutsch" };

export const locale = computed(() => {
  const wanted = language.value || navigator.language.slice(0, 2);
  return wanted in CATALOGS ? wanted : "en";
});

const number = computed(() => new Intl.NumberFormat(locale.value));
const plural = computed(() => new Intl.PluralRules(locale.value));

/**
 * A text. `{name}` is replaced by a parameter; with a parameter `n`, the text may have forms: "one text | other text".
 */
export function t(key: TextKey, params: Params = {}): string {
  const text = CATALOGS[locale.value]?.[key] ?? en[key];
  const forms = text.split(" | ");
  const form = forms.length > 1 && plural.value.select(Number(params["n"])) === "one" ? forms[0]! : forms.at(-1)!;
  return form.replace(/\{(\w+)\}/g, (_, name: string) => {
    const value = params[name];
    return typeof value === "number" ? number.value.format(value) : (value ?? "");
  });
}
