// What a station of the lesson is.
import type { ComponentChild } from "preact";

export interface Guess {
  readonly question: string;
  readonly choices: readonly { readonly id: string; readonly label: string }[];
}

export interface Station<Value> {
  readonly id: string;
  readonly title: string;
  readonly text: readonly string[];
  readonly task: string;
  readonly given: readonly { readonly text: string; readonly code?: string }[]; // the texts that the task is about
  readonly guesses: readonly Guess[];
  readonly notice: readonly string[];
  readonly question: string;
  readonly more: { readonly screen: string; readonly name: string; readonly query?: Record<string, string> };
  // The answer of a model.
  load(model: string): Promise<Value>;
  // The choices that the answer makes right, for each guess; null: the class judges what the model wrote.
  right(answer: Value): readonly (readonly string[] | null)[];
  // The answer in short sentences, for the sheet and the screen.
  lines(answer: Value): readonly string[];
  // The answer to the last question.
  solution(answer: Value): string;
  shown(answer: Value): ComponentChild;
}

// The ids of the largest values; all that are equal to it.
export function largest(values: readonly { readonly id: string; readonly value: number }[]): string[] {
  const most = Math.max(...values.map((each) => each.value));
  return values.filter((each) => each.value === most).map((each) => each.id);
}
