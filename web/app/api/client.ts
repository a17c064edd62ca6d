/** Calls of the API. One class of error for everything that can go wrong with them. */

import type {
  Batch, ExchangeFormat, Item, ItemQuery, ItemState, ItemSummary, ItemWithObjects, Job, Label, Project, Proposal,
  SaveConflict, SaveResult, Session, Skipped,
} from "./types";

/** A call failed. `status` 0: the server was not reached. */
export class ApiError extends Error {
  override name = "ApiError";
  constructor(
    readonly status: number,
    message: string,
    readonly body: unknown = null,
  ) {
    super(message);
  }
}

let csrf = "";

async function call(method: string, path: string, body?: unknown): Promise<Response> {
  const headers: Record<string, string> = {};
  if (method !== "GET") headers["X-Segany-CSRF"] = csrf;
  const isForm = body instanceof FormData;
  if (body !== undefined && !isForm) headers["Content-Type"] = "application/json";
  const init: RequestInit = { method, headers, credentials: "same-origin" };
  if (body !== undefined) init.body = isForm ? body : JSON.stringify(body);
  let response: Response;
  try {
    response = await fetch(path, init);
  } catch (error) {
    throw new ApiError(0, String(error));
  }
  if (!response.ok) {
    const answer: unknown = await response.json().catch(() => null);
    throw new ApiError(response.status, messageOf(answer) ?? response.statusText, answer);
  }
  return response;
}

function messageOf(answer: unknown): string | null {
  if (typeof answer !== "object" || answer === null) return null;
  const { message, detail } = answer as { message?: unknown; detail?: unknown };
  return [message, detail].find((text) => typeof text === "string") ?? null;
}

const json = async <T>(response: Promise<Response>): Promise<T> => (await (await response).json()) as T;
const get = <T>(path: string): Promise<T> => json<T>(call("GET", path));
const itemPath = (id: string): string => `/api/items/${encodeURIComponent(id)}`;

async function takeCsrf(answer: Promise<Session>): Promise<Session> {
  const session = await answer;
  csrf = session.csrf;
  return session;
}

/** Exchange the one-time token of the address for a session. */
export async function exchangeToken(token: string): Promise<void> {
  const response = await call("POST", "/api/session", { token });
  const text = await response.text();
  if (text) csrf = (JSON.parse(text) as { csrf: string }).csrf;
}

export const getSession = (): Promise<Session> => takeCsrf(get<Session>("/api/session"));
export const getProject = (): Promise<Project> => get("/api/project");
export const patchProject = (change: { name?: string; settings?: object }): Promise<Project> =>
  json(call("PATCH", "/api/project", change));
export const putLabels = (base_version: number, labels: readonly Label[]): Promise<Project> =>
  json(call("PUT", "/api/project/labels", { base_version, labels }));

export function listItems(query: ItemQuery): Promise<{ total: number; items: ItemSummary[] }> {
  const search = new URLSearchParams();
  for (const [key, value] of Object.entries(query)) if (value !== undefined && value !== "") search.set(key, String(value));
  return get(`/api/items?${search}`);
}

export const getItem = (id: string): Promise<ItemWithObjects> => get(itemPath(id));
export const patchItem = (id: string, state: ItemState): Promise<Item> =>
  json(call("PATCH", itemPath(id), { state }));
export const imageUrl = (id: string, image?: string): string =>
  `${itemPath(id)}/image${image ? `?v=${encodeURIComponent(image)}` : ""}`;
export const thumbnailUrl = (id: string): string => `${itemPath(id)}/thumbnail`;
export const getImage = async (id: string, image?: string): Promise<Blob> => (await call("GET", imageUrl(id, image))).blob();

/** null: it is being computed. */
export async function getEmbedding(id: string): Promise<ArrayBuffer | null> {
  const response = await call("GET", `${itemPath(id)}/embedding`);
  return response.status === 202 ? null : response.arrayBuffer();
}

/** null: not computed yet. */
export async function getProposals(id: string): Promise<Proposal[] | null> {
  try {
    return await get<Proposal[]>(`${itemPath(id)}/proposals`);
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) return null;
    throw error;
  }
}

export const startProposals = (id: string): Promise<Job> => json(call("POST", `${itemPath(id)}/proposals`));

export type SaveAnswer = { results: SaveResult[]; conflicts: SaveConflict[] };

/** Save a batch. The same batch again changes nothing and gives the same answer. */
export async function saveBatch(item: string, batch: Batch): Promise<SaveAnswer> {
  try {
    const { results } = await json<{ results: SaveResult[] }>(call("POST", `${itemPath(item)}/revisions`, batch));
    return { results, conflicts: [] };
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 409) throw error;
    const { results = [], conflicts = [] } = error.body as Partial<SaveAnswer>;
    return { results, conflicts };
  }
}

export function uploadItems(files: readonly File[]): Promise<{ items: ItemSummary[]; skipped: Skipped[] }> {
  const form = new FormData();
  for (const file of files) form.append("files", file, file.name);
  return json(call("POST", "/api/items", form));
}

export function startImport(format: ExchangeFormat, files: readonly File[]): Promise<Job> {
  const form = new FormData();
  form.append("format", format);
  for (const file of files) form.append("file", file, file.name);
  return json(call("POST", "/api/imports", form));
}

export const startExport = (format: ExchangeFormat, filter: { state?: ItemState }): Promise<Job> =>
  json(call("POST", "/api/exports", { format, filter }));
export const exportUrl = (job: string): string => `/api/exports/${encodeURIComponent(job)}/file`;
export const listJobs = (): Promise<Job[]> => get("/api/jobs");
export const cancelJob = (id: string): Promise<Job> => json(call("POST", `/api/jobs/${encodeURIComponent(id)}/cancel`));
