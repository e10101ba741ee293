// The rows of a dropped file: which column is read, every row's answers, and the answers as a file.
import { useSignal } from "@preact/signals";
import * as decide from "../decide.ts";
import { count, many } from "../numbers.ts";
import { type Answer, confidence, type Question, said, score, values } from "../questions.ts";
import { csv, download, MOST_ROWS, read, textColumns } from "../sheet.ts";
import { useWork } from "../state.ts";
import { dropping } from "./drop.ts";
import { Labels } from "./labels.tsx";
import { Field, Problem } from "./words.tsx";

export function FileRows() {
  const over = useSignal(false);
  const { busy, problem, run } = useWork();
  const open = async (dropped: File | undefined) => {
    if (!dropped) return;
    await run(`Reading ${dropped.name} …`, async () => {
      const sheet = await read(dropped);
      const [first] = textColumns(sheet);
      if (first === undefined) throw new Error(`No column of ${dropped.name} holds texts.`);
      decide.load(dropped.name, sheet, first);
    });
  };
  return (
    <section class={over.value ? "file-rows over" : "file-rows"} aria-label="A file of texts" {...dropping(over, open)}>
      <h2>A file of texts</h2>
      <p class="under">
        Drop a CSV or JSONL file with a column of texts here, of at most {count(MOST_ROWS)} rows. It stays in this tab:
        the texts go to the server to be answered, and the labelled rows where you save them.
      </p>
      <div class="actions">
        <label class="button">
          Choose a file
          <input
            type="file"
            accept=".csv,.tsv,.jsonl,.ndjson,.txt"
            class="hidden"
            onChange={(event) => {
              void open(event.currentTarget.files?.[0]);
              event.currentTarget.value = ""; // so that the same file can be opened again
            }}
          />
        </label>
        {decide.file.value && (
          <span>
            {decide.file.value.name}, {many(decide.rows.value.length, "row")}
          </span>
        )}
      </div>
      <Problem text={problem.value} />
      {busy.value && <p class="under">{busy.value}</p>}
      {decide.file.value && <Answering />}
      {decide.answered.value && <Labels key={decide.file.value?.name} />}
    </section>
  );
}

function Answering() {
  const loaded = decide.file.value;
  void decide.seen.value;
  const rows = decide.rows.value;
  const done = rows.filter((row) => row.answers).length;
  const failed = rows.filter((row) => row.problem).length;
  const left = rows.length - done - failed;
  const running = decide.running();
  const other = decide.stale();
  const name =
    done && left && !other ? `Go on with ${count(left)} rows` : `Answer ${many(rows.length - failed, "row")}`;
  if (!loaded) return null;
  return (
    <>
      <div class="toolbar">
        <Field label="Column of the texts">
          <select
            value={decide.column.value}
            onChange={(event) => decide.load(loaded.name, loaded.sheet, event.currentTarget.value)}
          >
            {textColumns(loaded.sheet).map((each) => (
              <option key={each} value={each}>
                {each}
              </option>
            ))}
          </select>
        </Field>
        {running ? (
          <button type="button" onClick={decide.stop}>
            Stop
          </button>
        ) : (
          <button
            type="button"
            class="main"
            disabled={!decide.questions.value.length || !decide.model.value || (left === 0 && !other)}
            onClick={() => void decide.answerAll()}
          >
            {name}
          </button>
        )}
      </div>
      {decide.answered.value && (
        <div class="progress">
          <progress max={rows.length} value={done + failed} aria-label="Rows that are answered" />
          <span class="under">
            {count(done)} of {count(rows.length)} answered{failed ? `, ${count(failed)} cannot be` : ""}
          </span>
        </div>
      )}
      <p class="hidden" role="status">
        {running ? "Answering" : decide.answered.value ? `${many(done, "row")} answered` : ""}
      </p>
      <Problem text={decide.problem.value} />
      {other && !running && (
        <p class="note">
          The answers below are those of {decide.answered.value?.model} to the questions it was asked. You have changed
          the questions or the model since; answer the rows again to see theirs.
        </p>
      )}
      {done > 0 && <Downloads />}
    </>
  );
}

function Downloads() {
  const stem = (decide.file.value?.name ?? "rows").replace(/\.[^.]*$/, "");
  return (
    <div class="actions">
      <button type="button" onClick={() => download(`${stem}-answers.csv`, [table()], "text/csv")}>
        Download the answers as CSV
      </button>
      <button type="button" onClick={() => download(`${stem}-answers.jsonl`, lines(), "application/jsonl")}>
        as JSONL
      </button>
    </div>
  );
}

const short = (value: number): number => Number(value.toFixed(6));

// The file's own columns, and those of the answers in the words of `riyaz decide`.
function table(): string {
  const own = decide.file.value?.sheet.columns ?? [];
  const questions = decide.answered.value?.questions ?? [];
  const taken = questions.some((question) => own.includes(question.name));
  const named = (question: Question) => `${taken ? "said_" : ""}${question.name}`;
  const columns = questions.flatMap((each) => [
    named(each),
    `${named(each)}_confidence`,
    ...(each.type === "score" ? [`${named(each)}_score`] : []),
  ]);
  const cells = (question: Question, answer: Answer | null | undefined) => [
    answer ? said(question, answer) : "",
    answer ? short(confidence(answer)) : "",
    ...(question.type === "score" ? [answer ? short(score(answer)) : ""] : []),
  ];
  const body = decide.rows.value.map((row) => [
    ...own.map((name) => row.cells[name]),
    ...questions.flatMap((question, at) => cells(question, row.answers?.[at])),
  ]);
  return csv([...own, ...columns], body);
}

// One line for each row that has answers, as `riyaz decide` writes it.
function lines(): string[] {
  const questions = decide.answered.value?.questions ?? [];
  const name = decide.file.value?.name ?? "";
  return decide.rows.value.flatMap((row) => {
    if (!row.answers) return [];
    const answers = questions.map((question, at) => [question.name, recordOf(question, row.answers?.[at])]);
    return [`${JSON.stringify({ where: `${name}:${row.line}`, answers: Object.fromEntries(answers) })}\n`];
  });
}

function recordOf(question: Question, answer: Answer | null | undefined): object | null {
  if (!answer) return null;
  const key = question.type === "score" ? "label" : "value";
  return {
    type: question.type,
    answer: said(question, answer),
    confidence: short(confidence(answer)),
    ...(question.type === "score" ? { score: short(score(answer)) } : {}),
    probabilities: values(question).map((value, at) => ({ [key]: value, probability: short(answer.p[at] ?? 0) })),
    trained: answer.trained,
  };
}
