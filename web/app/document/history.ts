/** Undo and redo: steps of what changed, before and after. States never change, so a step costs a few references. */

export interface Change<State> {
  readonly id: string;
  /** null: it did not exist. */
  readonly before: State | null;
  readonly after: State | null;
}

export interface Step<State> {
  /** For people: key of a text. */
  readonly name: string;
  readonly changes: readonly Change<State>[];
}

const MAX_STEPS = 1000;

export class History<State> {
  private steps: Step<State>[] = [];
  /** How many steps are done; the others can be done again. */
  private done = 0;

  get undoName(): string | null {
    return this.steps[this.done - 1]?.name ?? null;
  }

  get redoName(): string | null {
    return this.steps[this.done]?.name ?? null;
  }

  push(step: Step<State>): void {
    this.steps.length = this.done;
    this.steps.push(step);
    if (this.steps.length > MAX_STEPS) this.steps.shift();
    this.done = this.steps.length;
  }

  /** What to apply: the last step, reversed. */
  undo(): Step<State> | null {
    if (this.done === 0) return null;
    const step = this.steps[--this.done]!;
    const changes = [...step.changes].reverse().map(({ id, before, after }) => ({ id, before: after, after: before }));
    return { name: step.name, changes };
  }

  redo(): Step<State> | null {
    return this.steps[this.done] ? this.steps[this.done++]! : null;
  }

  /** Replace states that turned out otherwise, such as a mask that was recomputed. */
  amend(replace: (state: State) => State): void {
    const apply = (state: State | null): State | null => state && replace(state);
    this.steps = this.steps.map(({ name, changes }) => ({
      name,
      changes: changes.map(({ id, before, after }) => ({ id, before: apply(before), after: apply(after) })),
    }));
  }
}
