/** A server of the API's shape without a model or a database, to develop and test the page: a plugin for Vite. */

import { randomUUID } from "node:crypto";
import type { IncomingMessage, Server, ServerResponse } from "node:http";

import type { Plugin } from "vite";
import { type WebSocket, WebSocketServer } from "ws";

import type { LiveUp } from "../app/api/live_messages";
import type {
  Batch, Change, ImportRequest, Item, ItemState, ItemSummary, Job, Label, LabelsChange, ObjectState, Project, SaveAnswer, Session,
  StaleLabels,
} from "../app/api/types";
import { decodeCounts, encodeCounts } from "../app/mask/counts";
import { maskFromRegion } from "../app/mask/mask";
import { paintSegment } from "../app/mask/brush";
import { PHOTOS, type Photo } from "./photos";
import { logitsOf, predict, SIDE } from "./predictions";

const CSP =
  "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' blob: data:; " +
  "font-src 'self'; connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const ITEM_COUNT = Number(process.env["SEGANY_MOCK_ITEMS"] ?? 60);
const LATENCY_MS = Number(process.env["SEGANY_MOCK_LATENCY"] ?? 15);

interface StoredItem {
  readonly id: string;
  readonly name: string;
  readonly photo: Photo;
  state: ItemState;
  updatedAt: string;
  readonly objects: Map<string, ObjectState>;
}

const now = (): string => new Date().toISOString();

const label = (id: number, name: string, color: string, attributes: Label["attributes"] = []): Label =>
  ({ id, name, color, hotkey: String(id), archived: false, attributes });

const SESSION: Session = { csrf: "mock-csrf", author: "you", version: "mock" };

class MockStore {
  readonly project: Project = {
    id: "mock-project",
    name: "Kitchen and friends",
    labels: [
      label(1, "person", "#4f8cff", [{ name: "pose", type: "choice", choices: ["standing", "sitting"] }, { name: "age", type: "number", choices: [] }]),
      label(2, "cat", "#f2994a", [{ name: "note", type: "text", choices: [] }]),
      label(3, "cup", "#27ae60"),
      label(4, "background", "#bb6bd9"),
    ],
    label_version: 1,
    model: { name: "mobile_sam", state: "ready", message: "", preprocessing: { input_size: 1024, resize: "longest_side" }, decoder: false },
    counts: { todo: 0, in_progress: 0, done: 0, skipped: 0 },
    settings: {},
  };
  readonly items = new Map<string, StoredItem>();
  readonly batches = new Map<string, SaveAnswer>();
  readonly revisions: { item: string; batch: string; change: Change }[] = [];
  readonly jobs = new Map<string, Job>();
  readonly proposals = new Set<string>();
  readonly uploads = new Map<string, string[]>();
  readonly sockets = new Set<WebSocket>();
  /** What the tests switch: "" works, or an HTTP status for all saving, or "down". */
  fault: string = "";
  expired = false;

  constructor() {
    for (let i = 0; i < ITEM_COUNT; i++) this.add(PHOTOS[i % 3]!, `${PHOTOS[i % 3]!.name}_${String(i + 1).padStart(4, "0")}.png`);
    this.add(PHOTOS[3]!, "crowd_1800x1200.png", crowd(PHOTOS[3]!));
    this.add(PHOTOS[4]!, "large_4000x3000.png");
    this.add(PHOTOS[5]!, "huge_6000x4000.png");
    const states: ItemState[] = ["todo", "in_progress", "done", "todo", "skipped"];
    [...this.items.values()].slice(6).forEach((item, i) => (item.state = states[i % 5]!));
  }

  add(photo: Photo, name: string, objects: ObjectState[] = []): StoredItem {
    const id = `item-${this.items.size + 1}`;
    const item: StoredItem = { id, name, photo, state: "todo", updatedAt: now(), objects: new Map(objects.map((o) => [o.id, o])) };
    this.items.set(id, item);
    return item;
  }

  summary({ id, name, photo, state, objects, updatedAt }: StoredItem): ItemSummary {
    const count = [...objects.values()].filter((o) => !o.deleted).length;
    return { id, name, width: photo.width, height: photo.height, state, split: null, objects: count, updated_at: updatedAt, image: photo.name };
  }

  placed(item: StoredItem): Item {
    const ids = [...this.items.keys()];
    const position = ids.indexOf(item.id);
    return { ...this.summary(item), position, total: ids.length, previous_id: ids[position - 1] ?? null, next_id: ids[position + 1] ?? null };
  }

  counted(): Project {
    const counts = { todo: 0, in_progress: 0, done: 0, skipped: 0 };
    for (const { state } of this.items.values()) counts[state]++;
    return { ...this.project, counts };
  }

  save(itemId: string, { batch, changes }: Batch): SaveAnswer {
    const known = this.batches.get(batch);
    if (known) return known;
    const item = this.items.get(itemId)!;
    const answer: SaveAnswer = { results: [], conflicts: [] };
    for (const change of changes) {
      const theirs = item.objects.get(change.object);
      this.revisions.push({ item: itemId, batch, change });
      if ((theirs?.revision ?? null) !== change.base) {
        answer.conflicts.push({ object: change.object, yours: change.revision, theirs: theirs! });
        continue;
      }
      item.objects.set(change.object, stateOf(change, item.photo));
      answer.results.push({ object: change.object, revision: change.revision, status: "saved" });
    }
    if (item.state === "todo") item.state = "in_progress";
    item.updatedAt = now();
    this.batches.set(batch, answer);
    return answer;
  }

  tell(message: object): void {
    for (const socket of this.sockets) socket.send(JSON.stringify(message));
  }

  run(kind: string, item: string | null, finish: () => Record<string, unknown>): Job {
    const job: Job = { id: randomUUID(), kind, item, state: "running", done: 0, total: 20, unit: "items", message: "", result: null, created_at: now() };
    this.jobs.set(job.id, job);
    const timer = setInterval(() => {
      if (job.state === "running" && ++job.done >= job.total) Object.assign(job, { state: "done", result: finish() });
      if (job.state !== "running") clearInterval(timer);
      this.tell({ type: "job", job });
    }, 60);
    return job;
  }
}

function stateOf(change: Change, photo: Photo): ObjectState {
  const { box, area } = decodeCounts(change.counts, photo.width, photo.height);
  return {
    id: change.object, revision: change.revision, parent: change.base, label_id: change.label_id, attributes: change.attributes,
    counts: change.counts, box_xyxy: [...box], area, z: change.z, source: change.source, author: "you", model_version: null,
    deleted: change.deleted, created_at: now(),
  };
}

/** A thousand ellipses. */
function crowd({ width, height }: Photo): ObjectState[] {
  let state = 7;
  const random = (): number => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32;
  return Array.from({ length: 1000 }, (_, i) => {
    const side = 100;
    const [left, top] = [Math.min(width - side, (i % 40) * 45), Math.min(height - side, Math.floor(i / 40) * 48)];
    const [x, y, length, angle] = [30 + random() * 30, 30 + random() * 30, random() * 30, random() * 6.3];
    const bits = new Uint8Array(side * side);
    paintSegment(bits, [side, side], [x, y], [x + Math.cos(angle) * length, y + Math.sin(angle) * length], 14 + random() * 26, 1);
    const mask = maskFromRegion({ box: [left, top, left + side, top + side], bits }, width, height);
    const change: Change = { object: randomUUID(), revision: randomUUID(), base: null, label_id: 1 + (i % 4), attributes: {}, counts: encodeCounts(mask), z: i, source: "auto", deleted: false, active_ms: 0, prompt_events: [] };
    return stateOf(change, { width, height } as Photo);
  });
}

type Handler = (match: string[], body: unknown, query: URLSearchParams) => unknown;

/** An answer other than 200 with JSON. */
class Answer {
  /** `body`: a buffer is sent as it is; without one, nothing is. */
  constructor(readonly status: number, readonly body?: unknown, readonly type = "application/json", readonly headers: Record<string, string> = {}) {}
}

function routes(store: MockStore): [string, RegExp, Handler][] {
  const item = (id: string): StoredItem => {
    const found = store.items.get(decodeURIComponent(id));
    if (!found) throw new Answer(404, { message: "There is no such item." });
    return found;
  };
  return [
    ["POST", /^\/api\/session$/, (_, body) => {
      if ((body as { token: string }).token !== "mock") throw new Answer(401, { message: "This token is not valid." });
      store.expired = false;
      return new Answer(200, SESSION, undefined, { "Set-Cookie": "segany=mock; HttpOnly; SameSite=Strict; Path=/" });
    }],
    ["GET", /^\/api\/session$/, () => SESSION],
    ["GET", /^\/api\/project$/, () => store.counted()],
    ["PATCH", /^\/api\/project$/, (_, body) => Object.assign(store.project, body) && store.counted()],
    ["PUT", /^\/api\/project\/labels$/, (_, body) => {
      const { base_version, labels } = body as LabelsChange;
      if (base_version !== store.project.label_version) throw new Answer(409, { message: "The labels were changed meanwhile.", project: store.counted() } satisfies StaleLabels);
      store.project.labels = labels;
      store.project.label_version++;
      return store.counted();
    }],
    ["GET", /^\/api\/items$/, (_m, _b, query) => {
      const [state, q, labelId] = [query.get("state"), query.get("q")?.toLowerCase(), query.get("label")];
      const found = [...store.items.values()].filter((i) =>
        (!state || i.state === state) && (!q || i.name.toLowerCase().includes(q)) &&
        (!labelId || [...i.objects.values()].some((o) => !o.deleted && o.label_id === Number(labelId))));
      const sort = query.get("sort") ?? "name";
      if (sort.includes("objects")) found.sort((a, b) => a.objects.size - b.objects.size);
      if (sort.includes("updated_at")) found.sort((a, b) => a.updatedAt.localeCompare(b.updatedAt));
      if (sort.startsWith("-")) found.reverse();
      const offset = Number(query.get("offset") ?? 0);
      return { total: found.length, items: found.slice(offset, offset + Number(query.get("limit") ?? 100)).map((i) => store.summary(i)) };
    }],
    ["POST", /^\/api\/items$/, (_, body) => {
      const names = body as string[];
      const isImage = (name: string): boolean => /\.(png|jpe?g)$/.test(name);
      const added = names.filter(isImage).map((name) => store.summary(store.add(PHOTOS[0]!, name)));
      store.tell({ type: "items_changed" });
      return { items: added, skipped: names.filter((name) => !isImage(name)).map((name) => ({ name, message: `${name} is no image.` })) };
    }],
    ["GET", /^\/api\/items\/([^/]+)$/, ([id]) => {
      const found = item(id!);
      return { ...store.placed(found), objects: [...found.objects.values()].filter((o) => !o.deleted) };
    }],
    ["PATCH", /^\/api\/items\/([^/]+)$/, ([id], body) => store.placed(Object.assign(item(id!), body))],
    ["GET", /^\/api\/items\/([^/]+)\/(?:image|thumbnail)$/, ([id]) => new Answer(200, item(id!).photo.file(), "image/png", { "Cache-Control": "max-age=31536000, immutable" })],
    ["GET", /^\/api\/items\/([^/]+)\/embedding$/, () => new Answer(404, { message: "The embedding of this image was not asked for." })],
    ["GET", /^\/api\/items\/([^/]+)\/proposals$/, ([id]) => (store.proposals.has(id!) ? item(id!).photo.proposals : null)],
    ["POST", /^\/api\/items\/([^/]+)\/proposals$/, ([id]) => store.run("proposals", id!, () => (store.proposals.add(id!), { masks: item(id!).photo.proposals.length }))],
    ["POST", /^\/api\/items\/([^/]+)\/revisions$/, ([id], body) => {
      if (store.fault) throw new Answer(Number(store.fault), { message: store.fault === "507" ? "The disk is full." : "Out of order." });
      const answer = store.save(item(id!).id, body as Batch);
      return answer.conflicts.length > 0 ? new Answer(409, answer) : answer;
    }],
    ["PUT", /^\/api\/uploads\/([^/]+)\/(\d+)$/, ([id], body) => {
      store.uploads.set(id!, [...(store.uploads.get(id!) ?? []), ...(body as string[])]);
      return new Answer(204);
    }],
    ["POST", /^\/api\/imports$/, (_, body) => store.run("import", null, () => ({ items: store.uploads.get((body as ImportRequest).upload)!.length, objects: 41, skipped: [] }))],
    ["POST", /^\/api\/exports$/, (_, body) => store.run("export", null, () => ({ file: `${(body as { format: string }).format}.zip`, items: store.items.size, objects: 1000, lost: (body as { format: string }).format === "yolo-seg" ? ["12 masks with holes: the holes were filled."] : [] }))],
    ["GET", /^\/api\/exports\/([^/]+)\/file$/, () => new Answer(200, Buffer.from("{}"), "application/zip", { "Content-Disposition": 'attachment; filename="export.zip"' })],
    ["GET", /^\/api\/jobs$/, () => [...store.jobs.values()].reverse()],
    ["POST", /^\/api\/jobs\/([^/]+)\/cancel$/, ([id]) => Object.assign(store.jobs.get(id!)!, { state: "canceled" })],
    // For the tests: break things, look inside.
    ["POST", /^\/mock\/fault$/, (_, body) => ((store.fault = (body as { fault: string }).fault), {})],
    ["POST", /^\/mock\/expire$/, () => ((store.expired = true), {})],
    ["POST", /^\/mock\/edit$/, (_, body) => {
      const { item: id, change } = body as { item: string; change: Change };
      store.save(id, { batch: randomUUID(), changes: [change] });
      return {};
    }],
    ["GET", /^\/mock\/revisions$/, () => store.revisions],
    ["POST", /^\/mock\/model$/, (_, body) => {
      Object.assign(store.project.model, body);
      store.tell({ type: "model", ...store.project.model });
      return {};
    }],
  ];
}

async function readBody(request: IncomingMessage): Promise<unknown> {
  const parts: Buffer[] = [];
  for await (const part of request) parts.push(part as Buffer);
  const [type, body] = [request.headers["content-type"] ?? "", Buffer.concat(parts)];
  if (type.includes("multipart")) return [...body.toString("latin1").matchAll(/; filename="([^"]*)"/g)].map(([, name]) => name);
  return type.includes("json") ? JSON.parse(body.toString()) : null;
}

async function handle(store: MockStore, table: [string, RegExp, Handler][], request: IncomingMessage, response: ServerResponse): Promise<void> {
  const url = new URL(request.url!, "http://localhost");
  const send = ({ status, body, type, headers }: Answer): void => {
    response.writeHead(status, { ...(body === undefined ? {} : { "Content-Type": type }), ...headers });
    response.end(body === undefined ? undefined : body instanceof Buffer ? body : JSON.stringify(body));
  };
  try {
    const body = await readBody(request);
    const isOpen = url.pathname === "/api/session" && request.method === "POST";
    const hasCookie = request.headers.cookie?.includes("segany=mock") && !store.expired;
    if (url.pathname.startsWith("/api/") && !isOpen && !hasCookie) throw new Answer(401, { message: "Open the address that segany serve printed." });
    for (const [method, pattern, handler] of table) {
      const match = pattern.exec(url.pathname);
      if (!match || method !== request.method) continue;
      const value = handler(match.slice(1), body, url.searchParams);
      send(value instanceof Answer ? value : new Answer(200, value));
      return;
    }
    throw new Answer(404, { message: "Not found." });
  } catch (error) {
    send(error instanceof Answer ? error : new Answer(500, { message: String(error) }));
  }
}

function serveLive(store: MockStore, server: Server): void {
  const live = new WebSocketServer({ noServer: true });
  server.on("upgrade", (request, socket, head) => {
    if (request.url === "/api/live") live.handleUpgrade(request, socket, head, (client) => live.emit("connection", client));
  });
  live.on("connection", (socket: WebSocket) => {
    store.sockets.add(socket);
    socket.on("close", () => store.sockets.delete(socket));
    socket.on("message", (data) => answer(store, socket, JSON.parse(String(data)) as LiveUp));
  });
}

function answer(store: MockStore, socket: WebSocket, message: LiveUp): void {
  if (message.type === "want_decoder") return; // there is none
  const photo = store.items.get(message.item)!.photo;
  if (message.type === "open") {
    setTimeout(() => socket.send(JSON.stringify({ type: "item", id: message.item, embedding: "ready" })), 120);
    return;
  }
  const started = performance.now();
  const multimask = message.type === "predict" ? message.multimask : (message.candidate ?? 0) > 0 || !message.refine;
  const candidates = predict(photo, message, multimask);
  if (message.type === "exact") {
    const { mask, score } = candidates[Math.min(message.candidate ?? 0, candidates.length - 1)]!;
    socket.send(JSON.stringify({ type: "mask", seq: message.seq, counts: encodeCounts(mask), score, area: mask.area, box_xyxy: mask.box }));
    return;
  }
  const header = { type: "prediction", seq: message.seq, token: randomUUID(), scores: candidates.map((c) => c.score), candidates: candidates.length, latency_ms: performance.now() - started, logits: "int8", side: SIDE, quantization: 0.1 };
  const logits = Buffer.concat(candidates.map(({ mask }) => Buffer.from(logitsOf(mask).buffer)));
  setTimeout(() => {
    socket.send(JSON.stringify(header));
    socket.send(logits);
  }, LATENCY_MS);
}

export function mockServer(): Plugin {
  const store = new MockStore();
  const table = routes(store);
  const middleware = (request: IncomingMessage, response: ServerResponse, next: () => void): void => {
    if (/^\/(api|mock)\//.test(request.url ?? "")) void handle(store, table, request, response);
    else next();
  };
  return {
    name: "segany-mock-server",
    configureServer({ middlewares, httpServer }) {
      middlewares.use(middleware);
      if (httpServer) serveLive(store, httpServer as Server);
    },
    configurePreviewServer({ middlewares, httpServer }) {
      middlewares.use((request, response, next) => {
        response.setHeader("Content-Security-Policy", CSP);
        response.setHeader("Cross-Origin-Opener-Policy", "same-origin");
        response.setHeader("Cross-Origin-Embedder-Policy", "require-corp");
        middleware(request, response, next);
      });
      serveLive(store, httpServer as Server);
    },
  };
}
