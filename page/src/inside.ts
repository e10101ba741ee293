// What the screen Inside looks at: a text, a model, one of its tokens; and the answers of /page/inside, part by part.
import { effect, type Signal, signal, useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { api, Refused, told } from "./api.ts";
import type { Candidate } from "./numbers.ts";
import { key } from "./route.ts";
import { keep, kept, models } from "./state.ts";

export interface Named {
  readonly id: number;
  readonly text: string;
}

export interface Piece extends Named {
  readonly norm: number;
  readonly vector: readonly number[];
}

interface Half {
  readonly norm: number;
  readonly share: number; // of the final residual stream
}

export interface Layer {
  readonly layer: number; // 0: before the first
  readonly norm: number;
  readonly attention?: Half;
  readonly mlp?: Half;
  readonly lens: readonly (Named & { readonly probability: number })[];
  readonly answer: { readonly rank: number; readonly probability: number };
}

export interface Sizes {
  readonly name: string;
  readonly served: string;
  readonly layers: number;
  readonly width: number;
  readonly heads: number;
  readonly vocabulary: number;
}

// The part `layers`, which comes first.
export interface Reading {
  readonly model: Sizes;
  readonly at: number;
  readonly tokens: readonly Piece[];
  readonly soft: number; // vectors of a soft prompt, which come before the tokens
  readonly left_out: number; // tokens of the text before these
  readonly embedding_share: number;
  readonly layers: readonly Layer[];
  readonly appears: number;
  readonly next: readonly (Named & { readonly probability: number })[];
  readonly candidates: readonly Candidate[];
  readonly sums: readonly { readonly temperature: number; readonly sum: number }[];
}

export interface Attention {
  readonly attention: {
    readonly layer: number;
    readonly head: number | null;
    readonly weights: readonly (readonly number[])[];
  };
  readonly looks: readonly (readonly number[])[]; // by head: what the token looks at
  readonly pictures: { readonly side: number; readonly heads: readonly string[] };
}

export interface Pattern {
  readonly layer: number;
  readonly head: number;
  readonly name: string;
  readonly previous: number;
  readonly first: number;
  readonly itself: number;
  readonly copied: number;
}

export interface Near {
  readonly near: readonly (readonly (Named & { readonly cosine: number })[])[];
}

export interface Product {
  readonly product: {
    readonly token: Named;
    readonly numbers: readonly {
      readonly place: number;
      readonly x: number;
      readonly w: number;
      readonly product: number;
    }[];
    readonly count: number;
    readonly score: number;
    readonly second: Named & { readonly score: number };
    readonly difference: number;
    readonly engine: number;
    readonly matrices: readonly {
      readonly name: string;
      readonly rows: number;
      readonly columns: number;
      readonly count: number;
      readonly multiplications: number;
    }[];
    readonly attention_multiplications: number;
    readonly multiplications: number;
  };
}

export interface Between {
  readonly before: {
    readonly target: string;
    readonly divergence: readonly number[];
    readonly moved: readonly number[];
    readonly lens: readonly number[];
    readonly parts: number | null;
  };
}

// What adapting changed in the weights, and which parts of the model it touches.
export interface Weights {
  readonly weights: {
    readonly touched: {
      readonly prompt: readonly string[];
      readonly vectors: number;
      readonly pairs: number;
      readonly weights: number;
      readonly labels: number; // of a head of labels
    };
    readonly linears: readonly {
      readonly name: string;
      readonly relative: number; // the length of the change ÷ that of the matrix
      readonly spectrum: readonly number[]; // singular values of B·A, largest first
    }[];
  };
}

// How often each code of the weights occurs in each matrix that the file holds in them.
export interface Codes {
  readonly codes: readonly {
    readonly name: string;
    readonly kind: string; // the type in the file
    readonly first: number; // the code of the first count
    readonly counts: readonly number[];
    readonly zeros: number | null; // share of the weights; null where a code alone does not tell
  }[];
}

export const SAMPLES = [
  { language: "English", code: "en", text: "The capital of France is" },
  { language: "German", code: "de", text: "Die Katze sitzt auf dem" },
  { language: "Hindi", code: "hi", text: "भारत की राजधानी" },
] as const;

const LATER = [500, 1000, 2000, 4000]; // milliseconds before a full queue is asked again
const TYPING = 120; // milliseconds without a key before the model is asked
const STEP = 40; // the same between two tokens

const KEPT = kept("inside", { text: SAMPLES[0].text as string, model: "", before: "" });
export const text = signal(KEPT.text);
export const model = signal(KEPT.model);
export const before = signal(KEPT.before);
export const at = signal(-1); // the token that is looked at; -1: the last
export const layer = signal(-1); // after so many layers; -1: after all
effect(() => keep("inside", { text: text.value, model: model.value, before: before.value }));
effect(() => {
  const first = models.value[0];
  if (first && !model.peek()) model.value = first.id;
});

let typing = false; // the text was changed by a key, and the next may follow

// Puts another text in the place of this one; its last token is looked at.
export function write(wanted: string, typed = false): void {
  typing = typed;
  at.value = -1;
  text.value = wanted;
}

interface Body {
  readonly model: string;
  readonly text: string;
  readonly at: number;
}

// An answer, what was asked, and the time from the question to it.
type Answered<Part> = Part & { readonly of: Body; readonly milliseconds: number };
export type Read = Answered<Reading>;

async function ask<Part>(body: Body, stopper: AbortSignal): Promise<Part> {
  for (const later of [...LATER, 0]) {
    try {
      return await api.inside<Part>(body, stopper);
    } catch (error) {
      if (!later || !(error instanceof Refused) || error.status !== 429) throw error;
      await new Promise((go) => setTimeout(go, later));
      stopper.throwIfAborted();
    }
  }
  throw new Refused("", 0);
}

interface Asked<Part> {
  readonly value: Signal<Part | null>;
  readonly problem: Signal<string>;
}

// What the server answers to a body, whenever that changes; null asks nothing. Earlier questions are taken back, and
// their answer stays until the next has come.
function useAsked<Part>(body: (Body & object) | null, pause: number): Asked<Answered<Part>> {
  const value = useSignal<Answered<Part> | null>(null);
  const problem = useSignal("");
  useEffect(() => {
    if (body === null) {
      value.value = null;
      problem.value = "";
      return;
    }
    const stopper = new AbortController();
    const soon = setTimeout(() => {
      const begun = performance.now();
      ask<Part>(body, stopper.signal).then(
        (answer) => {
          if (stopper.signal.aborted) return;
          value.value = { ...answer, of: body, milliseconds: performance.now() - begun };
          problem.value = "";
        },
        (error: unknown) => {
          if (stopper.signal.aborted) return;
          value.value = null;
          problem.value = told(error);
        },
      );
    }, pause);
    return () => {
      clearTimeout(soon);
      stopper.abort();
    };
  }, [body && JSON.stringify(body), key.value]);
  return { value, problem };
}

// The reading of the text, asked for anew when text, model or token change.
export function useReading(): { readonly read: Read | null; readonly problem: string } {
  const of = { model: model.value, text: text.value, at: at.value };
  const { value, problem } = useAsked<Reading>(
    of.model && of.text ? of : null,
    at.value >= 0 ? STEP : typing ? TYPING : 0,
  );
  return { read: value.value, problem: problem.value };
}

// A further part of a reading; `wanted` false waits.
export function usePart<Part>(read: Read, part: string, more: object, wanted: boolean) {
  const { model: who, text: what } = read.of;
  const body = { model: who, text: what, at: read.at, part, ...more };
  const { value, problem } = useAsked<Part>(wanted ? body : null, 0);
  const of = value.value?.of;
  return { answer: of?.model === who && of.text === what ? value.value : null, problem: problem.value };
}
