// The answered rows, what is unsure first; a person confirms or corrects answers, which become training rows.
import { type Signal, useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { api } from "../api.ts";
import type { Row } from "../decide.ts";
import * as decide from "../decide.ts";
import { count, many, percent } from "../numbers.ts";
import { confidence, nameOf, names, type Question, said, type Value, values, written } from "../questions.ts";
import { link } from "../route.ts";
import { csv, download } from "../sheet.ts";
import { quoted, useWork } from "../state.ts";
import { Command, Empty, Field, Pager, Problem, Waiting, Wide } from "./words.tsx";

const PAGE = 25;
const MOST_OPTIONS = 40; // of a list; more values are typed, with suggestions
const FEWEST = 20; // rows that a comparison can divide
const CLIPPED = 160; // characters of a text in the table
const VIEWS = {
  unsure: "what it is unsure of first",
  file: "as in the file",
  next: "to label next",
  labelled: "labelled",
} as const;
type View = keyof typeof VIEWS;

// The rows of a view in its order; unsure rows first, and then those without an answer.
function shown(view: View, next: readonly Row[]): readonly Row[] {
  const rows = decide.rows.value;
  if (view === "next") return next;
  if (view === "labelled") return rows.filter((row) => row.labels);
  if (view === "file") return rows;
  const keyed = rows.map((row) => ({ row, least: row.answers ? decide.least(row) : 3 }));
  return keyed.sort((a, b) => a.least - b.least || a.row.line - b.row.line).map((each) => each.row);
}

export function Labels() {
  const view = useSignal<View>("unsure");
  const next = useSignal<readonly Row[]>([]);
  const open = useSignal<Row | null>(null);
  const offset = useSignal(0);
  const said = useSignal("");
  const { busy, problem, run } = useWork();
  const order = useRef<{ about: unknown; rows: readonly Row[] }>({ about: "", rows: [] });
  void decide.seen.value;
  const about = view.value === "next" ? next.value : view.value;
  if (!open.value || order.current.about !== about) order.current = { about, rows: shown(view.value, next.value) }; // a row that is open keeps its place
  const rows = order.current.rows;
  const show = (name: View) => {
    open.value = null;
    offset.value = 0;
    view.value = name;
  };
  const goTo = (row: Row | undefined) => {
    open.value = row ?? null;
    if (row) offset.value = Math.floor(rows.indexOf(row) / PAGE) * PAGE;
  };
  const keep = (row: Row, labels: ReadonlyMap<string, Value> | null) => {
    decide.label(row, labels);
    const later = rows.slice(rows.indexOf(row) + 1).find((each) => each.answers && !each.labels);
    said.value = later ? "" : "These rows are all labelled.";
    goTo(labels ? later : undefined);
  };
  const choose = () =>
    run("Choosing …", async () => {
      const found = await decide.labelNext();
      said.value = found.length ? "" : "There is no answered row left to label.";
      next.value = found;
      show(found.length ? "next" : view.value);
      open.value = found[0] ?? null;
    });
  const page = rows.slice(offset.value, offset.value + PAGE);
  return (
    <>
      <h3>The rows</h3>
      <div class="toolbar">
        <Field label="Show">
          <select value={view.value} onChange={(event) => show(event.currentTarget.value as View)}>
            {Object.entries(VIEWS).map(([name, words]) => (
              <option key={name} value={name} disabled={name === "next" && !next.value.length}>
                {words}
              </option>
            ))}
          </select>
        </Field>
        <button type="button" disabled={busy.value !== "" || decide.running()} onClick={() => void choose()}>
          Label the next {decide.NEXT} it learns most from
        </button>
      </div>
      <p class="under">
        Those are rows where the likeliest answer leads the second by little and that differ from one another, by the
        rule of <code>riyaz data --unlabelled</code>: each next one has the largest product of squared doubt and squared
        distance to the nearest one chosen before.
      </p>
      <Problem text={problem.value} />
      {busy.value && <Waiting>{busy.value}</Waiting>}
      <p class="under" role="status">
        {said.value}
      </p>
      {page.length > 0 ? (
        <Table rows={page} open={open} goTo={goTo} keep={keep} />
      ) : (
        <Empty>{view.value === "labelled" ? "No row is labelled yet." : "There are no rows here."}</Empty>
      )}
      {rows.length > PAGE && <Pager offset={offset} page={PAGE} shown={page.length} total={rows.length} />}
      <Training />
    </>
  );
}

interface TableProps {
  readonly rows: readonly Row[];
  readonly open: Signal<Row | null>;
  readonly goTo: (row: Row | undefined) => void;
  readonly keep: (row: Row, labels: ReadonlyMap<string, Value> | null) => void;
}

function Table({ rows, open, goTo, keep }: TableProps) {
  const questions = decide.answered.value?.questions ?? [];
  return (
    <Wide name="Rows and their answers">
      <table class="decided">
        <thead>
          <tr>
            <th scope="col" class="figure">
              Row
            </th>
            <th scope="col">Text</th>
            {questions.map((each) => (
              <th key={each.name} scope="col">
                {each.name}
              </th>
            ))}
            <th scope="col">
              <span class="hidden">Label</span>
            </th>
          </tr>
        </thead>
        <tbody>
          {rows.map((row) =>
            row === open.value ? (
              <tr key={row.line} class="picked">
                <td colSpan={questions.length + 3}>
                  <Editor row={row} questions={questions} keep={keep} close={() => goTo(undefined)} />
                </td>
              </tr>
            ) : (
              <Line key={row.line} row={row} questions={questions} open={() => goTo(row)} />
            ),
          )}
        </tbody>
      </table>
    </Wide>
  );
}

function Line({ row, questions, open }: { row: Row; questions: readonly Question[]; open: () => void }) {
  const clipped = row.text.length > CLIPPED ? `${row.text.slice(0, CLIPPED)} …` : row.text;
  return (
    <tr>
      <th scope="row" class="figure">
        {count(row.line)}
      </th>
      <td class="row-text">
        {clipped}
        {row.problem && <span class="under">{row.problem}</span>}
      </td>
      {questions.map((question, at) => (
        <Cell key={question.name} question={question} row={row} at={at} />
      ))}
      <td>
        {row.answers && (
          <button type="button" class="small" onClick={open}>
            {row.labels ? "Change" : "Check"}
            <span class="hidden"> row {row.line}</span>
          </button>
        )}
        {row.labels && (
          <span class={decide.corrected(row) ? "under unsure-text" : "under sure-text"}>
            {decide.corrected(row) ? "corrected" : "right"}
          </span>
        )}
      </td>
    </tr>
  );
}

function Cell({ question, row, at }: { question: Question; row: Row; at: number }) {
  void decide.seen.value; // a row changes in its place
  const answer = row.answers?.[at];
  const label = row.labels?.get(question.name);
  if (row.answers === null) return <td class="quiet">–</td>;
  if (!answer)
    return <td>{label === undefined ? <span class="quiet">no answer</span> : <b>{nameOf(question, label)}</b>}</td>;
  const own = said(question, answer);
  const other = label !== undefined && label !== own;
  return (
    <td>
      {other ? <b>{nameOf(question, label)}</b> : nameOf(question, own)}
      <span class="under">
        {other && <s>{nameOf(question, own)} </s>}
        {percent(confidence(answer))}
      </span>
    </td>
  );
}

// One row: its whole text, and an answer to every question, the model's own until a person chooses another.
function Editor(props: { row: Row; questions: readonly Question[]; keep: TableProps["keep"]; close: () => void }) {
  const { row, questions, keep, close } = props;
  const box = useRef<HTMLFormElement>(null);
  const proposed = questions.map((question, at) => {
    const answer = row.answers?.[at];
    const own = answer ? nameOf(question, said(question, answer)) : "";
    const label = row.labels?.get(question.name);
    return label !== undefined ? nameOf(question, label) : row.labels ? "" : own;
  });
  const chosen = useSignal<readonly string[]>(proposed);
  useEffect(() => {
    box.current?.querySelector<HTMLElement>("select, input")?.focus();
  }, []);
  const set = (at: number, text: string) => {
    chosen.value = chosen.value.map((each, other) => (other === at ? text : each));
  };
  const submit = () => {
    const labels = new Map<string, Value>();
    for (const [at, question] of questions.entries()) {
      const value = values(question)[names(question).indexOf(chosen.value[at] ?? "")];
      if (value !== undefined) labels.set(question.name, value);
    }
    keep(row, labels);
  };
  return (
    <form
      ref={box}
      class="label-form"
      aria-label={`Row ${row.line}`}
      onSubmit={(event) => {
        event.preventDefault();
        submit();
      }}
      onKeyDown={(event) => event.key === "Escape" && close()}
    >
      <p class="as-is">{row.text}</p>
      <div class="fields">
        {questions.map((question, at) => (
          <Choice
            key={question.name}
            question={question}
            value={chosen.value[at] ?? ""}
            hint={
              row.answers?.[at]
                ? `the model: ${nameOf(question, said(question, row.answers[at]))}, ${percent(confidence(row.answers[at]))}`
                : ""
            }
            set={(text) => set(at, text)}
          />
        ))}
      </div>
      <div class="actions">
        <button type="submit" class="main">
          {chosen.value.every((each, at) => each === proposed[at]) && !row.labels ? "Right, next" : "Keep, next"}
        </button>
        {row.labels && (
          <button type="button" onClick={() => keep(row, null)}>
            Take the label away
          </button>
        )}
        <button type="button" onClick={close}>
          Close
        </button>
      </div>
    </form>
  );
}

function Choice(props: { question: Question; value: string; hint: string; set: (text: string) => void }) {
  const { question, value, hint, set } = props;
  const options = names(question);
  const id = `values-${question.name.replaceAll(/\W+/g, "-")}`;
  if (options.length > MOST_OPTIONS)
    return (
      <Field label={question.name} hint={value && !options.includes(value) ? "not one of its choices" : hint}>
        <input value={value} list={id} onInput={(event) => set(event.currentTarget.value)} />
        <datalist id={id}>
          {options.map((each) => (
            <option key={each} value={each} />
          ))}
        </datalist>
      </Field>
    );
  return (
    <Field label={question.name} hint={hint}>
      <select value={value} onChange={(event) => set(event.currentTarget.value)}>
        <option value="">no label</option>
        {options.map((each) => (
          <option key={each} value={each}>
            {each}
          </option>
        ))}
      </select>
    </Field>
  );
}

// The labelled rows as rows to train on: the text, and one column for each question.
function Training() {
  const { busy, problem, run } = useWork();
  void decide.seen.value;
  const questions = decide.answered.value?.questions ?? [];
  const labelled = decide.rows.value.filter((row) => row.labels);
  const wrong = labelled.filter(decide.corrected).length;
  const saved = decide.saved.value;
  const columns = questions.map((each) => each.column || each.name);
  const text = ["text", "prompt", "question", "input"].find((name) => !columns.includes(name)) ?? "its text";
  const table = () =>
    csv(
      [text, ...columns],
      labelled.map((row) => [row.text, ...questions.map((each) => row.labels?.get(each.name))]),
    );
  // a closed set's one question is read from its column, without a file
  const asked = questions.length === 1 && questions[0]?.type === "choice" && columns[0] === "label" ? [] : questions;
  const stem = (decide.file.value?.name ?? "rows").replace(/\.[^.]*$/, "").replaceAll(/[^\w-]+/g, "-");
  const save = () =>
    run("Saving …", async () => {
      const when = new Date().toISOString().slice(0, 19).replaceAll(/\D/g, "");
      const name = `${stem.slice(0, 60)}-labelled-${when}`;
      const data = await api.upload(new File([table()], `${name}.csv`));
      const own = asked.length ? await api.upload(new File([written(asked)], `${name}.questions.json`)) : null;
      decide.saved.value = { data: data.path, questions: own?.path ?? "", rows: labelled.length };
    });
  if (!labelled.length) return null;
  return (
    <section class="training">
      <h3>Training rows</h3>
      <p>
        {many(labelled.length, "row")} labelled, here or in columns of the file that are named like the questions; the
        model had {wrong ? `${count(wrong)} of them wrong` : "all of them right"}.
        {labelled.length < FEWEST && ` A comparison needs ${FEWEST}.`}
      </p>
      <div class="actions">
        <button type="button" class="main" disabled={busy.value !== "" || saved !== null} onClick={() => void save()}>
          Save as training rows
        </button>
        <button type="button" onClick={() => download(`${stem}-labelled.csv`, [table()], "text/csv")}>
          Download them as CSV
        </button>
      </div>
      <Problem text={problem.value} />
      {saved && (
        <>
          <p role="status">
            {many(saved.rows, "row")} in {saved.data}.{" "}
            <a href={link("compare", { data: saved.data, ...(saved.questions && { questions: saved.questions }) })}>
              Compare ways to train on them
            </a>
          </p>
          <Command
            text={`riyaz compare ${quoted(saved.data)}${saved.questions ? ` --questions ${quoted(saved.questions)}` : ""}`}
          />
        </>
      )}
    </section>
  );
}
