// Typed questions about a text, and what an answer to one says. Probabilities are in the order of the question's values.

export type Value = string | boolean;

export interface Question {
  readonly name: string;
  readonly type: "predicate" | "choice" | "score";
  readonly instructions: string;
  readonly column?: string; // of a file's rows, which holds the answers
  readonly choices?: readonly { readonly value: Value; readonly description?: string }[];
  readonly levels?: readonly { readonly label: string; readonly description?: string }[]; // from the lowest up
}

// An answer as /v1/decisions gives it.
export interface Reply {
  readonly type: string;
  readonly probability?: number; // of a predicate
  readonly probabilities?: readonly { readonly probability: number }[];
  readonly answered_by?: string;
}

export interface Answer {
  readonly p: Float32Array;
  readonly trained: boolean; // the artifact answered, and not its base
}

export const TYPES: Readonly<Record<Question["type"], string>> = {
  predicate: "yes or no",
  choice: "one of these",
  score: "how much",
};

const told = (value: Value): string => String(value);

export function values(question: Question): readonly Value[] {
  if (question.type === "predicate") return [true, false];
  return question.choices?.map((each) => each.value) ?? question.levels?.map((each) => each.label) ?? [];
}

// The values as texts: as JSON where a text and a boolean would be written alike.
export function names(question: Question): readonly string[] {
  const all = values(question);
  const plain = all.map(told);
  return new Set(plain).size === plain.length ? plain : all.map((each) => JSON.stringify(each));
}

export function nameOf(question: Question, value: Value): string {
  return names(question)[values(question).indexOf(value)] ?? "";
}

// The cells that a predicate's column may have (src/riyaz/data/questions.py).
const YES = ["true", "yes", "1", "1.0"];
const NO = ["false", "no", "0", "0.0"];

// The value that a cell of a file names, undefined where it names none.
export function valueIn(question: Question, cell: unknown): Value | undefined {
  if (cell === null || cell === undefined) return undefined;
  const text = told(cell as Value).trim();
  if (question.type === "predicate") {
    const lower = text.toLowerCase();
    return YES.includes(lower) ? true : NO.includes(lower) ? false : undefined;
  }
  return values(question).find((each) => told(each).trim() === text);
}

// A request has no columns.
export function asked(questions: readonly Question[]): readonly Question[] {
  return questions.map(({ column: _, ...rest }) => rest);
}

// null where nobody can answer.
export function answerOf(reply: Reply | undefined): Answer | null {
  if (!reply || reply.type === "refusal") return null;
  const yes = reply.probability ?? 0;
  const p = reply.type === "predicate" ? [yes, 1 - yes] : (reply.probabilities ?? []).map((each) => each.probability);
  return { p: Float32Array.from(p), trained: reply.answered_by === "artifact" };
}

// The place of the answer: the likeliest value, of equal ones the first by text; true from one half on.
export function place(question: Question, { p }: Answer): number {
  if (question.type === "predicate") return (p[0] ?? 0) < 0.5 ? 1 : 0;
  const most = confidence({ p });
  const named = values(question).map(told);
  const best = named.map((_, at) => at).filter((at) => p[at] === most);
  return best.reduce((first, at) => ((named[at] ?? "") < (named[first] ?? "") ? at : first), best[0] ?? 0);
}

export function said(question: Question, answer: Answer): Value {
  return values(question)[place(question, answer)] ?? "";
}

export function confidence({ p }: Pick<Answer, "p">): number {
  return p.reduce((most, each) => Math.max(most, each), 0);
}

// The expected level, from 0 up.
export function score({ p }: Answer): number {
  return p.reduce((sum, each, level) => sum + level * each, 0);
}

// 1 less the lead of the likeliest value over the second.
export function doubt({ p }: Answer): number {
  const [first = 0, second = 0] = [...p].sort((a, b) => b - a);
  return Math.min(1, Math.max(0, 1 - (first - second)));
}

export function written(questions: readonly Question[]): string {
  return `${JSON.stringify({ questions }, null, 2)}\n`;
}

// The list in the text of a questions.json; the server says what is wrong with its entries.
export function listIn(text: string): readonly unknown[] {
  let found: unknown;
  try {
    found = JSON.parse(text);
  } catch (error) {
    throw new Error(`This is not JSON (${error instanceof Error ? error.message : "it cannot be read"}).`);
  }
  const list = Array.isArray(found) ? found : (found as { questions?: unknown } | null)?.questions;
  if (!Array.isArray(list)) throw new Error('This has no list: write {"questions": [{"name": …, "type": …}, …]}.');
  return list;
}
