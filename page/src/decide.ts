// What the screen Decide asks, and whom; and the rows of a dropped file with their answers and labels.
import { effect, signal } from "@preact/signals";
import { api, Refused, told } from "./api.ts";
import {
  type Answer,
  answerOf,
  asked,
  confidence,
  doubt,
  type Question,
  said,
  type Value,
  valueIn,
  values,
} from "./questions.ts";
import type { Sheet } from "./sheet.ts";
import { keep, kept, models } from "./state.ts";

export interface Row {
  readonly line: number; // in the file, from 1
  readonly text: string;
  readonly cells: Readonly<Record<string, unknown>>;
  answers: readonly (Answer | null)[] | null; // null: not answered yet
  problem: string; // why it cannot be
  labels: ReadonlyMap<string, Value> | null; // what a person says, by the questions' names
}

const EXAMPLES: readonly Question[] = [
  { name: "urgent", type: "predicate", instructions: "Must somebody answer this today?" },
  {
    name: "team",
    type: "choice",
    instructions: "Which team should answer?",
    choices: [
      { value: "billing", description: "invoices, payments, refunds" },
      { value: "delivery", description: "parcels and addresses" },
      { value: "support", description: "something does not work" },
    ],
  },
];
const MINE = "mine";
const AT_ONCE = 4; // rows that are asked about together
const LATER = [500, 1000, 2000, 4000, 8000]; // milliseconds before a full queue is asked again
const MOST_NUMBERS = 10e6; // probabilities that are kept
const DRAWN = 250; // milliseconds between two looks at the rows while they are answered
const MOST_TEXTS = 500; // from which the next rows are chosen
const LONGEST = 1000; // characters of one of them
export const NEXT = 20;

const KEPT = kept("decide", {
  model: "",
  text: "My parcel has not come, and I need it tomorrow.",
  from: "",
  questions: EXAMPLES,
});
export const model = signal(KEPT.model);
export const text = signal(KEPT.text);
export const questions = signal<readonly Question[]>(KEPT.questions);
export const from = signal(KEPT.from); // the model whose own questions they are, MINE, or empty for the examples
effect(() => keep("decide", { model: model.value, text: text.value, from: from.value, questions: questions.value }));
effect(() => {
  const first = models.value[0];
  if (first && !model.peek()) model.value = first.id;
});

export function take(next: readonly Question[], whose = MINE): void {
  questions.value = next;
  from.value = whose;
}

// A model's own questions are offered at once, and never in the place of what a person wrote.
export function offer(own: readonly Question[], whose: string): void {
  if (from.peek() === MINE || from.peek() === whose) return;
  if (own.length) take(own, whose);
  else if (from.peek()) take(EXAMPLES, "");
}

export const file = signal<{ readonly name: string; readonly sheet: Sheet } | null>(null);
export const column = signal(""); // that holds the text
export const rows = signal<readonly Row[]>([]);
export const seen = signal(0); // grows when a row has changed
export const answered = signal<{ readonly model: string; readonly questions: readonly Question[] } | null>(null);
export const problem = signal("");
export const saved = signal<{ readonly data: string; readonly questions: string; readonly rows: number } | null>(null);
const stopper = signal<AbortController | null>(null);
export const running = () => stopper.value !== null;
const touch = () => (seen.value += 1);

export function load(name: string, sheet: Sheet, textColumn: string): void {
  stop();
  file.value = { name, sheet };
  column.value = textColumn;
  answered.value = saved.value = null;
  problem.value = "";
  rows.value = sheet.rows.map((cells, at) => {
    const found = cells[textColumn];
    const text = typeof found === "string" ? found : "";
    return { line: at + 1, text, cells, answers: null, problem: text.trim() ? "" : "has no text", labels: null };
  });
  touch();
}

export function stop(): void {
  stopper.value?.abort();
  stopper.value = null;
}

// Whether the answers are to other questions, or of another model, than those above.
export function stale(): boolean {
  const now = { model: model.value, questions: questions.value };
  return answered.value !== null && JSON.stringify(answered.value) !== JSON.stringify(now);
}

// Answers the rows that have no answer; all of them where others were asked, or another model. Labels stay where their
// questions do.
export async function answerAll(): Promise<void> {
  const numbers = questions.value.reduce((sum, each) => sum + values(each).length, 0) * rows.value.length;
  if (numbers > MOST_NUMBERS) {
    problem.value = "These are more answers than the page can hold. Ask fewer questions, or use riyaz decide.";
    return;
  }
  const ask = { model: model.value, questions: questions.value };
  if (answered.value === null || stale()) again(ask.questions);
  answered.value = ask;
  problem.value = "";
  const own = new AbortController();
  stopper.value = own;
  const left = rows.value.filter((row) => row.answers === null && !row.problem).values();
  const drawn = setInterval(touch, DRAWN);
  const work = async () => {
    for (const row of left) {
      if (own.signal.aborted) return;
      await answer(row, ask, own.signal);
    }
  };
  try {
    await Promise.all(Array.from({ length: AT_ONCE }, work));
  } catch (error) {
    if (!own.signal.aborted) problem.value = told(error);
  }
  own.abort(); // one that failed ends the others
  clearInterval(drawn);
  if (stopper.peek() === own) stopper.value = null;
  touch();
}

// What a person says of a row stays, where the question does; else the row's own cells may say it.
function again(next: readonly Question[]): void {
  const known = new Map(next.map((each) => [each.name, values(each)]));
  for (const row of rows.value) {
    row.answers = null;
    if (row.text.trim()) row.problem = "";
    const kept = [...(row.labels ?? [])].filter(([name, value]) => known.get(name)?.includes(value));
    const given = next.flatMap((each): [string, Value][] => {
      const value = valueIn(each, row.cells[each.column || each.name]);
      return value === undefined ? [] : [[each.name, value]];
    });
    row.labels = kept.length || given.length ? new Map([...given, ...kept]) : null;
  }
}

type Ask = NonNullable<typeof answered.value>;

async function answer(row: Row, ask: Ask, signal: AbortSignal): Promise<void> {
  for (const wait of [...LATER, 0]) {
    try {
      const found = await api.decide({ ...ask, questions: asked(ask.questions), input: row.text }, signal);
      if (!signal.aborted) row.answers = ask.questions.map((_, at) => answerOf(found.answers[at]));
      return;
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (error.status === 400 && error.param.startsWith("input")) {
        row.problem = error.message; // such as a text that is longer than the context
        return;
      }
      if (wait === 0 || (error.status !== 429 && error.status !== 503)) throw error;
      await new Promise((done) => setTimeout(done, wait));
    }
  }
}

// The least confidence of a row's answers; 2 where it has none.
export function least(row: Row): number {
  return (row.answers ?? []).reduce((low, each) => (each ? Math.min(low, confidence(each)) : low), 2);
}

export function corrected(row: Row): boolean {
  const ask = answered.value?.questions ?? [];
  return ask.some((question, at) => {
    const [label, own] = [row.labels?.get(question.name), row.answers?.[at]];
    return label !== undefined && own && label !== said(question, own);
  });
}

export function label(row: Row, labels: ReadonlyMap<string, Value> | null): void {
  row.labels = labels?.size ? labels : null;
  saved.value = null; // what was saved lacks it
  touch();
}

// The rows that a person labels next: the server spreads the choice over the MOST_TEXTS of which the model is least sure.
export async function labelNext(): Promise<readonly Row[]> {
  const unsure = (row: Row) => {
    const found = row.answers?.flatMap((each) => (each ? [doubt(each)] : [])) ?? [];
    return found.reduce((sum, each) => sum + each, 0) / Math.max(1, found.length);
  };
  const free = rows.value.filter((row) => row.answers?.some(Boolean) && !row.labels);
  const some = free
    .map((row) => ({ row, unsure: unsure(row) }))
    .sort((a, b) => b.unsure - a.unsure)
    .slice(0, MOST_TEXTS);
  if (!some.length) return [];
  const texts = some.map(({ row }) => row.text.slice(0, LONGEST).replace(/[\uD800-\uDBFF]$/, ""));
  const { places } = await api.labelNext({ texts, unsure: some.map((each) => each.unsure), count: NEXT });
  return places.flatMap((at) => some[at]?.row ?? []);
}
