// The questions of the screen Decide: chosen from a model, opened, pasted, dropped, or written in a form.
import { type Signal, useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { api } from "../api.ts";
import { from, model, offer, questions, take } from "../decide.ts";
import { many } from "../numbers.ts";
import { listIn, names, type Question, TYPES, type Value, written } from "../questions.ts";
import { download } from "../sheet.ts";
import { useLoaded, useWork } from "../state.ts";
import { dropping } from "./drop.ts";
import { Field, Problem } from "./words.tsx";

const SHOWN = 12; // values of a question in the list

export function Questions() {
  const { value, problem } = useLoaded(model.value, async () => (model.value ? await api.own(model.value) : []));
  const own = value.value ?? [];
  const edited = useSignal<number | null>(null); // the place of a question; one past the last is a new one
  const over = useSignal(false);
  const work = useWork();
  useEffect(() => {
    if (value.value) offer(value.value, model.value);
  }, [value.value]);
  const open = (text: string) =>
    work.run("Checking …", async () => {
      take(await api.checked(listIn(text)));
      edited.value = null;
    });
  const openFile = async (file: File | undefined) => {
    if (file) await open(await file.text());
  };
  const keep = async (question: Question) => {
    const next = questions.value.slice();
    next[edited.value ?? next.length] = question;
    take(await api.checked(next));
    edited.value = null;
  };
  const remove = (at: number) => {
    take(questions.value.filter((_, other) => other !== at));
    edited.value = null;
  };
  return (
    <section class={over.value ? "files over" : "files"} aria-label="Questions" {...dropping(over, openFile)}>
      <h2>Questions</h2>
      <p class="under">
        {from.value === model.value && own.length > 0
          ? `${model.value} was trained on ${own.length === 1 ? "this question" : "these questions"}.`
          : own.length > 0
            ? `${model.value} was trained on ${many(own.length, "question")}; others are answered by its base.`
            : "Any model answers any question about a text. Drop a questions.json here, or write your own."}
      </p>
      <Problem text={problem.value || work.problem.value} />
      <ol class="plain cards">
        {questions.value.map((question, at) => (
          <li key={question.name} class="card">
            {edited.value === at ? (
              <Editor question={question} keep={keep} close={() => (edited.value = null)} />
            ) : (
              <Line question={question} edit={() => (edited.value = at)} remove={() => remove(at)} />
            )}
          </li>
        ))}
        {edited.value === questions.value.length && (
          <li class="card">
            <Editor keep={keep} close={() => (edited.value = null)} />
          </li>
        )}
      </ol>
      <div class="actions">
        <button type="button" onClick={() => (edited.value = questions.value.length)}>
          Add a question
        </button>
        {own.length > 0 && from.value !== model.value && (
          <button type="button" onClick={() => take(own, model.value)}>
            {own.length === 1 ? "Its own question" : `Its own ${own.length} questions`}
          </button>
        )}
        <label class="button">
          Open questions.json
          <input
            type="file"
            accept=".json,application/json"
            class="hidden"
            onChange={(event) => void openFile(event.currentTarget.files?.[0])}
          />
        </label>
        <button
          type="button"
          disabled={!questions.value.length}
          onClick={() => download("questions.json", [written(questions.value)], "application/json")}
        >
          Download questions.json
        </button>
      </div>
      <Paste open={open} />
    </section>
  );
}

function Line({ question, edit, remove }: { question: Question; edit: () => void; remove: () => void }) {
  const named = names(question);
  const rest = named.length - SHOWN;
  return (
    <>
      <div class="card-main">
        <h3>
          {question.name} <span class="badge">{TYPES[question.type]}</span>
        </h3>
        <p>{question.instructions}</p>
        {question.type !== "predicate" && (
          <p class="under">
            {named.slice(0, SHOWN).join(question.type === "score" ? " < " : ", ")}
            {rest > 0 ? ` and ${rest} more` : ""}
          </p>
        )}
      </div>
      <div class="actions">
        <button type="button" class="small" onClick={edit}>
          Edit<span class="hidden"> {question.name}</span>
        </button>
        <button type="button" class="small" onClick={remove}>
          Remove<span class="hidden"> {question.name}</span>
        </button>
      </div>
    </>
  );
}

function Paste({ open }: { open: (text: string) => Promise<void> }) {
  const text = useSignal("");
  return (
    <details>
      <summary>Paste questions</summary>
      <Field label="The text of a questions.json" wide>
        <textarea
          rows={5}
          class="as-code"
          spellcheck={false}
          value={text.value}
          placeholder='{"questions": [{"name": "urgent", "type": "predicate", "instructions": "Is it urgent?"}]}'
          onInput={(event) => (text.value = event.currentTarget.value)}
        />
      </Field>
      <div class="actions">
        <button type="button" disabled={!text.value.trim()} onClick={() => void open(text.value)}>
          Ask these
        </button>
      </div>
    </details>
  );
}

interface Item {
  readonly value: Value;
  readonly description: string;
}

const EMPTY: Item = { value: "", description: "" };

function itemsOf(question: Question | undefined): readonly Item[] {
  const found =
    question?.choices?.map((each) => ({ value: each.value, description: each.description ?? "" })) ??
    question?.levels?.map((each) => ({ value: each.label, description: each.description ?? "" }));
  return found ?? [EMPTY, EMPTY];
}

// A question as the form says it; empty lines are left out.
function made(type: Question["type"], name: string, instructions: string, items: readonly Item[]): Question {
  const full = items.filter((each) => String(each.value).trim());
  const more = (each: Item) => (each.description.trim() ? { description: each.description.trim() } : {});
  const common = { name: name.trim(), type, instructions: instructions.trim() };
  if (type === "choice") return { ...common, choices: full.map((each) => ({ value: each.value, ...more(each) })) };
  if (type === "score")
    return { ...common, levels: full.map((each) => ({ label: String(each.value), ...more(each) })) };
  return common;
}

function Editor(props: { question?: Question; keep: (question: Question) => Promise<void>; close: () => void }) {
  const name = useSignal(props.question?.name ?? "");
  const type = useSignal<Question["type"]>(props.question?.type ?? "predicate");
  const instructions = useSignal(props.question?.instructions ?? "");
  const items = useSignal(itemsOf(props.question));
  const { problem, run } = useWork();
  const submit = () =>
    run("Checking …", () => {
      const next = made(type.value, name.value, instructions.value, items.value);
      return props.keep(props.question?.column ? { ...next, column: props.question.column } : next);
    });
  return (
    <form
      class="card-main"
      aria-label={props.question ? `Edit ${props.question.name}` : "A new question"}
      onSubmit={(event) => {
        event.preventDefault();
        void submit();
      }}
    >
      <div class="fields">
        <Field label="Name">
          <input
            value={name.value}
            ref={(input) => {
              if (input && !input.form?.contains(document.activeElement)) input.focus();
            }}
            onInput={(event) => (name.value = event.currentTarget.value)}
          />
        </Field>
        <Field label="Kind of answer">
          <select value={type.value} onChange={(event) => (type.value = event.currentTarget.value as Question["type"])}>
            {Object.entries(TYPES).map(([each, words]) => (
              <option key={each} value={each}>{`${words} (${each})`}</option>
            ))}
          </select>
        </Field>
        <Field label="What is asked about the text" wide>
          <textarea
            rows={2}
            value={instructions.value}
            onInput={(event) => (instructions.value = event.currentTarget.value)}
          />
        </Field>
      </div>
      {type.value !== "predicate" && <Items items={items} level={type.value === "score"} />}
      <Problem text={problem.value} />
      <div class="actions">
        <button type="submit" class="main">
          Keep the question
        </button>
        <button type="button" onClick={props.close}>
          Cancel
        </button>
      </div>
    </form>
  );
}

// The choices, or the levels from the lowest up, each with what it stands for.
function Items({ items, level }: { items: Signal<readonly Item[]>; level: boolean }) {
  const what = level ? "Level" : "Choice";
  const set = (at: number, change: Partial<Item>) => {
    items.value = items.value.map((each, other) => (other === at ? { ...each, ...change } : each));
  };
  return (
    <fieldset class="items">
      <legend>{level ? "Levels, from the lowest up" : "Choices"}</legend>
      {items.value.map((item, at) => (
        <div key={at} class="item">
          <input
            aria-label={`${what} ${at + 1}`}
            placeholder={what.toLowerCase()}
            value={String(item.value)}
            onInput={(event) => set(at, { value: event.currentTarget.value })}
          />
          <input
            aria-label={`What ${what.toLowerCase()} ${at + 1} stands for`}
            placeholder="what it stands for, if that helps"
            value={item.description}
            onInput={(event) => set(at, { description: event.currentTarget.value })}
          />
          <button
            type="button"
            class="small"
            aria-label={`Remove ${what.toLowerCase()} ${at + 1}`}
            onClick={() => (items.value = items.value.filter((_, other) => other !== at))}
          >
            ×
          </button>
        </div>
      ))}
      <button type="button" class="small" onClick={() => (items.value = [...items.value, EMPTY])}>
        {`Add a ${what.toLowerCase()}`}
      </button>
    </fieldset>
  );
}
