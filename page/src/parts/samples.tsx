// What comes with Riyaz for a first visit: finished runs, a text, figures, answers. Below what is the user's own, folded.
import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { api, Refused } from "../api.ts";
import { useEvents } from "../follow.ts";
import { bytes, number } from "../numbers.ts";
import { bare, go, link } from "../route.ts";
import { Shown } from "../screens/limits.tsx";
import { models, useLoaded, useWork } from "../state.ts";
import type { RunEntry, Sides } from "../types.ts";
import { Markdown } from "./markdown.tsx";
import { Method } from "./methods.tsx";
import { Pretraining } from "./pretraining.tsx";
import { Command, Empty, Problem, Waiting } from "./words.tsx";

export { Ternarized } from "./ternarized.tsx";

type Place = "runs" | "learn" | "limits" | "side" | "models";
const OWN: Readonly<Record<string, readonly string[]>> = {
  runs: ["compare", "adapt", "pretrain", "ternarize", "limits"],
  learn: ["pretrain"],
  limits: ["limits"],
};

export function Samples({ of }: { of: Place }) {
  if (of === "models") return <Models />;
  return of === "side" ? <Sideways /> : <OfRuns of={of} />;
}

// The samples stand open where the user has nothing of his own, and are folded below it where he has.
function Framed(props: { title: string; own: boolean; children: ComponentChildren }) {
  const open = useSignal(false);
  if (!props.own)
    return (
      <section class="sample">
        <h2>
          {props.title} <span class="badge">a sample that comes with Riyaz</span>
        </h2>
        {props.children}
      </section>
    );
  return (
    <details class="sample" onToggle={(event) => (open.value = event.currentTarget.open)}>
      <summary>{props.title}: a sample that comes with Riyaz</summary>
      {open.value && props.children}
    </details>
  );
}

function OfRuns({ of }: { of: "runs" | "learn" | "limits" }) {
  const { value, problem } = useLoaded(`samples ${of}`, api.listing);
  if (!value.value) return problem.value ? null : <Waiting />; // the screen itself says what is wrong
  const { runs, samples } = value.value;
  const own = runs.some((run) => OWN[of]?.includes(run.kind));
  if (of === "runs")
    return (
      <Framed title="Finished runs" own={own}>
        <Cards runs={samples} />
      </Framed>
    );
  const run = samples.find((each) => OWN[of]?.includes(each.kind));
  if (!run) return null;
  if (of === "limits")
    return (
      <Framed title="Measured limits of smollm2-135m" own={own}>
        <Shown path={run.path} />
      </Framed>
    );
  return (
    <Framed title="A model that learned to tell stories" own={own}>
      <Learned run={run} />
    </Framed>
  );
}

const WORDS: Readonly<Record<string, string>> = {
  compare: "four ways to adapt smollm2-135m to ten labels, compared",
  pretrain: "a model of 246,336 weights, trained from nothing on little stories",
  ternarize: "the same model with weights -1, 0 and 1",
  limits: "what smollm2-135m cannot do",
};

function Cards({ runs }: { runs: readonly RunEntry[] }) {
  return (
    <ul class="plain cards">
      {runs.map((run) => (
        <li class="card" key={run.path}>
          <div class="card-main">
            <h3>
              <a href={link(run.kind === "limits" ? "limits" : "run", { path: run.path })}>{bare(run.path)}</a>
            </h3>
            <p class="under">{WORDS[run.kind] ?? run.kind}</p>
            {run.pick && (
              <p>
                Pick: <Method name={run.pick} /> {typeof run.score === "number" && number(run.score)}
              </p>
            )}
            {!run.pick && typeof run.score === "number" && <p>{number(run.score)} bits per byte</p>}
          </div>
        </li>
      ))}
    </ul>
  );
}

function Learned({ run }: { run: RunEntry }) {
  const { value, problem } = useLoaded(run.path, () => api.run(run.path));
  const { events } = useEvents(run.path, 0);
  return (
    <>
      <Text />
      <Problem text={problem.value} />
      {value.value ? <Pretraining run={value.value} events={events.value} loss /> : <Waiting />}
      {run.command && <Command text={run.command}>The command of this run</Command>}
    </>
  );
}

// The sample text becomes a file of the user's only where he asks for it.
function Text() {
  const { value } = useLoaded("sample texts", api.samples);
  const { busy, problem, run } = useWork();
  const text = value.value?.texts[0];
  if (!text) return null;
  const take = async () => {
    const path = `uploads/${text.name}`;
    try {
      await api.upload(new File([await api.sampleText(text.name)], text.name));
    } catch (error) {
      if (!(error instanceof Refused && error.status === 409)) throw error; // it was copied before
    }
    go("learn", { text: path });
    scrollTo({ top: 0 });
  };
  return (
    <>
      <p>
        A small model read {text.name}, {bytes(text.bytes)} of little stories about animals, 20 times. Below is what it
        learned. You can train one on the same text.
      </p>
      <div class="actions">
        <button type="button" disabled={busy.value !== ""} onClick={() => void run("Copying …", take)}>
          Copy the text to uploads/{text.name} and learn from it
        </button>
      </div>
      <Problem text={problem.value} />
    </>
  );
}

function Sideways() {
  const { value, problem } = useLoaded("sample answers", async () => {
    const [samples, board] = await Promise.all([api.samples(), api.board()]);
    return { sides: samples.sides, own: board.votes > 0 };
  });
  if (!value.value) return problem.value ? null : <Waiting />;
  return (
    <Framed title="Answers of two models" own={value.value.own}>
      <Asked sides={value.value.sides} />
    </Framed>
  );
}

function Asked({ sides }: { sides: Sides }) {
  return (
    <>
      <p>What each model wrote, right or wrong. Which answer would you prefer?</p>
      {sides.prompts.map((each) => (
        <section key={each.prompt}>
          <h3>{each.prompt}</h3>
          <div class="columns">
            {each.answers.map((answer) => (
              <div key={answer.model} class="column panelled">
                <h4>{answer.model}</h4>
                <Markdown text={answer.text} growing={false} />
              </div>
            ))}
          </div>
        </section>
      ))}
      <Command text={sides.command}>The command of these answers, of at most 90 tokens</Command>
    </>
  );
}

// Where there is no other model two tiny ones answer, or none; that must be said.
function Models() {
  if (!models.value.length)
    return (
      <Empty>
        There is no model to talk to. Start the page with one, such as <code>riyaz ui --model smollm2-135m</code>, or
        chat with the pick of a <a href={link("runs")}>run</a>.
      </Empty>
    );
  return (
    <Empty>
      No model was found, so two samples that come with Riyaz answer. Each has 246,336 weights and has read little
      stories about animals only: it continues such stories and cannot answer questions. For a larger model:{" "}
      <code>riyaz pull smollm2-135m</code>, then start the page again.
    </Empty>
  );
}
