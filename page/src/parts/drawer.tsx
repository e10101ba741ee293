// How answers are drawn, the system prompt, and the same request as a program.
import * as chat from "../chat.ts";
import { curl, python, terminal } from "../snippets.ts";
import { path } from "../tree.ts";
import { Term } from "./term.tsx";
import { Command, Copy, Field } from "./words.tsx";

interface Option {
  readonly name: keyof chat.Sampling;
  readonly label: string;
  readonly hint: string;
  readonly min: number;
  readonly max: number;
  readonly step: number;
}

const OPTIONS: readonly Option[] = [
  { name: "temperature", label: "Temperature", hint: "0: the likeliest word each time", min: 0, max: 2, step: 0.1 },
  { name: "top_p", label: "Top-p", hint: "draw from the fewest words that add up to it", min: 0, max: 1, step: 0.05 },
  { name: "top_k", label: "Top-k", hint: "draw from so many words; 0: from all", min: 0, max: 1000, step: 1 },
  {
    name: "min_p",
    label: "Min-p",
    hint: "least share of the likeliest word’s probability",
    min: 0,
    max: 1,
    step: 0.01,
  },
  { name: "repetition_penalty", label: "Repetition penalty", hint: "1: none", min: 1, max: 2, step: 0.05 },
  { name: "max_tokens", label: "Longest answer", hint: "in tokens", min: 1, max: 100000, step: 1 },
  { name: "seed", label: "Seed", hint: "the same seed draws the same answer", min: 0, max: 2 ** 31, step: 1 },
];

export function Drawer() {
  const set = (name: keyof chat.Sampling, text: string) => {
    const value = text.trim() === "" ? null : Number(text);
    if (value === null || Number.isFinite(value)) chat.sampling.value = { ...chat.sampling.value, [name]: value };
  };
  return (
    <details class="drawer">
      <summary>System prompt, sampling, code</summary>
      <p class="under">
        The system prompt comes first in every <Term of="prompt" />. <Term of="temperature">Temperature</Term>,{" "}
        <Term of="top-p" /> and <Term of="top-k" /> change how each word of an answer is drawn.
      </p>
      <div class="fields">
        <Field label="System prompt" wide>
          <textarea
            rows={2}
            placeholder="How to answer, before the conversation"
            value={chat.system.value}
            onInput={(event) => (chat.system.value = event.currentTarget.value)}
          />
        </Field>
        {OPTIONS.map((option) => (
          <Field key={option.name} label={option.label} hint={option.hint}>
            <input
              type="number"
              inputMode="decimal"
              min={option.min}
              max={option.max}
              step={option.step}
              placeholder="as the model says"
              value={chat.sampling.value[option.name] ?? ""}
              onInput={(event) => set(option.name, event.currentTarget.value)}
            />
          </Field>
        ))}
      </div>
      <Code />
    </details>
  );
}

function Code() {
  void chat.shapeOf.value;
  const turns = path(chat.tree.value);
  const last = turns.findLastIndex((turn) => turn.role === "user");
  const said = last < 0 ? [{ role: "user", content: chat.draft.value || "Hello" }] : [];
  const messages = [...chat.messagesOf(turns.slice(0, last + 1)), ...said];
  const request = chat.requestOf(chat.model.value, messages);
  return (
    <>
      <Command text={terminal(request)} />
      <div class="actions">
        <Copy text={curl(request)} name="Copy as curl" />
        <Copy text={python(request)} name="Copy as Python" />
      </div>
    </>
  );
}
