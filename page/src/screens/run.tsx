// One run, followed while it works and shown when it is done: a comparison, a training or a pretraining.
import { useComputed, useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { api, told } from "../api.ts";
import { type Followed, useEvents } from "../follow.ts";
import { keptLines, type Live, live, lossLines } from "../live.ts";
import { duration, many, megabytes, number } from "../numbers.ts";
import { ArmTable, Disagreements, metricOf, Pareto } from "../parts/arms.tsx";
import { Curve } from "../parts/curve.tsx";
import { LearnedArms, Ternarized } from "../parts/later.tsx";
import { colourOf, Method, named } from "../parts/methods.tsx";
import { Pretraining } from "../parts/pretraining.tsx";
import { Command, Empty, Fact, Fold, Head, Problem, Waiting } from "../parts/words.tsx";
import { bare, go, link, route } from "../route.ts";
import { quoted, refresh, useLoaded } from "../state.ts";
import type { Arm, Run, RunDocument } from "../types.ts";

export function RunScreen() {
  const path = route.value.query.get("path") ?? "";
  if (!path) return <Empty>Choose a run in the list of runs.</Empty>;
  return <OneRun key={path} path={path} />;
}

const TOLD = new Set(["arm", "ended", "failed"]); // events after which the files on disk say more
const LOOK = 10_000; // milliseconds between two looks at the files of a run that works: its events come by themselves
const SOON = 2000; // the same where a change was asked for
const PATIENCE = 60_000; // milliseconds in which a run that was told to should begin or end

function OneRun({ path }: { path: string }) {
  const { value, problem, again } = useLoaded(path, () => api.run(path));
  const round = useSignal(0);
  const awaited = useSignal(0); // until then a change that was asked for may come
  const followed = useEvents(path, round.value);
  const seen = followed.events.value.filter((event) => TOLD.has(event.event ?? "")).length;
  const trains = followed.events.value.some((event) => event.file === "metrics"); // so there is a plan now
  const running = value.value?.state === "running";
  useEffect(() => {
    if (seen || trains || followed.ended.value) again(); // what is on disk has changed
  }, [seen, trains, followed.ended.value]);
  useEffect(() => {
    if (!running && awaited.value < Date.now()) return;
    const timer = setInterval(
      () => {
        if (!document.hidden) again();
        if (!running && awaited.value < Date.now()) clearInterval(timer);
      },
      awaited.value < Date.now() ? LOOK : SOON,
    );
    return () => clearInterval(timer);
  }, [running, awaited.value]);
  useEffect(() => {
    if (running && followed.ended.value) round.value += 1;
  }, [running]);
  const expectChange = () => {
    awaited.value = Date.now() + PATIENCE;
  };
  const run = value.value;
  return (
    <>
      <p class="over">
        <a href={link("runs")}>Runs</a>
      </p>
      <Head title={bare(path)} />
      {followed.lost.value ? <Problem text={followed.lost.value} /> : <Problem text={problem.value} again={again} />}
      {!run && !problem.value && <Waiting />}
      {run && <Status run={run} path={path} changing={expectChange} />}
      {run?.kind === "compare" && <Comparison run={run} path={path} followed={followed} />}
      {run?.kind === "limits" && <LimitsRun run={run} path={path} followed={followed} />}
      {run?.kind === "ternarize" && run.document && <Ternarized run={run} />}
      {run && !(run.kind === "compare" || run.kind === "limits" || (run.kind === "ternarize" && run.document)) && (
        <Pretraining run={run} events={followed.events.value} />
      )}
    </>
  );
}

const STATES: Readonly<Record<string, string>> = {
  planned: "planned",
  running: "running",
  done: "done",
  cut: "cut short",
  failed: "failed",
  stopped: "stopped",
};

function Status({ run, path, changing }: { run: Run; path: string; changing: () => void }) {
  const problem = useSignal("");
  const act = async (work: () => Promise<unknown>) => {
    try {
      await work();
      problem.value = "";
      changing();
    } catch (error) {
      problem.value = told(error);
    }
  };
  const running = run.state === "running" || run.state === "planned";
  const unfinished = run.state === "stopped" || run.state === "cut" || run.state === "failed";
  return (
    <>
      <div class="actions">
        <span class={`badge first ${run.state === "done" ? "sure" : unfinished ? "unsure" : ""}`}>
          {STATES[run.state] ?? run.state}
        </span>
        {run.sample && <span class="badge">a sample that comes with Riyaz</span>}
        {running && (
          <button type="button" onClick={() => void act(() => api.stop(path))}>
            {run.kind === "limits" ? "Stop" : "Stop and keep the best"}
          </button>
        )}
        {unfinished && (
          <button type="button" onClick={() => void act(() => api.resume(path))}>
            Go on
          </button>
        )}
        {run.report && (
          <a href={run.report} target="_blank" rel="noopener">
            The whole report
          </a>
        )}
      </div>
      {[...new Set([problem.value, run.problem ?? "", ...(run.problems ?? [])])].map((line) => (
        <Problem key={line} text={line} />
      ))}
      {run.command && <Command text={run.command} />}
    </>
  );
}

function Comparison({ run, path, followed }: { run: Run; path: string; followed: Followed }) {
  const now = useComputed(() => live(followed.events.value));
  const state = now.value;
  const running = run.state === "running" || run.state === "planned";
  const told = run.arms?.flatMap((arm) => (arm.row ? [arm.row] : [])) ?? [];
  const arms = (run.document?.arms ?? (running && state.arms.length ? state.finished : told)).map(named);
  const pick = run.document?.pick;
  const lines = state.arms.some((arm) => arm.loss.length) ? lossLines(state.arms) : keptLines(arms);
  return (
    <>
      {pick && run.document && <Pick found={run.document} run={run} path={path} />}
      {running && <Working state={state} />}
      <Problem text={state.failed} />
      <Fold title={`${many(arms.length, "method")}: ${metricOf(arms[0])}, time, memory`} open={!pick}>
        <ArmTable arms={arms} pick={pick} />
      </Fold>
      {arms.length > 1 && (
        <Fold title="Score against time">
          <Pareto arms={arms} pick={pick} />
        </Fold>
      )}
      {lines.length > 0 && (
        <Fold title="Loss while training" open={running}>
          <Curve title="Loss in nats per answer token" x="step" lines={lines} />
        </Fold>
      )}
      {run.learned?.length ? (
        <Fold title="How it learns">
          <LearnedArms path={path} arms={run.learned} pick={pick} events={followed.events.value} />
        </Fold>
      ) : null}
      {state.notes.length > 0 && (
        <Fold title="Notes of the run">
          <ul>
            {state.notes.map((note) => (
              <li key={note}>{note}</li>
            ))}
          </ul>
        </Fold>
      )}
      {run.document && arms.length > 1 && (
        <Fold title="Row by row">
          <Disagreements path={path} />
        </Fold>
      )}
    </>
  );
}

// What a comparison does now.
function Working({ state }: { state: Live }) {
  return (
    <section aria-live="polite">
      <h2>Now</h2>
      {state.phase && <p>{state.phase}</p>}
      {state.estimate && (
        <dl class="tiles">
          <Fact name="planned time">{duration(state.estimate.seconds)}</Fact>
          <Fact name="peak memory">{megabytes(state.estimate.peak_rss_mb)}</Fact>
          {state.estimate.disk_mb ? <Fact name="disk">{megabytes(state.estimate.disk_mb)}</Fact> : null}
        </dl>
      )}
      <ul class="plain live">
        {state.arms.map((arm) => (
          <li key={arm.method}>
            <Method name={arm.method} />
            <span class="track" aria-hidden="true">
              <span class="fill" style={{ width: `${100 * (arm.share ?? 0)}%` }} />
            </span>
            <span class="under">
              {[
                arm.phase,
                arm.done,
                arm.left === null ? "" : `${duration(arm.left)} left`,
                arm.memory === null ? "" : `${megabytes(arm.memory)} of memory`,
              ]
                .filter(Boolean)
                .join(" · ")}
              {arm.phase === "waiting" && arm.planned ? ` · ${duration(arm.planned)} planned` : ""}
            </span>
          </li>
        ))}
      </ul>
    </section>
  );
}

// The pick in words, what would change it, and what can be done with it.
function Pick({ found, run, path }: { found: RunDocument; run: Run; path: string }) {
  const problem = useSignal("");
  const pick = found.pick ?? "";
  const arm = found.arms?.map(named).find((each) => each.method === pick);
  const target = `${path}/${pick}`;
  const usual = [
    { title: "Serve it to OpenAI’s clients", command: `riyaz serve ${quoted(path)}` },
    { title: "Export it for other tools", command: `riyaz export ${quoted(target)}` },
  ];
  const open = async (screen: string) => {
    try {
      const made = await api.open(`${path}/arms/${pick}`);
      await refresh();
      go(screen, { model: made.id });
    } catch (error) {
      problem.value = told(error);
    }
  };
  return (
    <section class="pick">
      <h2>
        {found.decision === "undecided" ? "Leading, but undecided: " : "The pick: "}
        <Method name={pick} colour={arm && colourOf(arm)} />
      </h2>
      <p>{found.reason}</p>
      {arm && <Numbers arm={arm} />}
      {!run.sample && (
        <>
          <div class="actions">
            <button type="button" class="main" onClick={() => void open("chat")}>
              Chat with it
            </button>
            <button type="button" onClick={() => void open("decide")}>
              Decide with it
            </button>
          </div>
          <Problem text={problem.value} />
          <details>
            <summary>Serve it, export it, or answer rows with it, from the command line</summary>
            {(run.commands?.length ? run.commands : usual).map(({ title, command }) => (
              <Command key={command} text={command}>
                {title}
              </Command>
            ))}
          </details>
        </>
      )}
    </section>
  );
}

function LimitsRun({ run, path, followed }: { run: Run; path: string; followed: Followed }) {
  const now = useComputed(() => live(followed.events.value));
  if (run.state !== "running")
    return (
      <p>
        <a href={link("limits", { path })}>The figures</a>
      </p>
    );
  return <Working state={now.value} />;
}

function Numbers({ arm }: { arm: Arm }) {
  return (
    <dl class="tiles">
      <Fact name={metricOf(arm)} under={`${number(arm.ci_low)} to ${number(arm.ci_high)}`}>
        {number(arm.score)}
      </Fact>
      <Fact name="per answer">{arm.ms_per_answer ? duration(arm.ms_per_answer / 1000) : "–"}</Fact>
      <Fact name="training">{duration((arm.train_seconds ?? 0) + (arm.search_seconds ?? 0))}</Fact>
      <Fact name="artifact">{megabytes(arm.artifact_mb)}</Fact>
    </dl>
  );
}
