/** All images of the project as thumbnails: state, filters, and adding more. */

import { signal, useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";

import { ApiError, listItems, thumbnailUrl, uploadItems } from "../api/client";
import type { ItemState, ItemSummary, Skipped } from "../api/types";
import { itemsVersion, labels, live, project, refreshProject } from "../context";
import { t } from "../i18n";
import { dialog } from "../keys/actions";
import { notify } from "../notices";
import { itemHref } from "../route";
import { gridSize } from "../settings";
import { sendInParts } from "../uploads";
import { Button, IconButton, Segmented, Slider } from "./controls";
import { Icon } from "./icon";
import { Brand, JobsIndicator, MainMenu, SaveStatus, STATES } from "./top_bar";
import { VirtualRows } from "./virtual";

const PAGE = 200;
const GAP = 14;
const CAPTION = 44;
const SORTS = ["name", "-name", "-updated_at", "-objects", "objects"] as const;

type Filter = { state: ItemState | "all"; q: string; label: string; sort: (typeof SORTS)[number] };

/** Kept while an image is open, so that coming back shows the same place. */
const filter = signal<Filter>({ state: "all", q: "", label: "", sort: "name" });
const scrollRow = { current: 0 };

/** Items by their place in the list, loaded page by page. */
class ItemPages {
  readonly total = signal<number | null>(null);
  readonly version = signal(0);
  readonly error = signal<string | null>(null);
  private pages = new Map<number, (ItemSummary | undefined)[] | "loading">();

  constructor(private readonly query: Filter) {}

  get(index: number): ItemSummary | undefined {
    const page = this.pages.get(Math.floor(index / PAGE));
    return page === "loading" ? undefined : page?.[index % PAGE];
  }

  want(first: number, end: number): void {
    for (let page = Math.floor(first / PAGE); page <= Math.floor(Math.max(first, end - 1) / PAGE); page++) void this.load(page);
  }

  private async load(page: number): Promise<void> {
    if (this.pages.has(page)) return;
    this.pages.set(page, "loading");
    const { state, q, label, sort } = this.query;
    try {
      const { total, items } = await listItems({
        offset: page * PAGE,
        limit: PAGE,
        sort,
        ...(state === "all" ? {} : { state }),
        ...(q ? { q } : {}),
        ...(label ? { label: Number(label) } : {}),
      });
      this.pages.set(page, items);
      this.total.value = total;
      this.error.value = null;
    } catch (error) {
      this.pages.delete(page);
      this.error.value = (error as ApiError).message;
    }
    this.version.value++;
  }
}

export async function addImages(files: readonly File[]): Promise<void> {
  if (files.length === 0) return;
  const skipped: Skipped[] = [];
  let added = 0;
  try {
    await sendInParts(files, async (part) => {
      const answer = await uploadItems(part);
      added += answer.items.length;
      skipped.push(...answer.skipped);
    });
  } catch (error) {
    notify(t("say.failed", { message: (error as ApiError).message }), "error");
  }
  // Of the parts that arrived, too, where a later one failed.
  if (added > 0) notify(t("add.done", { n: added }));
  if (skipped.length > 0) notify(t("add.skipped", { n: skipped.length, names: skipped.map(({ name }) => name).join(", ") }), "error");
  if (!live.connected.peek()) itemsVersion.value++; // otherwise the server tells of each part
}

export function GridView(): JSX.Element {
  const pages = useSignal(new ItemPages(filter.value));
  useEffect(() => {
    const next = new ItemPages(filter.value);
    next.want(0, 1);
    pages.value = next;
  }, [filter.value, itemsVersion.value]);
  useEffect(() => void refreshProject().catch(() => undefined), [itemsVersion.value]);
  const picker = useRef<HTMLInputElement>(null);
  return (
    <div class="grid-view">
      <header class="top-bar">
        <div class="top-left">
          <Brand />
          <h1 class="project-name">{project.value?.name}</h1>
        </div>
        <div class="top-right">
          <JobsIndicator />
          <SaveStatus />
          <Button icon="download" onClick={() => (dialog.value = "export")}>
            {t("export.title")}
          </Button>
          <Button kind="primary" icon="addImages" onClick={() => picker.current?.click()}>
            {t("add.images")}
          </Button>
          <input ref={picker} type="file" multiple accept="image/*" hidden aria-label={t("add.images")} onChange={(e) => void addImages([...(e.currentTarget.files ?? [])])} />
          <IconButton icon="keyboard" label={t("keys.title")} action="keys" onClick={() => (dialog.value = "keys")} />
          <MainMenu />
        </div>
      </header>
      <main>
        <Filters total={pages.value.total.value} />
        <Thumbnails pages={pages.value} />
      </main>
    </div>
  );
}

function Filters({ total }: { total: number | null }): JSX.Element {
  const set = (change: Partial<Filter>): void => {
    scrollRow.current = 0;
    filter.value = { ...filter.value, ...change };
  };
  const { state, q, label, sort } = filter.value;
  const counts = project.value?.counts;
  const sum = counts ? STATES.reduce((n, each) => n + counts[each], 0) : undefined;
  const count = (n: number | undefined): { count?: number } => (n === undefined ? {} : { count: n });
  return (
    <div class="filters">
      <Segmented
        label={t("nav.state")}
        value={state}
        options={[{ value: "all" as Filter["state"], label: t("grid.all"), ...count(sum) }, ...STATES.map((each) => ({ value: each, label: t(`state.${each}`), ...count(counts?.[each]) }))]}
        onChange={(value) => set({ state: value })}
      />
      <label class="search">
        <Icon name="search" size={15} />
        <input type="search" placeholder={t("grid.search")} aria-label={t("grid.search")} value={q} onInput={(e) => set({ q: e.currentTarget.value })} />
      </label>
      <select aria-label={t("labels.title")} value={label} onChange={(e) => set({ label: e.currentTarget.value })}>
        <option value="">{t("grid.any_label")}</option>
        {labels.value.map((each) => (
          <option key={each.id} value={each.id}>
            {each.name}
          </option>
        ))}
      </select>
      <select aria-label={t("grid.sort")} value={sort} onChange={(e) => set({ sort: e.currentTarget.value as Filter["sort"] })}>
        {SORTS.map((each) => (
          <option key={each} value={each}>
            {t(`sort.${each}`)}
          </option>
        ))}
      </select>
      <span class="grow" />
      <span class="muted nowrap" role="status">
        {total !== null && t("grid.count", { n: total })}
      </span>
      <div class="size-slider">
        <Slider label={t("grid.size")} value={gridSize.value} min={120} max={420} step={10} shown="" onInput={(value) => (gridSize.value = value)} />
      </div>
    </div>
  );
}

function Thumbnails({ pages }: { pages: ItemPages }): JSX.Element {
  const width = useSignal(1200);
  void pages.version.value;
  const total = pages.total.value ?? 0;
  const columns = Math.max(1, Math.floor((width.value + GAP) / (gridSize.value + GAP)));
  const cell = (width.value - GAP * (columns - 1)) / columns;
  const rowHeight = Math.round(cell * 0.75) + CAPTION + GAP;
  if (pages.error.value) return <p class="empty">{t("say.failed", { message: pages.error.value })}</p>;
  if (pages.total.value === 0) {
    const isFiltered = filter.value.state !== "all" || filter.value.q !== "" || filter.value.label !== "";
    return (
      <div class="empty large">
        <Icon name="addImages" size={40} />
        <p>{t(isFiltered ? "grid.empty" : "grid.none")}</p>
      </div>
    );
  }
  return (
    <VirtualRows
      count={Math.ceil(total / columns)}
      rowHeight={rowHeight}
      label={t("grid.title")}
      class="thumbnails"
      onWidth={(value) => (width.value = value)}
      onVisible={(first, end) => pages.want(first * columns, Math.min(total, end * columns))}
      row={(row, top) =>
        Array.from({ length: Math.min(columns, total - row * columns) }, (_, column) => {
          const index = row * columns + column;
          const style = { transform: `translate(${column * (cell + GAP)}px, ${top}px)`, width: `${cell}px`, height: `${rowHeight - GAP}px` };
          return <Thumbnail key={index} item={pages.get(index)} style={style} index={index} columns={columns} total={total} />;
        })
      }
    />
  );
}

interface ThumbnailProps {
  readonly item: ItemSummary | undefined;
  readonly style: Record<string, string>;
  readonly index: number;
  readonly columns: number;
  readonly total: number;
}

function Thumbnail({ item, style, index, columns, total }: ThumbnailProps): JSX.Element {
  const onKey = (event: KeyboardEvent): void => {
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    document.querySelector<HTMLElement>(`[data-index="${index + step}"]`)?.focus();
  };
  return (
    <li style={style} aria-setsize={total} aria-posinset={index + 1}>
      {item ? (
        <a class="thumbnail" href={itemHref(item.id)} data-index={index} onKeyDown={onKey}>
          <span class="picture">
            <img src={thumbnailUrl(item.id)} alt="" loading="lazy" decoding="async" draggable={false} />
          </span>
          <span class="caption">
            <span class={`dot ${item.state}`} title={t(`state.${item.state}`)} aria-hidden="true" />
            <span class="ellipsis">{item.name}</span>
            <span class="visually-hidden">
              , {t(`state.${item.state}`)}, {t("grid.objects", { n: item.objects })}
            </span>
            {item.objects > 0 && <span class="badge" aria-hidden="true">{item.objects.toLocaleString()}</span>}
          </span>
        </a>
      ) : (
        <div class="thumbnail skeleton">
          <span class="picture" />
        </div>
      )}
    </li>
  );
}
