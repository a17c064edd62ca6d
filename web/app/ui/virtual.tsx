/** Lists of any length: only the rows in sight exist. */

import { useSignal } from "@preact/signals";
import type { ComponentChildren, JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";

const OVERSCAN = 4;

interface Props {
  readonly count: number;
  readonly rowHeight: number;
  readonly label: string;
  readonly class?: string;
  /** Bring this row into sight. */
  readonly reveal?: number;
  readonly row: (index: number, top: number) => ComponentChildren;
  readonly onWidth?: (width: number) => void;
  readonly onVisible?: (first: number, end: number) => void;
}

export function VirtualRows({ count, rowHeight, label, class: extra = "", reveal, row, onWidth, onVisible }: Props): JSX.Element {
  const ref = useRef<HTMLDivElement>(null);
  const scroll = useSignal({ top: 0, height: 800 });
  useEffect(() => {
    const element = ref.current!;
    const observer = new ResizeObserver(() => {
      scroll.value = { top: element.scrollTop, height: element.clientHeight };
      onWidth?.(element.clientWidth);
    });
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  useEffect(() => {
    const element = ref.current;
    if (!element || reveal === undefined || reveal < 0) return;
    const top = reveal * rowHeight;
    if (top < element.scrollTop) element.scrollTop = top;
    else if (top + rowHeight > element.scrollTop + element.clientHeight) element.scrollTop = top + rowHeight - element.clientHeight;
  }, [reveal, rowHeight]);
  const first = Math.max(0, Math.floor(scroll.value.top / rowHeight) - OVERSCAN);
  const end = Math.min(count, Math.ceil((scroll.value.top + scroll.value.height) / rowHeight) + OVERSCAN);
  useEffect(() => onVisible?.(first, end), [first, end, count]);
  return (
    <div class={`virtual ${extra}`} ref={ref} onScroll={(e) => (scroll.value = { top: e.currentTarget.scrollTop, height: e.currentTarget.clientHeight })}>
      <ul aria-label={label} style={{ height: `${count * rowHeight}px` }}>
        {Array.from({ length: Math.max(0, end - first) }, (_, i) => row(first + i, (first + i) * rowHeight))}
      </ul>
    </div>
  );
}
