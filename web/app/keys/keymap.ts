/** Which keys do what. A chord is text such as "Mod+Shift+Z"; Mod is Ctrl, or Command on a Mac. */

export type Chord = string;

interface KeyLike {
  readonly key: string;
  readonly code: string;
  readonly ctrlKey: boolean;
  readonly metaKey: boolean;
  readonly altKey: boolean;
  readonly shiftKey: boolean;
  getModifierState?(name: string): boolean;
}

const NAMES: Record<string, string> = {
  " ": "Space",
  ArrowLeft: "Left",
  ArrowRight: "Right",
  ArrowUp: "Up",
  ArrowDown: "Down",
  Escape: "Esc",
  Delete: "Del",
};

const MODIFIERS = ["Control", "Shift", "Alt", "Meta", "AltGraph", "CapsLock", "Dead", "Unidentified"];

/** The chord of a key event; null for a modifier alone. */
export function chordOf(event: KeyLike): Chord | null {
  if (MODIFIERS.includes(event.key)) return null;
  // AltGr types characters such as [ on many keyboards, and some systems report it as Ctrl+Alt.
  const isAltGraph = event.getModifierState?.("AltGraph") ?? false;
  const isDigit = /^Digit\d$/.test(event.code);
  const key = NAMES[event.key] ?? (isDigit && event.shiftKey ? event.code.slice(5) : event.key);
  const isCharacter = key.length === 1 && !/[a-z0-9]/i.test(key);
  const parts: string[] = [];
  if (!isAltGraph && (event.ctrlKey || event.metaKey)) parts.push("Mod");
  if (!isAltGraph && event.altKey) parts.push("Alt");
  if (event.shiftKey && !isCharacter) parts.push("Shift"); // "?" needs Shift on some keyboards only
  return [...parts, key.length === 1 ? key.toUpperCase() : key].join("+");
}

export interface Binding {
  readonly action: string;
  /** Where it holds: bindings of contexts that never meet may share a chord. */
  readonly context: string;
  readonly chords: readonly Chord[];
}

/** Bindings by default, with what the person chose in their place. */
export class Keymap {
  private overrides: Map<string, readonly Chord[]>;

  constructor(
    private readonly defaults: readonly Binding[],
    overrides: Readonly<Record<string, readonly Chord[]>> = {},
  ) {
    const known = new Set(defaults.map(({ action }) => action));
    this.overrides = new Map(Object.entries(overrides).filter(([action]) => known.has(action)));
  }

  chordsOf(action: string): readonly Chord[] {
    return this.overrides.get(action) ?? this.defaults.find((binding) => binding.action === action)?.chords ?? [];
  }

  /** The action of a chord in the contexts given, first context first. */
  actionOf(chord: Chord, contexts: readonly string[]): string | null {
    for (const context of contexts) {
      const found = this.defaults.find((b) => b.context === context && this.chordsOf(b.action).includes(chord));
      if (found) return found.action;
    }
    return null;
  }

  /** What has this chord already where `action` holds; null if it is free. */
  clash(action: string, chord: Chord): string | null {
    const context = this.defaults.find((binding) => binding.action === action)?.context;
    const meets = (other: string): boolean => other === context || other === "global" || context === "global";
    return (
      this.defaults.find((b) => b.action !== action && meets(b.context) && this.chordsOf(b.action).includes(chord))
        ?.action ?? null
    );
  }

  /** Give an action other keys. @throws RangeError one of them clashes. */
  rebind(action: string, chords: readonly Chord[]): Keymap {
    for (const chord of chords) {
      const other = this.clash(action, chord);
      if (other) throw new RangeError(`${chord} already means ${other}.`);
    }
    return new Keymap(this.defaults, { ...this.toJSON(), [action]: chords });
  }

  /** Take an action's keys back to the default. @throws RangeError one of them clashes by now. */
  reset(action: string): Keymap {
    const chords = this.defaults.find((binding) => binding.action === action)?.chords ?? [];
    const { [action]: _, ...others } = this.rebind(action, chords).toJSON();
    return new Keymap(this.defaults, others);
  }

  /** What differs from the defaults. */
  toJSON(): Record<string, readonly Chord[]> {
    return Object.fromEntries(this.overrides);
  }
}
