// Every run in the folder: open it, stop it, go on with it, or see where two of them differ.
import { signal, useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { api, told } from "../api.ts";
import { number } from "../numbers.ts";
import { Samples } from "../parts/later.tsx";
import { Method } from "../parts/methods.tsx";
import { Empty, Head, Problem, Waiting, Wide } from "../parts/words.tsx";
import { link } from "../route.ts";
import { useLoaded } from "../state.ts";
import type { RunEntry } from "../types.ts";

const KINDS: Readonly<Record<string, string>> = {
  compare: "comparison",
  adapt: "one method",
  pretrain: "model from nothing",
  ternarize: "ternary model",
  limits: "limits",
};
const LOOK = 3000; // milliseconds between two looks while a run is running
const SOON = [700, 3000, 8000]; // after a run was told to stop or to go on, which takes it seconds
const marked = signal<readonly string[]>([]); // two runs to compare

export function Runs() {
  const { value, problem, again } = useLoaded("runs", api.runs);
  const refused = useSignal("");
  const act = async (work: () => Promise<unknown>) => {
    try {
      await work();
      refused.value = "";
      for (const after of SOON) setTimeout(again, after);
    } catch (error) {
      refused.value = told(error);
    }
  };
  const runs = value.value;
  useEffect(() => {
    if (!runs?.some((run) => run.state === "running")) return;
    const timer = setInterval(() => {
      if (!document.hidden) again();
    }, LOOK);
    return () => clearInterval(timer);
  }, [runs]);
  return (
    <>
      <Head title="Runs">
        Each run is a process of its own that writes its own folder: it goes on when this page is closed, and one that
        was started on the command line appears here too.
      </Head>
      <div class="actions">
        <button type="button" onClick={again}>
          Look again
        </button>
      </div>
      <Problem text={problem.value} again={again} />
      <Problem text={refused.value} />
      {!runs && !problem.value && <Waiting />}
      {runs?.length === 0 && (
        <Empty>
          There is no run in this folder yet. Begin with <a href={link("compare")}>Compare</a> or{" "}
          <a href={link("learn")}>Learn</a>.
        </Empty>
      )}
      {runs && runs.length > 0 && (
        <ul class="plain cards">
          {runs.map((run) => (
            <Card key={run.path} run={run} act={act} />
          ))}
        </ul>
      )}
      <Samples of="runs" />
      {marked.value.length === 2 && <Differences a={marked.value[0] ?? ""} b={marked.value[1] ?? ""} />}
    </>
  );
}

function moment(run: RunEntry): string {
  const seconds = run.started ?? run.changed;
  if (!seconds) return "";
  return new Date(1000 * seconds).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
}

function Card({ run, act }: { run: RunEntry; act: (work: () => Promise<unknown>) => Promise<void> }) {
  const mark = (on: boolean) => {
    const others = marked.value.filter((each) => each !== run.path);
    marked.value = on ? [...others, run.path].slice(-2) : others;
  };
  const unfinished = ["stopped", "cut", "failed", "unreadable"].includes(run.state);
  return (
    <li class="card">
      <div class="card-main">
        <h2>
          <a href={run.kind === "limits" ? link("limits", { path: run.path }) : link("run", { path: run.path })}>
            {run.path}
          </a>
        </h2>
        <p class="under">{[KINDS[run.kind] ?? run.kind, moment(run)].filter(Boolean).join(" · ")}</p>
        {run.pick && (
          <p>
            Pick: <Method name={run.pick} /> {typeof run.score === "number" && number(run.score)}
          </p>
        )}
        {!run.pick && typeof run.score === "number" && <p>{number(run.score)} bits per byte</p>}
        {run.problem && <p class="under">{run.problem}</p>}
      </div>
      <div class="actions">
        <span class={`badge first ${run.state === "done" ? "sure" : unfinished ? "unsure" : ""}`}>{run.state}</span>
        {run.state === "running" && (
          <button type="button" class="small" onClick={() => void act(() => api.stop(run.path))}>
            Stop and keep the best
          </button>
        )}
        {unfinished && run.state !== "unreadable" && (
          <button type="button" class="small" onClick={() => void act(() => api.resume(run.path))}>
            Go on
          </button>
        )}
        <label class="check">
          <input
            type="checkbox"
            checked={marked.value.includes(run.path)}
            onChange={(event) => mark(event.currentTarget.checked)}
          />
          compare settings
        </label>
      </div>
    </li>
  );
}

function inWords(value: unknown): string {
  if (value === null || value === undefined) return "–";
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

function Differences({ a, b }: { a: string; b: string }) {
  const { value, problem } = useLoaded(`${a}\n${b}`, () => api.difference(a, b));
  const found = value.value?.differences;
  return (
    <section>
      <h2>Where their settings differ</h2>
      <Problem text={problem.value} />
      {found?.length === 0 && <Empty>They have the same settings.</Empty>}
      {found && found.length > 0 && (
        <Wide name="Settings that differ">
          <table class="differences">
            <thead>
              <tr>
                <th scope="col">setting</th>
                <th scope="col">{a}</th>
                <th scope="col">{b}</th>
              </tr>
            </thead>
            <tbody>
              {found.map((each) => (
                <tr key={each.name}>
                  <th scope="row">
                    {each.name.split(".").flatMap((part, at) => [at ? "." : "", at ? <wbr key={at} /> : "", part])}
                  </th>
                  <td>{inWords(each.a)}</td>
                  <td>{inWords(each.b)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </Wide>
      )}
    </section>
  );
}
