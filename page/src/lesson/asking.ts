// What the lesson keeps while the page is open, and how it asks the model. Nothing is stored: a reload begins anew.
import { effect, type Signal, signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { api, Refused, told } from "../api.ts";
import { key } from "../route.ts";
import { models } from "../state.ts";
import type { RunEntry } from "../types.ts";

export const model = signal("");
export const guesses = signal<Readonly<Record<string, string>>>({}); // by station and place: "tokens.0"
export const opened = signal<readonly string[]>([]); // stations whose answer is shown
effect(() => {
  const first = models.value[0];
  if (first && !models.value.some((each) => each.id === model.peek())) model.value = first.id;
});

const BUSY = "The server is busy with other requests. Wait a moment, then try again.";

function refusal(error: unknown): string {
  return error instanceof Refused && error.status === 429 ? BUSY : told(error);
}

// The button that had the focus is gone, so that the keyboard and a screen reader are nowhere.
export const isFocusLost = (): boolean => document.activeElement === null || document.activeElement === document.body;

interface Held {
  readonly value: unknown;
  readonly problem: string;
  readonly busy: boolean;
  readonly milliseconds: number; // from the question to the answer
}

const NOTHING: Held = { value: null, problem: "", busy: false, milliseconds: 0 };
const answers = new Map<string, Signal<Held>>(); // by model and question

export interface Answer<Value> {
  readonly value: Value | null;
  readonly problem: string;
  readonly milliseconds: number;
  readonly again: () => void;
}

// The answer of the chosen model to a question, which is asked once: later visits show the same answer.
export function useAnswer<Value>(question: string, load: (model: string) => Promise<Value>): Answer<Value> {
  const asked = model.value;
  const name = `${asked}\n${question}`;
  let held = answers.get(name);
  if (!held) {
    held = signal(NOTHING);
    answers.set(name, held);
  }
  const place = held;
  const ask = async () => {
    if (!asked || place.peek().busy || place.peek().value !== null) return;
    place.value = { ...NOTHING, busy: true };
    const begun = performance.now();
    try {
      const value = await load(asked);
      place.value = { ...NOTHING, value, milliseconds: performance.now() - begun };
    } catch (error) {
      place.value = { ...NOTHING, problem: refusal(error) };
    }
  };
  useEffect(() => {
    void ask();
  }, [name, key.value]);
  const { value, problem, milliseconds } = place.value;
  return { value: value as Value | null, problem, milliseconds, again: () => void ask() };
}

interface Completion {
  readonly choices: readonly {
    readonly index: number;
    readonly text: string;
    readonly logprobs: {
      readonly text_offset: readonly number[];
      readonly token_logprobs: readonly (number | null)[];
    } | null;
  }[];
  readonly timings?: { readonly predicted_n?: number; readonly predicted_per_second?: number } | null;
}

// The tokens of a text with the characters before each and its log-probability; the first has none before it.
export interface Scored {
  readonly offsets: readonly number[];
  readonly logprobs: readonly (number | null)[];
}

// The log-probabilities of texts as they are. The server writes one token more, which is left out.
export async function scored(name: string, texts: readonly string[]): Promise<readonly Scored[]> {
  const body = { model: name, prompt: texts, echo: true, logprobs: 0, max_tokens: 1, temperature: 0 };
  const { choices } = await api.complete<Completion>(body);
  return texts.map((text, place) => {
    const said = choices.find((each) => each.index === place)?.logprobs;
    const length = [...text].length;
    const own = said?.text_offset.filter((offset) => offset < length).length ?? 0;
    return { offsets: said?.text_offset.slice(0, own) ?? [], logprobs: said?.token_logprobs.slice(0, own) ?? [] };
  });
}

// The probability of each word after a text: those of its tokens, multiplied. Null where a token spans text and word.
export async function chances(
  name: string,
  text: string,
  words: readonly string[],
): Promise<readonly (number | null)[]> {
  const length = [...text].length;
  const all = await scored(
    name,
    words.map((word) => `${text} ${word}`),
  );
  return all.map(({ offsets, logprobs }) => {
    const first = offsets.indexOf(length);
    if (first < 0) return null;
    return Math.exp(logprobs.slice(first).reduce<number>((sum, each) => sum + (each ?? 0), 0));
  });
}

export interface Written {
  readonly text: string;
  readonly tokens: number;
  readonly rate: number; // tokens a second, 0 where the server told none
}

// What the model writes behind a text, always the likeliest token.
export async function written(name: string, text: string, most: number): Promise<Written> {
  const body = { model: name, prompt: text, max_tokens: most, temperature: 0 };
  const { choices, timings } = await api.complete<Completion>(body);
  return {
    text: choices[0]?.text ?? "",
    tokens: timings?.predicted_n ?? 0,
    rate: timings?.predicted_per_second ?? 0,
  };
}

// The latest finished run of a kind, else a sample of it that comes with Riyaz.
export async function latest(kind: string): Promise<RunEntry | null> {
  const { runs, samples } = await api.listing();
  return [...runs, ...samples].find((run) => run.kind === kind && run.state === "done") ?? null;
}
