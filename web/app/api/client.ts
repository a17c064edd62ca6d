/** Calls of the API. One class of error for everything that can go wrong with them. */

import createClient, { type Middleware } from "openapi-fetch";

import type { paths } from "./schema";
import type {
  Batch, ExchangeFormat, ExportRequest, Item, ItemPage, ItemQuery, ItemState, ItemWithObjects, Job, Label, Project,
  ProjectChange, Proposal, SaveAnswer, Session, Uploaded,
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
let tell: (isKnown: boolean) => void = () => undefined;

/** Be told whether the server knows this browser. */
export function onSession(listener: (isKnown: boolean) => void): void {
  tell = listener;
}

const rules: Middleware = {
  onRequest({ request }) {
    if (request.method !== "GET") request.headers.set("X-Segany-CSRF", csrf);
  },
  async onResponse({ response }) {
    if (response.ok) return;
    if (response.status === 401 || response.status === 403) tell(false);
    const answer: unknown = await response.json().catch(() => null);
    throw new ApiError(response.status, messageOf(answer) ?? response.statusText, answer);
  },
  onError: ({ error }) => new ApiError(0, String(error)),
};

const api = createClient<paths>();
api.use(rules);

function messageOf(answer: unknown): string | null {
  if (typeof answer !== "object" || answer === null) return null;
  const { message } = answer as { message?: unknown };
  return typeof message === "string" ? message : null;
}

/** The data of a call: where it failed, the rules have thrown. */
const dataOf = async <T>(call: Promise<{ data: T } | { data?: never }>): Promise<T> => ((await call) as { data: T }).data;

const at = (id: string) => ({ params: { path: { id } } });

/** The schema has strings for files; they are sent as the parts of a form. */
const asText = (files: readonly File[]): string[] => files as readonly unknown[] as string[];
function asForm(body: Record<string, string | string[]>): FormData {
  const form = new FormData();
  for (const [name, value] of Object.entries(body)) for (const part of [value].flat()) form.append(name, part);
  return form;
}

async function takeCsrf(answer: Promise<Session>): Promise<Session> {
  const session = await answer;
  csrf = session.csrf;
  tell(true);
  return session;
}

/** Exchange the one-time token of the address for a session. */
export const exchangeToken = (token: string): Promise<Session> =>
  takeCsrf(dataOf(api.POST("/api/session", { body: { token } })));
export const getSession = (): Promise<Session> => takeCsrf(dataOf(api.GET("/api/session")));

export const getProject = (): Promise<Project> => dataOf(api.GET("/api/project"));
export const patchProject = (change: ProjectChange): Promise<Project> => dataOf(api.PATCH("/api/project", { body: change }));
export const putLabels = (base_version: number, labels: Label[]): Promise<Project> =>
  dataOf(api.PUT("/api/project/labels", { body: { base_version, labels } }));

export const listItems = (query: ItemQuery): Promise<ItemPage> => dataOf(api.GET("/api/items", { params: { query } }));
export const getItem = (id: string): Promise<ItemWithObjects> => dataOf(api.GET("/api/items/{id}", at(id)));
export const patchItem = (id: string, state: ItemState): Promise<Item> =>
  dataOf(api.PATCH("/api/items/{id}", { ...at(id), body: { state } }));

const itemPath = (id: string): string => `/api/items/${encodeURIComponent(id)}`;
export const imageUrl = (id: string, image?: string): string =>
  `${itemPath(id)}/image${image ? `?v=${encodeURIComponent(image)}` : ""}`;
export const thumbnailUrl = (id: string): string => `${itemPath(id)}/thumbnail`;
export const getImage = (id: string, image?: string): Promise<Blob> =>
  dataOf(api.GET("/api/items/{id}/image", { params: { path: { id }, query: image ? { v: image } : {} }, parseAs: "blob" }));

/** null: it is being computed. An error: it is not, and why. */
export async function getEmbedding(id: string): Promise<ArrayBuffer | null> {
  const { data, response } = await api.GET("/api/items/{id}/embedding", { ...at(id), parseAs: "arrayBuffer" });
  return response.status === 202 ? null : (data ?? null);
}

/** null: not computed yet. */
export const getProposals = (id: string): Promise<Proposal[] | null> => dataOf(api.GET("/api/items/{id}/proposals", at(id)));
export const startProposals = (id: string): Promise<Job> => dataOf(api.POST("/api/items/{id}/proposals", at(id)));

/** Save a batch. The same batch again changes nothing and gives the same answer. */
export async function saveBatch(item: string, batch: Batch): Promise<SaveAnswer> {
  try {
    return await dataOf(api.POST("/api/items/{id}/revisions", { ...at(item), body: batch }));
  } catch (error) {
    if (error instanceof ApiError && error.status === 409 && isSaveAnswer(error.body)) return error.body;
    throw error;
  }
}

/** Other answers of 409 have a message alone: nothing of the batch was saved. */
const isSaveAnswer = (body: unknown): body is SaveAnswer => typeof body === "object" && body !== null && "conflicts" in body;

export const uploadItems = (files: readonly File[]): Promise<Uploaded> =>
  dataOf(api.POST("/api/items", { body: { files: asText(files) }, bodySerializer: asForm }));

/** Keep some of the files of an import. */
export async function putUpload(id: string, part: number, files: readonly File[]): Promise<void> {
  await api.PUT("/api/uploads/{id}/{part}", { params: { path: { id, part } }, body: { files: asText(files) }, bodySerializer: asForm });
}
export const startImport = (format: ExchangeFormat, upload: string): Promise<Job> =>
  dataOf(api.POST("/api/imports", { body: { format, upload } }));
export const startExport = (request: ExportRequest): Promise<Job> => dataOf(api.POST("/api/exports", { body: request }));
export const exportUrl = (job: string): string => `/api/exports/${encodeURIComponent(job)}/file`;

export const listJobs = (): Promise<Job[]> => dataOf(api.GET("/api/jobs"));
export const cancelJob = (id: string): Promise<Job> => dataOf(api.POST("/api/jobs/{id}/cancel", at(id)));
