// A file of rows: how it is read, the rows as they are trained on, and what is wrong with them.
import { signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect } from "preact/hooks";
import { api } from "../api.ts";
import { count, percent } from "../numbers.ts";
import { FileChoice } from "../parts/files.tsx";
import { Term } from "../parts/term.tsx";
import { Command, Empty, Fact, Head, Pager, Problem, taskLine, Waiting } from "../parts/words.tsx";
import { link, route } from "../route.ts";
import { models, quoted, useLoaded } from "../state.ts";
import type { DataFound, Named } from "../types.ts";

const path = signal("");
const offset = signal(0);
const PAGE = 50;
export function Data() {
  const given = route.value.query.get("path");
  useEffect(() => {
    if (given) path.value = given;
  }, [given]);
  const set = (next: string) => {
    path.value = next;
    offset.value = 0;
  };
  return (
    <>
      <Head title="Data">
        Give a file of questions and answers, and see how it is read before a <Term of="model" /> is{" "}
        <Term of="training">trained</Term> on it.
      </Head>
      <FileChoice label="Rows" value={path.value} kinds={["data"]} upload set={set} />
      {path.value ? (
        <Shown key={path.value} path={path.value} />
      ) : (
        <Empty>
          No file is chosen yet. In a JSONL file a row is a line such as{" "}
          <code>{'{"prompt": "My card was stolen", "answer": "stolen_card"}'}</code>; a CSV file has a column for each.
        </Empty>
      )}
    </>
  );
}

function Shown({ path }: { path: string }) {
  const model = models.value.find((each) => each.parent === null)?.id ?? "";
  const query = { path, offset: String(offset.value), ...(model ? { model } : {}) };
  const { value, problem, again } = useLoaded(`${path} ${offset.value} ${model}`, () => api.data(query));
  const found = value.value;
  return (
    <>
      <Problem text={problem.value} again={again} />
      {!found && !problem.value && <Waiting>Reading the file …</Waiting>}
      {found && (
        <>
          <Facts found={found} path={path} />
          <Rows found={found} />
          <Command text={`riyaz data ${quoted(path)}`} />
        </>
      )}
    </>
  );
}

function Facts({ found, path }: { found: DataFound; path: string }) {
  const { report, task } = found;
  const marks = Object.entries(found.checks ?? {}).filter(([, check]) => !check.ok);
  return (
    <section>
      <h2>{taskLine(task.kind)}</h2>
      <p class="under">
        {[task.why ?? "", `columns ${found.columns.join(", ") || "none"}`, unused(found)].filter(Boolean).join("; ")}
      </p>
      <dl class="tiles">
        <Fact name="rows">{count(found.rows)}</Fact>
        <Fact name="rows left out">{count(report.rows.skipped)}</Fact>
        <Fact
          name={
            <>
              <Term of="prompt">prompts</Term> that occur twice
            </>
          }
        >
          {count(report.duplicates)}
        </Fact>
        <Fact name="of them with another answer">{count(report.conflicts)}</Fact>
        <Fact
          name={
            <>
              <Term of="test rows" /> that are training rows too
            </>
          }
        >
          {count(report.leakage?.test_rows)}
        </Fact>
      </dl>
      {task.instruction && (
        <p>
          The instruction: <b>{task.instruction}</b>
        </p>
      )}
      {report.notes.map((note) => (
        <p key={note} class="problem">
          {note}
        </p>
      ))}
      {marks.map(([name, check]) => (
        <p key={name} class="problem">
          {`${name.replaceAll("_", " ")}: ${count(check.failed)} of ${count(check.rows)} rows fail`}
        </p>
      ))}
      <Pictures found={found} />
      <div class="actions">
        <a class="button" href={link("compare", { data: path })}>
          Compare methods on it
        </a>
      </div>
    </section>
  );
}

const unused = (found: DataFound): string =>
  found.unused_columns?.length ? `not used: ${found.unused_columns.join(", ")}` : "";

const PARTS = { train: "to train on", valid: "to choose by", test: "to measure on" } as const;

function Pictures({ found }: { found: DataFound }) {
  const { rows, labels, slices } = found.report;
  const split = (["train", "valid", "test"] as const).map((part) => ({ name: PARTS[part], count: rows[part] ?? 0 }));
  const all = (each: Readonly<Record<string, number>>) => Object.values(each).reduce((sum, value) => sum + value, 0);
  const answers = Object.entries(labels).map(([name, each]) => ({ name, count: all(each) }));
  const sliced = Object.entries(slices).map(([name, value]) => ({ name, count: value }));
  return (
    <div class="pair">
      <Shares title={<Term of="split">The split</Term>} named={split} />
      {found.histogram && <Histogram title="Tokens of a prompt" {...found.histogram.prompt} />}
      {found.histogram && <Histogram title="Tokens of an answer" {...found.histogram.answer} />}
      {!found.histogram && found.tokens && <Longest tokens={found.tokens} />}
      {answers.length > 0 && <Shares title="Answers" named={answers} />}
      {sliced.length > 0 && <Shares title="Slices" named={sliced} />}
    </div>
  );
}

function Longest({ tokens }: { tokens: NonNullable<DataFound["tokens"]> }) {
  return (
    <section>
      <h3>Tokens</h3>
      <p>
        A prompt has {count(tokens.prompt.median)} in the middle and {count(tokens.prompt.longest)} at most, an answer{" "}
        {count(tokens.answer.median)} and {count(tokens.answer.longest)}.
      </p>
    </section>
  );
}

const HIGH = 90;
const WIDE = 300;

function Histogram(props: { title: string; edges: readonly number[]; counts: readonly number[] }) {
  const { title, edges, counts } = props;
  const first = Math.max(
    0,
    counts.findIndex((value) => value > 0),
  );
  const last = counts.findLastIndex((value) => value > 0);
  const bins = counts.slice(first, last + 1);
  const most = Math.max(1, ...bins);
  const step = WIDE / Math.max(1, bins.length);
  const [low, high] = [count(edges[first]), count(edges[last + 1])];
  return (
    <section>
      <h3>{title}</h3>
      <svg
        class="drawn histogram"
        viewBox={`0 0 ${WIDE} ${HIGH + 20}`}
        role="img"
        aria-label={`${title}: ${low} to ${high}`}
      >
        {bins.map((value, place) => (
          <rect
            key={place}
            x={place * step + 0.5}
            y={HIGH - (HIGH * value) / most}
            width={Math.max(1, step - 1)}
            height={(HIGH * value) / most}
          />
        ))}
        <line class="scale" x1="0" x2={WIDE} y1={HIGH} y2={HIGH} />
        <text class="tick" x="0" y={HIGH + 15}>
          {low}
        </text>
        <text class="tick end" x={WIDE} y={HIGH + 15}>
          {high}
        </text>
      </svg>
    </section>
  );
}

const MOST = 12;

function Shares({ title, named }: { title: ComponentChildren; named: readonly Named[] }) {
  const all = named.reduce((sum, each) => sum + each.count, 0);
  const most = Math.max(1, ...named.map((each) => each.count));
  return (
    <section>
      <h3>{title}</h3>
      <ol class="bars b3 counts">
        {named.slice(0, MOST).map((each) => (
          <li key={each.name}>
            <div class="row" title={percent(each.count / Math.max(1, all))}>
              <span class="name">{each.name}</span>
              <span class="track" aria-hidden="true">
                <span class="fill" style={{ width: `${(100 * each.count) / most}%` }} />
              </span>
              <span class="share">{count(each.count)}</span>
            </div>
          </li>
        ))}
      </ol>
      {named.length > MOST && <p class="under">and {count(named.length - MOST)} more</p>}
    </section>
  );
}

// The rows as the model reads them, or as they stand in the file where no model is there to render them.
function Rows({ found }: { found: DataFound }) {
  const rows = found.examples.map((row, place) => ({ ...row, text: found.rendered?.[place] }));
  if (!rows.length) return <Empty>There are no rows here.</Empty>;
  return (
    <section>
      <h2>{found.rendered ? "Rows as they are trained on" : "Rows"}</h2>
      <p class="under">
        What is <mark>marked</mark> is what the model learns to write, <Term of="token" /> by token; the rest is what it
        reads.
        {found.rendered ? "" : " The model is not on this machine, so that its own marks around a turn are not shown."}
      </p>
      <ol class="plain rows-read">
        {rows.map((row) => (
          <li key={row.where}>
            <p class="under">{row.slice ? `${row.where} · ${row.slice}` : row.where}</p>
            <div class="rendered">
              <span>{row.text?.prompt ?? `${row.prompt}\n`}</span>
              <mark>{row.text?.answer ?? row.answers.join("  or  ")}</mark>
            </div>
          </li>
        ))}
      </ol>
      <Pager offset={offset} page={PAGE} shown={rows.length} total={found.rows} />
    </section>
  );
}
