import { beforeAll, beforeEach, describe, expect, it, vi } from "vitest";

import type { Batch, SaveAnswer } from "../app/api/types";

type Client = typeof import("../app/api/client");

const BATCH: Batch = { batch: "b", changes: [] };
const SESSION = { csrf: "secret", author: "ada", version: "1" };

describe("client of the API", () => {
  let api: Client;
  let requests: Request[];
  let answer: () => Response;
  const json = (status: number, body: unknown) => (): Response => Response.json(body, { status });

  beforeAll(async () => {
    const PageRequest = class extends Request {
      constructor(url: string, init?: RequestInit) {
        super(new URL(url, "http://127.0.0.1"), init); // as a page does
      }
    };
    vi.stubGlobal("Request", PageRequest);
    vi.stubGlobal("fetch", async (request: Request) => {
      requests.push(request);
      return answer();
    });
    api = await import("../app/api/client");
  });

  beforeEach(() => {
    requests = [];
  });

  it("sends the session's CSRF token with all that changes something", async () => {
    answer = json(200, SESSION);
    expect(await api.exchangeToken("one-time")).toEqual(SESSION);
    expect(await requests[0]!.json()).toEqual({ token: "one-time" });
    answer = json(200, null);
    await api.getProject();
    await api.cancelJob("a/b");
    expect(requests.slice(1).map(({ method, url, headers }) => [method, new URL(url).pathname, headers.get("X-Segany-CSRF")])).toEqual([
      ["GET", "/api/project", null],
      ["POST", "/api/jobs/a%2Fb/cancel", "secret"],
    ]);
  });

  it("asks for a page of items", async () => {
    answer = json(200, { total: 0, items: [] });
    expect(await api.listItems({ offset: 200, limit: 100, state: "done", q: "a b&c" })).toEqual({ total: 0, items: [] });
    expect(Object.fromEntries(new URL(requests[0]!.url).searchParams)).toEqual({ offset: "200", limit: "100", state: "done", q: "a b&c" });
  });

  it("fails with the server's message", async () => {
    answer = json(507, { message: "The disk is full." });
    await expect(api.saveBatch("item", BATCH)).rejects.toMatchObject({ name: "ApiError", status: 507, message: "The disk is full." });
    answer = () => new Response("<html>", { status: 502, statusText: "Bad Gateway" });
    await expect(api.getProject()).rejects.toMatchObject({ name: "ApiError", status: 502, message: "Bad Gateway" });
    answer = () => {
      throw new TypeError("no network");
    };
    await expect(api.getProject()).rejects.toMatchObject({ name: "ApiError", status: 0, message: "TypeError: no network" });
  });

  it("gives conflicts, and refuses a 409 without them", async () => {
    const conflicts = { results: [], conflicts: [{ object: "o", yours: "mine" }] } as unknown as SaveAnswer;
    answer = json(409, conflicts);
    expect(await api.saveBatch("item", BATCH)).toEqual(conflicts);
    answer = json(409, { message: "The batch is of another item." });
    await expect(api.saveBatch("item", BATCH)).rejects.toMatchObject({ status: 409, message: "The batch is of another item." });
  });

  it("knows what is not computed yet", async () => {
    answer = json(200, null);
    expect(await api.getProposals("item")).toBeNull();
    answer = json(202, { message: "It is being computed." });
    expect(await api.getEmbedding("item")).toBeNull();
    answer = () => new Response(Uint8Array.of(1, 2, 3));
    expect(new Uint8Array((await api.getEmbedding("item"))!)).toEqual(Uint8Array.of(1, 2, 3));
  });

  it("sends files as a form", async () => {
    answer = json(200, {});
    await api.putUpload("upload", 3, [new File(["{}"], "a.json"), new File(["[]"], "b.json")]);
    const form = await requests[0]!.formData();
    expect(requests[0]!.headers.get("Content-Type")).toMatch(/^multipart\/form-data; boundary=/);
    expect(new URL(requests[0]!.url).pathname).toBe("/api/uploads/upload/3");
    expect(await Promise.all((form.getAll("files") as File[]).map(async (file) => [file.name, await file.text()]))).toEqual([["a.json", "{}"], ["b.json", "[]"]]);
  });
});
