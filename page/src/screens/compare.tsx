// Choose data, documents, a model and a budget; see the plan and its estimate; start.
import { signal, useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { api } from "../api.ts";
import { count, duration, many, megabytes } from "../numbers.ts";
import { FileChoice } from "../parts/files.tsx";
import { Method, methods, named } from "../parts/methods.tsx";
import { Term } from "../parts/term.tsx";
import { Command, Fact, Field, Head, Problem, taskLine, Waiting, Wide } from "../parts/words.tsx";
import { go, route } from "../route.ts";
import { models, useWork } from "../state.ts";
import type { Plan, Start } from "../types.ts";

const data = signal("");
const documents = signal("");
const questions = signal(""); // a file of typed questions that every row answers
const model = signal("");
const out = signal(""); // the folder of the run; the server names one where it is empty
const budget = signal("10m");
const leftOut = signal<readonly string[]>([]); // methods that are not to run
const chosen = () => Object.keys(methods()).filter((name) => !leftOut.value.includes(name));

const body = (): Start => ({
  verb: "compare",
  data: data.value,
  model: model.value || "smollm2-135m",
  budget: budget.value,
  ...(out.value.trim() ? { out: out.value.trim() } : {}),
  ...(documents.value ? { documents: documents.value } : {}),
  ...(questions.value ? { questions: questions.value } : {}),
  ...(leftOut.value.length ? { methods: chosen() } : {}),
});

export function Compare() {
  const plan = useSignal<Plan | null>(null);
  const { busy, problem, run } = useWork();
  const given = route.value.query;
  const [file, other, asked] = [given.get("data"), given.get("documents"), given.get("questions")];
  useEffect(() => {
    if (file) {
      data.value = file;
      questions.value = asked ?? ""; // those of other rows have other columns
    }
    if (other) documents.value = other;
  }, [file, other, asked]);
  useEffect(() => {
    const base = models.value.find((each) => each.parent === null);
    if (!model.value && base) model.value = base.id;
  }, [models.value]);
  const settings = JSON.stringify(body());
  useEffect(() => {
    plan.value = null; // it was of other settings
  }, [settings]);
  const estimate = () =>
    run("Reading the rows and measuring a few steps …", async () => {
      plan.value = await api.plan(body());
    });
  const start = () =>
    run("Starting …", async () => {
      go("run", { path: (await api.start(body())).path });
    });
  return (
    <>
      <Head title="Compare">
        Every way of adapting the model (a <Term of="method" />
        ), measured on the same <Term of="test rows">held-out rows</Term> within one budget: a table with costs and{" "}
        <Term of="95 % interval">intervals</Term>, and a pick with its reason.
      </Head>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (data.value && !busy.value) void estimate();
        }}
      >
        <div class="fields two">
          <FileChoice
            label="Rows with questions and answers"
            value={data.value}
            kinds={["data"]}
            upload
            set={(path) => (data.value = path)}
          />
          <FileChoice
            label="Documents to retrieve from"
            value={documents.value}
            kinds={["documents", "data", "folder"]}
            optional
            set={(path) => (documents.value = path)}
          />
          <FileChoice
            label="Questions that each row answers"
            value={questions.value}
            kinds={["data"]}
            upload
            optional
            set={(path) => (questions.value = path)}
          />
        </div>
        <div class="fields">
          <Field label="Base model" hint="a name, a folder or a GGUF file; several with commas between them">
            <input value={model.value} list="bases" onInput={(event) => (model.value = event.currentTarget.value)} />
          </Field>
          <datalist id="bases">
            {models.value
              .filter((each) => each.parent === null)
              .map((each) => (
                <option key={each.id} value={each.id} />
              ))}
          </datalist>
          <Field label="Budget" hint="wall time of the whole comparison, such as 10m or 1h30m">
            <input value={budget.value} onInput={(event) => (budget.value = event.currentTarget.value)} />
          </Field>
          <Field label="Folder of the run" hint="where it writes; the same folder goes on with what is there">
            <input
              value={out.value}
              placeholder="runs/compare-…"
              onInput={(event) => (out.value = event.currentTarget.value)}
            />
          </Field>
        </div>
        <Methods />
        <div class="actions">
          <button type="submit" class={plan.value ? "" : "main"} disabled={!data.value || busy.value !== ""}>
            Plan and estimate
          </button>
          {plan.value && (
            <button type="button" class="main" disabled={busy.value !== ""} onClick={() => void start()}>
              Start
            </button>
          )}
        </div>
      </form>
      <Problem text={problem.value} />
      {busy.value && <Waiting>{busy.value}</Waiting>}
      {plan.value && <PlanView found={plan.value} />}
    </>
  );
}

function Methods() {
  const set = (name: string, on: boolean) => {
    leftOut.value = [...leftOut.value.filter((each) => each !== name), ...(on ? [] : [name])];
  };
  return (
    <fieldset class="methods">
      <legend>Methods</legend>
      {Object.entries(methods()).map(([name, { what }]) => (
        <label key={name} class="check">
          <input
            type="checkbox"
            checked={!leftOut.value.includes(name)}
            onChange={(event) => set(name, event.currentTarget.checked)}
          />
          <span>
            <Method name={name} /> <span class="under">{what}</span>
          </span>
        </label>
      ))}
    </fieldset>
  );
}

// The plan stands below a long form.
function intoSight(plan: HTMLElement | null): void {
  plan?.scrollIntoView({ block: "nearest" });
}

function PlanView({ found }: { found: Plan }) {
  const { estimate, plan, data: rows, task } = found.plan;
  const counts = (["train", "valid", "test"] as const).map((part) => `${count(rows.rows[part])} ${PARTS[part]}`);
  return (
    <section ref={intoSight}>
      <h2>The plan</h2>
      <dl class="tiles">
        <Fact name="time">{duration(estimate.seconds)}</Fact>
        <Fact name={<Term of="peak memory" />}>{megabytes(estimate.peak_rss_mb)}</Fact>
        <Fact name="disk">{megabytes(estimate.disk_mb)}</Fact>
      </dl>
      <p>
        {taskLine(task ?? "free")}; {counts.join(", ")}.
      </p>
      {rows.notes?.map((note) => (
        <p key={note} class="under">
          {note}
        </p>
      ))}
      <Wide name="Time of each method">
        <table>
          <caption>Time of each method</caption>
          <tbody>
            {plan.arms.map(named).map((arm) => (
              <tr key={arm.method}>
                <th scope="row">
                  <Method name={arm.method} />
                </th>
                <td class="figure">
                  {arm.skipped ? "–" : duration(Object.values(arm.seconds).reduce((sum, each) => sum + each, 0))}
                </td>
                <td>{arm.skipped || (arm.steps ? many(arm.steps, "training step") : "")}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </Wide>
      <Command text={found.command} />
    </section>
  );
}

const PARTS = { train: "rows to train on", valid: "to choose by", test: "to measure on" } as const;
