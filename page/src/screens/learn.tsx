// Train a model on a text from nothing, and watch it learn.
import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { api } from "../api.ts";
import { FileChoice } from "../parts/files.tsx";
import { Samples } from "../parts/later.tsx";
import { Term } from "../parts/term.tsx";
import { Command, Empty, Field, Head, Problem, Waiting } from "../parts/words.tsx";
import { go, link, route } from "../route.ts";
import { quoted, useLoaded, useWork } from "../state.ts";
import type { Start } from "../types.ts";

const text = signal("");
const out = signal(""); // the folder of the run; the server names one where it is empty
const budget = signal("5m");
const size = signal("1m");
const SIZES = ["1m", "5m", "15m", "50m"];

const body = (): Start => ({
  verb: "pretrain",
  texts: [text.value],
  budget: budget.value,
  ...(out.value.trim() ? { out: out.value.trim() } : {}),
  size: size.value,
});

export function Learn() {
  const { busy, problem, run } = useWork();
  const given = route.value.query.get("text");
  useEffect(() => {
    if (given) text.value = given;
  }, [given]);
  return (
    <>
      <Head title="Learn">
        A new <Term of="model" /> begins with random numbers and reads your text: watch its <Term of="loss" /> fall, its
        texts become words, and the bars of the next word move.
      </Head>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (text.value && !busy.value)
            void run("Starting …", async () => go("run", { path: (await api.start(body())).path }));
        }}
      >
        <FileChoice
          label="Text to learn from"
          value={text.value}
          kinds={["text", "documents", "folder", "data"]}
          upload
          set={(path) => (text.value = path)}
        />
        <div class="fields">
          <Field label="Budget" hint="wall time, such as 90s or 1h">
            <input value={budget.value} onInput={(event) => (budget.value = event.currentTarget.value)} />
          </Field>
          <Field label="Folder of the run" hint="where it writes">
            <input
              value={out.value}
              placeholder="runs/pretrain-…"
              onInput={(event) => (out.value = event.currentTarget.value)}
            />
          </Field>
          <Field label="Size" hint="about so many parameters">
            <select value={size.value} onChange={(event) => (size.value = event.currentTarget.value)}>
              {SIZES.map((each) => (
                <option key={each} value={each}>
                  {each.replace("m", " million")}
                </option>
              ))}
            </select>
          </Field>
        </div>
        <div class="actions">
          <button type="submit" class="main" disabled={!text.value || busy.value !== ""}>
            Start
          </button>
        </div>
      </form>
      <Problem text={problem.value} />
      {busy.value && <Waiting>{busy.value}</Waiting>}
      {text.value && (
        <Command
          text={`riyaz pretrain ${quoted(text.value)} --size ${size.value} --budget ${budget.value} --out ${out.value.trim() ? quoted(out.value.trim()) : "runs/learn"}`}
        />
      )}
      <Earlier />
      <Samples of="learn" />
    </>
  );
}

function Earlier() {
  const { value } = useLoaded("learned", api.runs);
  const found = value.value?.filter((run) => run.kind === "pretrain") ?? [];
  return (
    <section>
      <h2>Models that were trained here</h2>
      {value.value && found.length === 0 && <Empty>None yet.</Empty>}
      <ul class="plain">
        {found.map((run) => (
          <li key={run.path}>
            <a href={link("run", { path: run.path })}>{run.path}</a> <span class="quiet">{run.state}</span>
          </li>
        ))}
      </ul>
    </section>
  );
}
