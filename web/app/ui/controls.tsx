/** Buttons, sliders, menus and dialogs, each once. */

import { useSignal } from "@preact/signals";
import type { ComponentChildren, JSX } from "preact";
import { useEffect, useId, useRef } from "preact/hooks";

import { t } from "../i18n";
import { chordParts, chordText, keymap } from "../keys/actions";
import { Icon, type IconName } from "./icon";

interface IconButtonProps {
  readonly icon: IconName;
  readonly label: string;
  /** Whose key the tooltip shows. */
  readonly action?: string;
  readonly pressed?: boolean;
  readonly disabled?: boolean;
  readonly onClick: (event: MouseEvent) => void;
  readonly class?: string;
  readonly size?: number;
  readonly side?: "bottom" | "right" | "top" | "left";
}

export function IconButton({ icon, label, action, pressed, disabled, onClick, size, side = "bottom", class: extra = "" }: IconButtonProps): JSX.Element {
  return (
    <button
      type="button"
      class={`icon-button ${extra}`}
      aria-label={label}
      aria-pressed={pressed}
      aria-keyshortcuts={action ? ariaKeys(action) : undefined}
      disabled={disabled ?? false}
      onClick={onClick}
      data-tip={label}
      data-tip-key={action ? chordText(action) : undefined}
      data-side={side}
    >
      <Icon name={icon} size={size ?? 18} />
    </button>
  );
}

const ariaKeys = (action: string): string | undefined =>
  keymap.value.chordsOf(action).map((chord) => chord.replace("Mod", "Control")).join(" ") || undefined;

interface ButtonProps {
  readonly children: ComponentChildren;
  readonly onClick?: () => void;
  readonly kind?: "plain" | "primary" | "danger";
  readonly icon?: IconName;
  readonly disabled?: boolean;
  readonly type?: "button" | "submit";
  readonly action?: string;
}

export function Button({ children, onClick, kind = "plain", icon, disabled, type = "button", action }: ButtonProps): JSX.Element {
  const chord = action ? chordText(action) : "";
  return (
    <button type={type} class={`button ${kind}`} onClick={() => onClick?.()} disabled={disabled ?? false}>
      {icon && <Icon name={icon} size={16} />}
      <span>{children}</span>
      {chord && <kbd>{chord}</kbd>}
    </button>
  );
}

interface SliderProps {
  readonly label: string;
  readonly value: number;
  readonly min: number;
  readonly max: number;
  readonly step: number;
  readonly shown?: string;
  readonly onInput: (value: number) => void;
}

export function Slider({ label, value, min, max, step, shown, onInput }: SliderProps): JSX.Element {
  const id = useId();
  return (
    <div class="slider">
      <label for={id}>{label}</label>
      <output for={id}>{shown ?? value}</output>
      <input id={id} type="range" min={min} max={max} step={step} value={value} onInput={(e) => onInput(Number(e.currentTarget.value))} />
    </div>
  );
}

interface SegmentedProps<T extends string> {
  readonly label: string;
  readonly value: T;
  readonly options: readonly { readonly value: T; readonly label: string; readonly count?: number }[];
  readonly onChange: (value: T) => void;
}

export function Segmented<T extends string>({ label, value, options, onChange }: SegmentedProps<T>): JSX.Element {
  return (
    <div class="segmented" role="group" aria-label={label}>
      {options.map((option) => (
        <button type="button" key={option.value} aria-pressed={option.value === value} onClick={() => onChange(option.value)}>
          {option.label}
          {option.count !== undefined && <span class="count">{option.count.toLocaleString()}</span>}
        </button>
      ))}
    </div>
  );
}

interface ToggleProps {
  readonly label: string;
  readonly hint?: string;
  readonly checked: boolean;
  readonly disabled?: boolean;
  readonly onChange: (checked: boolean) => void;
}

export function Toggle({ label, hint, checked, disabled = false, onChange }: ToggleProps): JSX.Element {
  return (
    <label class="toggle">
      <span>
        {label} {hint && <span class="muted">{hint}</span>}
      </span>
      <input type="checkbox" role="switch" checked={checked} disabled={disabled} onChange={(e) => onChange(e.currentTarget.checked)} />
    </label>
  );
}

export function Field({ label, children }: { label: string; children: (id: string) => ComponentChildren }): JSX.Element {
  const id = useId();
  return (
    <div class="field">
      <label for={id}>{label}</label>
      {children(id)}
    </div>
  );
}

export function Keys({ chord }: { chord: string }): JSX.Element {
  return (
    <span class="keys">
      {chordParts(chord).map((part) => (
        <kbd key={part}>{part}</kbd>
      ))}
    </span>
  );
}

/** A button with a panel that closes on Esc, and on a press elsewhere. */
export function Popover({ icon, label, children, side = "below", class: extra = "" }: {
  icon: IconName;
  label: string;
  children: (close: () => void) => ComponentChildren;
  side?: "below" | "above";
  class?: string;
}): JSX.Element {
  const isOpen = useSignal(false);
  const root = useRef<HTMLDivElement>(null);
  const close = (): void => {
    isOpen.value = false;
  };
  useEffect(() => {
    if (!isOpen.value) return undefined;
    const onPress = (event: PointerEvent): void => {
      if (!root.current?.contains(event.target as Node)) close();
    };
    addEventListener("pointerdown", onPress, true);
    return () => removeEventListener("pointerdown", onPress, true);
  }, [isOpen.value]);
  return (
    <div
      class={`popover ${extra}`}
      ref={root}
      onKeyDown={(event) => {
        if (event.key !== "Escape" || !isOpen.value) return;
        event.stopPropagation();
        close();
        root.current?.querySelector("button")?.focus();
      }}
    >
      <button type="button" class="icon-button" aria-label={label} aria-expanded={isOpen.value} data-tip={label} onClick={() => (isOpen.value = !isOpen.value)}>
        <Icon name={icon} />
      </button>
      {isOpen.value && <div class={`panel ${side}`}>{children(close)}</div>}
    </div>
  );
}

export function Dialog({ title, onClose, children, footer, wide = false }: {
  title: string;
  onClose: () => void;
  children: ComponentChildren;
  footer?: ComponentChildren;
  wide?: boolean;
}): JSX.Element {
  const ref = useRef<HTMLDialogElement>(null);
  const id = useId();
  useEffect(() => {
    ref.current?.showModal();
  }, []);
  return (
    <dialog
      ref={ref}
      class={wide ? "wide" : ""}
      aria-labelledby={id}
      onClose={onClose}
      onPointerDown={(event) => {
        if (event.target === ref.current) ref.current?.close();
      }}
    >
      <div class="dialog-frame">
        <div class="dialog-head">
          <h2 id={id}>{title}</h2>
          <IconButton icon="close" label={t("dialog.close")} onClick={() => ref.current?.close()} />
        </div>
        <div class="dialog-body">{children}</div>
        {footer && <footer>{footer}</footer>}
      </div>
    </dialog>
  );
}
