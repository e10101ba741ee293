// A file of rows: what it was taken for, the rows as they are trained on, and what is wrong with them.
import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { api } from "../api.ts";
import { count, percent } from "../numbers.ts";
import { FileChoice } from "../parts/files.tsx";
import { Command, Empty, Fact, Head, Problem, Waiting } from "../parts/words.tsx";
import { link, route } from "../route.ts";
import { models, quoted, useLoaded } from "../state.ts";
import type { DataFound, Named } from "../types.ts";

const path = signal("");
const offset = signal(0);
const PAGE = 50;
const TASKS: Readonly<Record<string, string>> = {
  closed: "a choice from a set of answers",
  short: "short answers",
  free: "free text",
};

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
        Give a file of questions and answers, and see what it is taken for before anything is trained on it.
      </Head>
      <FileChoice label="Rows" value={path.value} kinds={["data"]} upload set={set} />
      {path.value && <Shown key={path.value} path={path.value} />}
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

function leaked(found: DataFound): string {
  if (found.leakage === null || found.leakage === undefined) return "–";
  return count(typeof found.leakage === "number" ? found.leakage : (found.leakage.test_rows ?? 0));
}

function Facts({ found, path }: { found: DataFound; path: string }) {
  return (
    <section>
      <h2>Taken for {TASKS[found.task] ?? found.task}</h2>
      <p class="under">
        Format {found.format}; columns {found.columns.join(", ") || "none"}
      </p>
      <dl class="tiles">
        {Object.entries(found.counts).map(([name, value]) => (
          <Fact key={name} name={name.replaceAll("_", " ")}>
            {count(value)}
          </Fact>
        ))}
        <Fact name="prompts that occur twice">{count(found.duplicates)}</Fact>
        <Fact name="test rows that are training rows too">{leaked(found)}</Fact>
      </dl>
      {found.warnings.map((warning) => (
        <p key={warning} class="problem">
          {warning}
        </p>
      ))}
      <div class="pair">
        {found.split && (
          <Shares
            title="The split"
            named={Object.entries(found.split).map(([name, value]) => ({ name, count: value }))}
          />
        )}
        {found.lengths && found.lengths.counts.length > 0 && <Shares title="Tokens of a row" named={lengths(found)} />}
        {found.labels && found.labels.length > 0 && <Shares title="Answers" named={found.labels} />}
        {found.slices && found.slices.length > 0 && <Shares title="Slices" named={found.slices} />}
      </div>
      <div class="actions">
        <a class="button" href={link("compare", { data: path })}>
          Compare methods on it
        </a>
      </div>
    </section>
  );
}

function lengths(found: DataFound): Named[] {
  const { edges = [], counts = [] } = found.lengths ?? {};
  return counts.map((value, place) => ({ name: `${count(edges[place])}–${count(edges[place + 1])}`, count: value }));
}

const MOST = 12;

function Shares({ title, named }: { title: string; named: readonly Named[] }) {
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

function Rows({ found }: { found: DataFound }) {
  if (!found.rows.length) return <Empty>There are no rows here.</Empty>;
  return (
    <section>
      <h2>Rows as they are trained on</h2>
      <p class="under">
        What is <mark>marked</mark> is what the model learns to write; the rest is what it reads.
      </p>
      <ol class="plain rows-read">
        {found.rows.map((row) => (
          <li key={row.index}>
            <p class="under">
              row {count(row.index + 1)}
              {row.slice ? ` · ${row.slice}` : ""}
            </p>
            <div class="rendered">
              {row.pieces?.length
                ? row.pieces.map((piece, place) =>
                    piece.loss ? <mark key={place}>{piece.text}</mark> : <span key={place}>{piece.text}</span>,
                  )
                : [<span key="prompt">{`${row.prompt}\n`}</span>, <mark key="answer">{row.answer}</mark>]}
            </div>
          </li>
        ))}
      </ol>
      <div class="actions">
        <button
          type="button"
          disabled={offset.value === 0}
          onClick={() => (offset.value = Math.max(0, offset.value - PAGE))}
        >
          Rows before
        </button>
        <button type="button" disabled={found.rows.length < PAGE} onClick={() => (offset.value += PAGE)}>
          Rows after
        </button>
      </div>
    </section>
  );
}
