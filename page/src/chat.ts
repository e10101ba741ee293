// The conversation: what was said, with what settings, and how an answer is asked for and read.
import { effect, type Signal, signal } from "@preact/signals";
import { api, Refused, told } from "./api.ts";
import { keep, kept, modelOf, models } from "./state.ts";
import { add, branch as branched, empty, path, type Token, type Top, type Tree, type Turn, upTo } from "./tree.ts";
import type { ChatRequest, Chunk, Message } from "./types.ts";

// null: as the model's own settings say.
export interface Sampling {
  temperature: number | null;
  top_p: number | null;
  top_k: number | null;
  min_p: number | null;
  repetition_penalty: number | null;
  max_tokens: number | null;
  seed: number | null;
}

export const FRESH: Sampling = {
  temperature: null,
  top_p: null,
  top_k: null,
  min_p: null,
  repetition_penalty: null,
  max_tokens: null,
  seed: null,
};
const TOP = 10;
const LARGEST = 2_000_000; // letters of a conversation that is kept with its candidates

const KEPT = kept<{ tree: Tree; model: string; system: string; sampling: Sampling; tokens: boolean }>("chat", {
  tree: empty(),
  model: "",
  system: "",
  sampling: FRESH,
  tokens: false,
});

export const tree = signal<Tree>(KEPT.tree); // the same object, told about by `shape`
export const shapeOf = signal(0); // grows when turns come or another one is shown
export const model = signal(KEPT.model);
export const system = signal(KEPT.system);
export const sampling = signal<Sampling>({ ...FRESH, ...KEPT.sampling });
export const tokenView = signal(KEPT.tokens);
export const draft = signal("");
export const running = signal<AbortController | null>(null);
const revisions = new Map<number, Signal<number>>();

for (const turn of KEPT.tree.turns) if (turn.state === "running") turn.state = "stopped"; // a reload cut it

// Grows whenever this turn has changed: a growing answer renders itself and nothing else.
export function revision(id: number): Signal<number> {
  const found = revisions.get(id) ?? signal(0);
  revisions.set(id, found);
  return found;
}

effect(() => {
  const first = models.value[0];
  if (first && !model.peek()) model.value = first.id;
});

function save(): void {
  const document = {
    tree: tree.value,
    model: model.value,
    system: system.value,
    sampling: sampling.value,
    tokens: tokenView.value,
  };
  const small = JSON.stringify(document).length < LARGEST;
  const bare = (turn: Turn) => ({ ...turn, tokens: [] });
  keep("chat", small ? document : { ...document, tree: { ...tree.value, turns: tree.value.turns.map(bare) } });
}

let saving = 0;
effect(() => {
  void [shapeOf.value, model.value, system.value, sampling.value, tokenView.value];
  clearTimeout(saving);
  saving = setTimeout(save, 300);
});
addEventListener("pagehide", save);

const changed = (): void => {
  shapeOf.value += 1;
};

export function messagesOf(turns: readonly Turn[]): Message[] {
  const before = system.value.trim() ? [{ role: "system", content: system.value }] : [];
  return [...before, ...turns.map((turn) => ({ role: turn.role, content: turn.text }))];
}

export function requestOf(id: string, messages: readonly Message[]): ChatRequest {
  const asked = Object.entries(sampling.value).filter(([, value]) => value !== null);
  const copied = modelOf(id)?.meta.answers;
  const drawn = copied === undefined || copied === "generated";
  return { model: id, messages, ...(drawn ? Object.fromEntries(asked) : {}) };
}

export function start(text: string): void {
  const last = path(tree.value).at(-1);
  const question = add(tree.value, last ? last.id : null, "user", text);
  void answer(add(tree.value, question.id, "assistant", "", model.value));
}

// Another answer to the same question.
export function again(turn: Turn): void {
  void answer(add(tree.value, turn.parent, "assistant", "", model.value));
}

// The same question in other words, and its answer.
export function edit(turn: Turn, text: string): void {
  const question = add(tree.value, turn.parent, "user", text);
  void answer(add(tree.value, question.id, "assistant", "", model.value));
}

// The same answer up to a token, then another candidate.
export function branch(turn: Turn, place: number, candidate: Top): void {
  running.value?.abort();
  void answer(branched(tree.value, turn, place, candidate));
}

export function stop(): void {
  running.value?.abort();
}

export function clear(): void {
  stop();
  tree.value = empty();
  revisions.clear();
  changed();
}

export function shown(): void {
  changed();
}

function flush(turn: Turn): () => void {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    const wait = turn.tokens.length > 1500 || turn.text.length > 6000 ? 90 : 0; // a long answer is drawn less often
    setTimeout(
      () =>
        requestAnimationFrame(() => {
          waiting = false;
          revision(turn.id).value += 1;
        }),
      wait,
    );
  };
}

async function answer(turn: Turn): Promise<void> {
  const stopper = new AbortController();
  running.value = stopper;
  turn.state = "running";
  changed();
  const prefill = turn.text;
  const turns = upTo(tree.value, turn.id);
  const asked = requestOf(turn.model, messagesOf(prefill ? turns : turns.slice(0, -1)));
  const soon = flush(turn);
  try {
    await read(turn, asked, stopper.signal, soon);
    turn.state = "done";
  } catch (error) {
    turn.state = stopper.signal.aborted ? "stopped" : "failed";
    turn.note = stopper.signal.aborted ? "" : told(error);
  }
  if (running.value === stopper) running.value = null;
  revision(turn.id).value += 1;
  changed();
}

async function read(turn: Turn, asked: ChatRequest, signal: AbortSignal, soon: () => void): Promise<void> {
  const scored = { ...asked, logprobs: true, top_logprobs: TOP };
  const plain = modelOf(turn.model)?.meta.answers === "copied";
  try {
    await pour(turn, plain ? asked : scored, signal, soon);
  } catch (error) {
    if (!(error instanceof Refused) || !error.param.includes("logprobs")) throw error;
    await pour(turn, asked, signal, soon); // an answer that is copied has no probabilities
  }
}

async function pour(turn: Turn, asked: ChatRequest, signal: AbortSignal, soon: () => void): Promise<void> {
  for await (const chunk of api.chat(asked, signal)) {
    take(turn, chunk);
    soon();
  }
}

function take(turn: Turn, chunk: Chunk): void {
  const choice = chunk.choices[0];
  if (chunk.usage) turn.used = chunk.usage.prompt_tokens + chunk.usage.completion_tokens;
  if (chunk.timings?.predicted_per_second) turn.rate = chunk.timings.predicted_per_second;
  if (!choice) return;
  turn.text += choice.delta.content ?? "";
  if (choice.delta.citations) turn.citations = [...choice.delta.citations];
  for (const each of choice.logprobs?.content ?? []) turn.tokens.push(tokenOf(each));
  if (choice.finish_reason === "length")
    turn.note = "The answer was cut: it reached its longest length, or the end of the context.";
}

function tokenOf(each: { token: string; logprob: number; top_logprobs: readonly Top[] }): Token {
  return {
    token: each.token,
    logprob: each.logprob,
    top: each.top_logprobs.map(({ token, logprob }) => ({ token, logprob })),
  };
}
