/** What all parts of the page share: who is here, which project, and the ways to the server. */

import { computed, signal } from "@preact/signals";

import * as api from "./api/client";
import { Live } from "./api/live";
import type { EmbeddingNews } from "./api/live_messages";
import type { Job, Label, Model, Project, Session } from "./api/types";
import { Outbox } from "./outbox/outbox";

export type Entrance = "opening" | "open" | "locked" | "unreachable";

export const entrance = signal<Entrance>("opening");
/** Whether the server does not know this browser any more. */
export const isExpired = signal(false);
api.onSession((isKnown) => (isExpired.value = !isKnown));
export const session = signal<Session | null>(null);
export const project = signal<Project | null>(null);
export const outbox = signal<Outbox | null>(null);
export const jobs = signal<readonly Job[]>([]);
/** Counts up when the list of items changed on the server. */
export const itemsVersion = signal(0);
/** Whether the server has the embedding of an item, and why not. */
export const embeddings = signal<Readonly<Record<string, EmbeddingNews>>>({});

export const live = new Live(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/api/live`);

/** What the WebSocket said last: an answer with the whole project may be older than that when it arrives. */
const liveModel = signal<Model | null>(null);
export const model = computed<Model | null>(() => liveModel.value ?? project.value?.model ?? null);
export const labels = computed<readonly Label[]>(() => project.value?.labels ?? []);
export const activeLabels = computed(() => labels.value.filter(({ archived }) => !archived));

export const labelOf = (id: number | null): Label | null => labels.value.find((label) => label.id === id) ?? null;

/** Take the token out of the address, so that it is in no history and no bookmark. */
function takeToken(): string | null {
  const match = /^#token=(.+)$/.exec(location.hash);
  if (!match) return null;
  history.replaceState(null, "", `${location.pathname}#/`);
  return decodeURIComponent(match[1]!);
}

/** Enter with a link that a person pasted, or with its token alone. Throws what the server says of it. */
export async function signIn(link: string): Promise<void> {
  await api.exchangeToken(link.trim().replace(/^.*#token=/, ""));
  await open();
}

/** Go on where the session has expired and another tab has a new one. */
export async function resume(): Promise<void> {
  if (isExpired.peek() && entrance.peek() === "open") await open();
}

/** Enter with a token, or with the session of an earlier visit. */
export async function enter(token: string | null = takeToken()): Promise<void> {
  try {
    if (token) await api.exchangeToken(token);
  } catch (error) {
    // A used token does no harm where there is a session.
    if (!(error instanceof api.ApiError) || error.status === 0) throw error;
  }
  try {
    await open();
  } catch (error) {
    if (!(error instanceof api.ApiError)) throw error;
    entrance.value = error.status === 401 || error.status === 403 ? "locked" : "unreachable";
  }
}

async function open(): Promise<void> {
  session.value = await api.getSession();
  const found = await api.getProject();
  if (project.value && project.value.id !== found.id) {
    history.replaceState(null, "", `${location.pathname}#/`);
    location.reload(); // another project is served here now; this one's changes stay in this browser
    return;
  }
  project.value = found;
  outbox.value ??= await Outbox.open(project.value.id, api.saveBatch);
  outbox.value.schedule(0);
  live.connect();
  entrance.value = "open";
  itemsVersion.value++;
  void refreshJobs();
}

export async function refreshProject(): Promise<void> {
  project.value = await api.getProject();
}

async function refreshJobs(): Promise<void> {
  jobs.value = await api.listJobs().catch(() => []);
}

const RANK: Record<Job["state"], number> = { queued: 0, running: 1, done: 2, failed: 2, canceled: 2 };

export function noteJob(job: Job): void {
  const known = jobs.value.find(({ id }) => id === job.id);
  if (known && RANK[job.state] < RANK[known.state]) return; // the answer to its start may come after news of its end
  jobs.value = known ? jobs.value.map((other) => (other.id === job.id ? job : other)) : [job, ...jobs.value];
}

live.listen((message) => {
  if (message.type === "job") noteJob(message.job);
  else if (message.type === "item") embeddings.value = { ...embeddings.value, [message.id]: message };
  else if (message.type === "items_changed") itemsVersion.value++;
  else if (message.type === "model" && model.value) {
    const { type: _, ...state } = message;
    liveModel.value = { ...model.value, ...state };
  }
});

live.connected.subscribe((connected) => {
  if (connected) outbox.peek()?.schedule(0); // the server is back
});
