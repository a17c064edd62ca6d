import type { JSX } from "preact";

import * as icons from "../icons";

export type IconName = keyof typeof icons;

/** Decoration: what it means is said by the control it is in. */
export function Icon({ name, size = 18 }: { name: IconName; size?: number }): JSX.Element {
  return (
    <svg class="icon" width={size} height={size} viewBox="0 0 24 24" aria-hidden="true">
      {icons[name].map(([Tag, attributes]) => {
        const Shape = Tag as "path";
        return <Shape {...(attributes as Record<string, string>)} />;
      })}
    </svg>
  );
}
