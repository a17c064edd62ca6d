/** All actions with their keys, which can be changed here. */

import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useLayoutEffect } from "preact/hooks";

import { t, type TextKey } from "../i18n";
import { type Action, ACTIONS, actionOf, chordParts, keymap } from "../keys/actions";
import { chordOf } from "../keys/keymap";
import { keyOverrides } from "../settings";
import { Button, Dialog, IconButton, Keys } from "./controls";
import { Icon } from "./icon";

const GROUPS = ["tools", "segment", "edit", "objects", "view", "images", "page"] as const;

export function KeysDialog({ onClose }: { onClose: () => void }): JSX.Element {
  const query = useSignal("");
  const changing = useSignal<string | null>(null);
  const problem = useSignal("");
  useCapture(changing, problem);
  const wanted = query.value.trim().toLowerCase();
  const matches = (action: Action): boolean =>
    action.name().toLowerCase().includes(wanted) || keymap.value.chordsOf(action.action).some((chord) => chord.toLowerCase() === wanted);
  return (
    <Dialog
      title={t("keys.title")}
      onClose={onClose}
      wide
      footer={
        <>
          <p class="problem" role="alert">
            {problem.value}
          </p>
          <Button icon="reset" onClick={() => (keyOverrides.value = {})}>
            {t("keys.reset_all")}
          </Button>
        </>
      }
    >
      <label class="search">
        <Icon name="search" size={15} />
        <input type="search" autofocus placeholder={t("keys.search")} aria-label={t("keys.search")} value={query.value} onInput={(e) => (query.value = e.currentTarget.value)} />
      </label>
      <div class="key-groups">
        {GROUPS.map((group) => {
          const actions = ACTIONS.filter((action) => action.group === group && matches(action));
          return (
            actions.length > 0 && (
              <section key={group}>
                <h3>{t(`group.${group}`)}</h3>
                <ul>
                  {actions.map((action) => (
                    <KeyRow key={action.action} action={action} changing={changing} problem={problem} />
                  ))}
                </ul>
              </section>
            )
          );
        })}
        {wanted === "" && (
          <section>
            <h3>{t("keys.mouse")}</h3>
            <ul class="mouse">
              {(["wheel", "pan", "click", "drag"] as const).map((each) => (
                <li key={each}>{t(`keys.mouse.${each}` as TextKey)}</li>
              ))}
            </ul>
          </section>
        )}
      </div>
    </Dialog>
  );
}

type TextSignal = { value: string };
type ChangingSignal = { value: string | null };

function KeyRow({ action, changing, problem }: { action: Action; changing: ChangingSignal; problem: TextSignal }): JSX.Element {
  const { action: id } = action;
  const isChanging = changing.value === id;
  return (
    <li class="key-row">
      <span>{action.name()}</span>
      {id in keyOverrides.value && <IconButton icon="reset" label={`${t("keys.reset")}: ${action.name()}`} size={14} onClick={() => tryTo(problem, () => keymap.value.reset(id))} />}
      <button
        type="button"
        class={`key-button ${isChanging ? "changing" : ""}`}
        onClick={() => {
          problem.value = "";
          changing.value = isChanging ? null : id;
        }}
      >
        <span class="visually-hidden">{t("keys.change", { name: action.name() })}: </span>
        {isChanging ? t("keys.press") : keymap.value.chordsOf(id).map((chord) => <Keys key={chord} chord={chord} />)}
      </button>
    </li>
  );
}

function tryTo(problem: TextSignal, change: () => { toJSON(): Record<string, readonly string[]> }): void {
  try {
    keyOverrides.value = change().toJSON();
    problem.value = "";
  } catch (error) {
    problem.value = (error as Error).message;
  }
}

/** While a key is being changed, the next one that is pressed becomes it. */
function useCapture(changing: ChangingSignal, problem: TextSignal): void {
  useLayoutEffect(() => {
    const id = changing.value;
    if (id === null) return undefined;
    const onKey = (event: KeyboardEvent): void => {
      const chord = chordOf(event);
      if (!chord) return;
      event.preventDefault();
      event.stopPropagation();
      changing.value = null;
      if (chord === "Esc") return;
      const clash = keymap.value.clash(id, chord);
      if (clash) problem.value = t("keys.clash", { chord: chordParts(chord).join(" "), name: actionOf(clash).name() });
      else tryTo(problem, () => keymap.value.rebind(id, [chord]));
    };
    addEventListener("keydown", onKey, true);
    return () => removeEventListener("keydown", onKey, true);
  }, [changing.value]);
}
