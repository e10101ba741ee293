// The one place that talks to the server: JSON in both directions, streams of server-sent events, and errors as one
// plain line.

import type { Question, Reply } from "./questions.ts";
import { key } from "./route.ts";
import type * as T from "./types.ts";

export class Refused extends Error {
  readonly status: number;
  readonly param: string;

  constructor(message: string, status: number, param = "") {
    super(message);
    this.status = status;
    this.param = param;
  }
}

const GONE =
  "The server does not answer. Start it again with `riyaz ui`, then try again; nothing on this page is lost.";

const CUT = "The server ended before the answer did. Start it again with `riyaz ui`, then try again.";

function headers(path: string, sent?: string): Record<string, string> {
  const made: Record<string, string> = {};
  const given = key.peek();
  if (given) made[path.startsWith("/page/") ? "X-Riyaz-Token" : "X-Api-Key"] = given;
  if (sent) made["Content-Type"] = sent;
  return made;
}

async function failure(response: Response): Promise<Refused> {
  let message = "";
  let param = "";
  try {
    const body = (await response.json()) as { error?: { message?: string; param?: string } };
    message = body.error?.message ?? "";
    param = body.error?.param ?? "";
  } catch {
    message = "";
  }
  if (response.status === 401)
    message = "This needs the token of the page. Open the link that `riyaz ui` printed; this tab then goes on too.";
  if (response.status === 413) message ||= "This file is larger than the server takes. Give its path instead.";
  if (response.status === 503) message = `${message || "The model is loading"}. Try again in a moment.`;
  if (response.status === 507) message ||= "The disk is full. Free some space, then try again.";
  return new Refused(message || `The server answered ${response.status}.`, response.status, param);
}

// What a lost connection throws, in words; a request that was taken back stays one.
function gone(error: unknown): never {
  throw error instanceof DOMException && error.name === "AbortError" ? error : new Refused(GONE, 0);
}

async function ask(path: string, options: RequestInit): Promise<Response> {
  const response = await fetch(path, options).catch(gone);
  if (!response.ok) throw await failure(response);
  return response;
}

async function get<Answer>(path: string, query: Record<string, string> = {}): Promise<Answer> {
  const written = new URLSearchParams(query).toString();
  const response = await ask(written ? `${path}?${written}` : path, { headers: headers(path) });
  return (await response.json()) as Answer;
}

async function post<Answer>(path: string, body: unknown, signal?: AbortSignal): Promise<Answer> {
  const options = { method: "POST", headers: headers(path, "application/json"), body: JSON.stringify(body), signal };
  return (await (await ask(path, options)).json()) as Answer;
}

export interface Sent {
  readonly id: string;
  readonly event: string;
  readonly data: string;
}

function parsed(block: string): Sent {
  let id = "";
  let event = "message";
  const data: string[] = [];
  for (const line of block.split("\n")) {
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = line.slice(colon + 1).replace(/^ /, "");
    if (name === "id") id = value;
    else if (name === "event") event = value;
    else if (name === "data") data.push(value);
  }
  return { id, event, data: data.join("\n") };
}

// The events of a stream. EventSource cannot send a header, so the stream is read with fetch.
async function* stream(path: string, options: RequestInit, opened?: () => void): AsyncGenerator<Sent> {
  const response = await ask(path, options);
  opened?.();
  if (response.body === null) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let left = "";
  try {
    for (;;) {
      const { done, value } = await reader.read().catch(gone);
      if (done) return;
      left += value.replaceAll("\r", "");
      const blocks = left.split("\n\n");
      left = blocks.pop() ?? "";
      for (const block of blocks) {
        options.signal?.throwIfAborted(); // what had come already may be much
        const sent = parsed(block);
        if (sent.data) yield sent;
      }
    }
  } finally {
    void reader.cancel().catch(() => undefined); // which may wait for the other side
  }
}

async function* chunks(path: string, body: object, signal: AbortSignal): AsyncGenerator<T.Chunk> {
  const sent = { ...body, stream: true, stream_options: { include_usage: true } };
  const options = { method: "POST", headers: headers(path, "application/json"), body: JSON.stringify(sent), signal };
  for await (const { data } of stream(path, options)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data) as T.Chunk & { error?: { message: string } };
    if (chunk.error) throw new Refused(chunk.error.message, 500);
    yield chunk;
  }
  throw new Refused(CUT, 0);
}

export const api = {
  info: () => get<T.Info>("/page/info"),
  models: async () => (await get<{ data: T.Model[] }>("/v1/models")).data,
  chat: (body: T.ChatRequest, signal: AbortSignal) => chunks("/v1/chat/completions", body, signal),
  length: (body: object) => post<{ input_tokens: number }>("/v1/chat/completions/input_tokens", body),
  complete: <Answer>(body: object) => post<Answer>("/v1/completions", body),
  next: (body: object, signal?: AbortSignal) => post<T.Next>("/page/next", body, signal),
  inside: <Part>(body: object, signal: AbortSignal) => post<Part>("/page/inside", body, signal),
  decide: (body: object, signal: AbortSignal) => post<{ answers: readonly Reply[] }>("/v1/decisions", body, signal),
  own: async (model: string) => (await get<{ questions: readonly Question[] }>("/page/questions", { model })).questions,
  checked: async (questions: readonly unknown[]) =>
    (await post<{ questions: readonly Question[] }>("/page/questions", { questions })).questions,
  labelNext: (body: object) => post<{ places: readonly number[] }>("/page/label-next", body),
  files: (under: string) => get<T.Folder>("/page/files", { under }),
  data: async (query: Record<string, string>) => (await get<{ data: T.DataFound }>("/page/data", query)).data,
  runs: async () => (await get<T.Listing>("/page/runs")).runs,
  listing: () => get<T.Listing>("/page/runs"),
  samples: () => get<T.SampleFiles>("/page/samples"),
  sampleText: async (name: string) => (await get<{ text: string }>("/page/samples/text", { name })).text,
  run: (path: string) => get<T.Run>("/page/run", { path }),
  learned: <Line, Part>(path: string, after: number, arm?: string) =>
    get<{ lines: readonly Line[]; program: readonly Part[] }>("/page/learned", {
      path,
      after: String(after),
      ...(arm && { arm }),
    }),
  rows: (path: string, only: string, offset: number) =>
    get<T.Rows>("/page/rows", { path, only, offset: String(offset) }),
  difference: (a: string, b: string) => get<T.Difference>("/page/difference", { a, b }),
  plan: (body: T.Start) => post<T.Plan>("/page/plan", body),
  start: (body: T.Start) => post<T.Started>("/page/start", body),
  // A run that was just told to end holds its folder for a moment longer; one that another page began goes on already.
  async resume(path: string): Promise<void> {
    for (let left = 8; ; left -= 1) {
      try {
        await post<T.Started>("/page/start", { verb: "resume", path });
        return;
      } catch (error) {
        if (left === 0 || !(error instanceof Refused) || error.status !== 409) throw error;
        await new Promise((done) => setTimeout(done, 1500));
        if ((await api.run(path)).state === "running") return;
      }
    }
  },
  stop: (path: string) => post<object>("/page/stop", { path }),
  collections: async () => (await get<{ collections: T.Collection[] }>("/page/collections")).collections,
  collect: (collection: string, documents: string) => post<T.Added>("/page/collections", { collection, documents }),
  search: async (collection: string, query: string) =>
    (await post<{ passages: T.Passage[] }>("/page/search", { collection, query })).passages,
  place: (query: Record<string, string>) => get<T.Place>("/page/document", query),
  limits: async (path: string) => (await get<{ limits: Record<string, T.Limits> }>("/page/limits", { path })).limits,
  vote: (body: T.Vote) => post<object>("/page/votes", body),
  board: () => get<T.Board>("/page/votes"),
  learn: (model: string, method: string) => post<T.Started>("/page/votes/train", { model, method }),
  open: (path: string) => post<{ id: string }>("/page/adapters", { path }),

  async upload(file: File): Promise<{ path: string }> {
    const path = "/page/files";
    const options = { method: "POST", headers: headers(path, "application/octet-stream"), body: file };
    const response = await ask(`${path}?${new URLSearchParams({ name: file.name })}`, options);
    return (await response.json()) as { path: string };
  },

  async *events(path: string, last: string, signal: AbortSignal, opened: () => void): AsyncGenerator<Sent> {
    const made = headers("/page/events");
    if (last) made["Last-Event-ID"] = last;
    yield* stream(`/page/events?${new URLSearchParams({ path })}`, { headers: made, signal }, opened);
  },
};

export function told(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
