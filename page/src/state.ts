// What every screen shares: the models, what the server says of itself, and small helpers over signals.
import { type Signal, signal, useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { api, told } from "./api.ts";
import { key, share } from "./route.ts";
import type { Info, Model } from "./types.ts";

export const models = signal<readonly Model[]>([]);
export const info = signal<Info | null>(null);
export const ready = signal(false); // the models were told; there may be none
export const problem = signal(""); // of the server as a whole

const RETRY = 2000;
let waiting = 0;

export async function refresh(): Promise<void> {
  clearTimeout(waiting);
  try {
    models.value = await api.models();
    ready.value = true;
    problem.value = "";
  } catch (error) {
    problem.value = told(error);
    waiting = setTimeout(retry, RETRY); // the model may be loading, or the server starting again
  }
  info.value = await api.info().catch(() => info.value);
  if (info.value) share();
}

function retry(): void {
  if (document.hidden) waiting = setTimeout(retry, RETRY);
  else void refresh();
}

export function modelOf(id: string): Model | undefined {
  return models.value.find((model) => model.id === id);
}

export interface Loaded<Value> {
  readonly value: Signal<Value | null>;
  readonly problem: Signal<string>;
  readonly again: () => void;
}

// Loads a value when the screen opens, whenever `about` changes and with a new token; an answer to an earlier one is
// dropped.
export function useLoaded<Value>(about: string, load: () => Promise<Value>): Loaded<Value> {
  const value = useSignal<Value | null>(null);
  const failed = useSignal("");
  const round = useSignal(0);
  const asked = round.value;
  useEffect(() => {
    let stale = false;
    load().then(
      (found) => {
        if (stale) return;
        value.value = found;
        failed.value = "";
      },
      (error: unknown) => {
        if (!stale) failed.value = told(error);
      },
    );
    return () => {
      stale = true;
    };
  }, [about, asked, key.value]);
  return { value, problem: failed, again: () => (round.value += 1) };
}

export interface Work {
  readonly busy: Signal<string>; // what is being done; empty if nothing is
  readonly problem: Signal<string>;
  readonly run: (what: string, work: () => Promise<void>) => Promise<void>;
}

// One piece of work at a time, with the words for it and the line that says why it failed.
export function useWork(): Work {
  const busy = useSignal("");
  const problem = useSignal("");
  const run = async (what: string, work: () => Promise<void>) => {
    busy.value = what;
    problem.value = "";
    try {
      await work();
    } catch (error) {
      problem.value = told(error);
    }
    busy.value = "";
  };
  return { busy, problem, run };
}

// A value that a reload of the page keeps, in this tab.
export function kept<Value>(name: string, first: Value): Value {
  try {
    const found = sessionStorage.getItem(`riyaz.${name}`);
    return found === null ? first : (JSON.parse(found) as Value);
  } catch {
    return first;
  }
}

export function keep(name: string, value: unknown): void {
  try {
    sessionStorage.setItem(`riyaz.${name}`, JSON.stringify(value));
  } catch {
    sessionStorage.removeItem(`riyaz.${name}`); // too large: a reload begins anew
  }
}

// A text in the single quotes of a shell.
export function quoted(text: string): string {
  return /^[\w./:=@%+,-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}
