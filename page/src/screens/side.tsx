// One prompt, two to four models, and a vote that is kept as a row of preferences.
import { type Signal, signal, useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { api, told } from "../api.ts";
import { count, many, percent, rate } from "../numbers.ts";
import { Samples } from "../parts/later.tsx";
import { Markdown } from "../parts/markdown.tsx";
import { ModelPicker } from "../parts/picker.tsx";
import { Term } from "../parts/term.tsx";
import { Command, Empty, Field, Head, Problem, Wide } from "../parts/words.tsx";
import { go } from "../route.ts";
import { keep, kept, modelOf, models, quoted, useLoaded, useWork } from "../state.ts";
import type { Board as Standings, Vote } from "../types.ts";

interface Said {
  readonly model: string;
  readonly text: Signal<string>;
  readonly state: Signal<"running" | "done" | "failed">;
  readonly note: Signal<string>;
  readonly rate: Signal<number>;
}

const LETTERS = ["A", "B", "C", "D"];
const KEPT = kept("side", { chosen: [] as string[], blind: false });
const chosen = signal<string[]>(KEPT.chosen);
const blind = signal(KEPT.blind);
const prompt = signal("");
const asked = signal("");
const said = signal<Said[]>([]);
const voted = signal("");
let stopper = new AbortController();

// The answers in an order that does not tell who gave them.
function shuffled(names: readonly string[]): string[] {
  const left = [...names];
  const out: string[] = [];
  while (left.length) out.push(...left.splice(Math.floor(Math.random() * left.length), 1));
  return out;
}

function ask(): void {
  stopper.abort();
  stopper = new AbortController();
  asked.value = prompt.value;
  voted.value = "";
  const names = blind.value ? shuffled(chosen.value) : chosen.value;
  said.value = names.map((model) => ({
    model,
    text: signal(""),
    state: signal<"running" | "done" | "failed">("running"),
    note: signal(""),
    rate: signal(0),
  }));
  for (const each of said.value) void read(each, stopper.signal);
  keep("side", { chosen: chosen.value, blind: blind.value });
}

async function read(each: Said, stop: AbortSignal): Promise<void> {
  let text = "";
  let waiting = 0;
  const show = () => {
    cancelAnimationFrame(waiting);
    waiting = 0;
    each.text.value = text;
  };
  try {
    for await (const chunk of api.chat(
      { model: each.model, messages: [{ role: "user", content: asked.value }] },
      stop,
    )) {
      text += chunk.choices[0]?.delta.content ?? "";
      waiting ||= requestAnimationFrame(show);
      each.rate.value = chunk.timings?.predicted_per_second ?? each.rate.value;
    }
    show();
    each.state.value = "done";
  } catch (error) {
    show();
    each.state.value = stop.aborted ? "done" : "failed";
    each.note.value = stop.aborted ? "stopped" : told(error);
  }
}

export function Side() {
  const again = useSignal(0);
  useEffect(() => {
    const known = models.value.map((model) => model.id);
    if (!chosen.value.length && known.length) chosen.value = known.slice(0, 2);
  }, [models.value]);
  const busy = said.value.some((each) => each.state.value === "running");
  const ready = prompt.value.trim() !== "" && chosen.value.length >= 2;
  return (
    <>
      <Head title="Side by side">
        One <Term of="prompt" />, two to four models. Your vote is kept as a row of preferences that can be trained on.
      </Head>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (ready && !busy) ask();
        }}
      >
        <div class="fields">
          {chosen.value.map((id, place) => (
            <ModelPicker
              key={place}
              label={`Model ${LETTERS[place]}`}
              value={id}
              none={place > 1 ? "remove" : undefined}
              set={(next) => {
                chosen.value = chosen.value.map((each, at) => (at === place ? next : each)).filter(Boolean);
              }}
            />
          ))}
        </div>
        <div class="actions">
          {chosen.value.length < 4 && (
            <button
              type="button"
              class="small"
              onClick={() => (chosen.value = [...chosen.value, models.value[0]?.id ?? ""])}
            >
              Add a model
            </button>
          )}
          {models.value.length < 2 && (
            <span class="under">
              Only one model is served. Start riyaz ui with a second --model, or open the pick of a run.
            </span>
          )}
          <label class="check">
            <input
              type="checkbox"
              checked={blind.value}
              onChange={(event) => (blind.value = event.currentTarget.checked)}
            />
            Hide the names until I have voted
          </label>
        </div>
        <Field label="Prompt" wide>
          <textarea rows={2} value={prompt.value} onInput={(event) => (prompt.value = event.currentTarget.value)} />
        </Field>
        <div class="actions">
          {busy ? (
            // A button of its own: as the same one it would be "Ask" before the browser has done with this click.
            <button key="stop" type="button" class="main" onClick={() => stopper.abort()}>
              Stop
            </button>
          ) : (
            <button key="ask" type="submit" class="main" disabled={!ready}>
              Ask {many(chosen.value.length, "model")}
            </button>
          )}
        </div>
      </form>
      {said.value.length > 0 && (
        <div class="columns">
          {said.value.map((each, place) => (
            <Answer key={place} each={each} place={place} />
          ))}
        </div>
      )}
      {said.value.length > 0 && !busy && <Votes done={() => (again.value += 1)} />}
      <Board round={again.value} />
      <Samples of="side" />
      {ready && (
        <Command text={chosen.value.map((id) => `riyaz generate ${quoted(id)} ${quoted(prompt.value)}`).join(" && ")} />
      )}
    </>
  );
}

function Answer({ each, place }: { each: Said; place: number }) {
  const hidden = blind.value && voted.value === "";
  return (
    <section class="column panelled" aria-label={`Answer ${LETTERS[place]}`}>
      <h2>{hidden ? `Model ${LETTERS[place]}` : `${LETTERS[place]}: ${each.model}`}</h2>
      <Markdown text={each.text.value} growing={each.state.value === "running"} />
      {each.state.value === "failed" ? <Problem text={each.note.value} /> : <p class="under">{each.note.value}</p>}
      {!hidden && each.rate.value > 0 && <p class="under">{rate(each.rate.value)} tokens a second</p>}
      {!hidden && modelOf(each.model) === undefined && <p class="under">This model is no longer served.</p>}
    </section>
  );
}

function Votes({ done }: { done: () => void }) {
  const problem = useSignal("");
  const both = said.value.map((each) => ({ model: each.model, text: each.text.value }));
  // A best of three or four is a preference over each of the others.
  const votes = (best: number): Vote[] => {
    const a = both[best];
    return a ? both.flatMap((b, at) => (at === best ? [] : [{ prompt: asked.value, a, b, choice: "a" as const }])) : [];
  };
  const even = (choice: "tie" | "bad"): Vote[] => {
    const [a, ...others] = both;
    return a ? others.map((b) => ({ prompt: asked.value, a, b, choice })) : [];
  };
  const send = async (rows: readonly Vote[], name: string) => {
    try {
      for (const row of rows) await api.vote(row);
      voted.value = name;
      problem.value = "";
      done();
    } catch (error) {
      problem.value = told(error);
    }
  };
  if (voted.value)
    return (
      <p class="note votes" role="status">
        Kept: {voted.value}.
      </p>
    );
  return (
    <div class="votes">
      <p class="under">
        Which answer is better?
        {new Set(both.map((each) => each.model)).size < both.length &&
          " Two are from one model: a vote between them is kept as a row, but does not count on the board."}
      </p>
      <div class="actions">
        {both.map((_, place) => (
          <button type="button" key={place} onClick={() => void send(votes(place), `${LETTERS[place]} is better`)}>
            {LETTERS[place]}
          </button>
        ))}
        <button type="button" onClick={() => void send(even("tie"), "equally good")}>
          Equally good
        </button>
        <button type="button" onClick={() => void send(even("bad"), "all are bad")}>
          All are bad
        </button>
      </div>
      <Problem text={problem.value} />
    </div>
  );
}

function Board({ round }: { round: number }) {
  const { value, problem } = useLoaded(`board ${round}`, api.board);
  const board = value.value;
  return (
    <section>
      <h2>Board</h2>
      <Problem text={problem.value} />
      {board && board.models.length === 0 && <Empty>No votes yet.</Empty>}
      {board && board.models.length > 0 && (
        <Wide name="Board">
          <table>
            <caption>
              Wins of the votes that were decided, with 95 % intervals; every vote is a row of {board.path}, and one
              between two answers of the same model is not counted
            </caption>
            <thead>
              <tr>
                <th scope="col">model</th>
                <th scope="col">share of wins</th>
                <th scope="col" class="figure">
                  wins
                </th>
                <th scope="col" class="figure">
                  losses
                </th>
                <th scope="col" class="figure">
                  undecided
                </th>
              </tr>
            </thead>
            <tbody>
              {board.models.map((row) => (
                <tr key={row.model}>
                  <th scope="row">{row.model}</th>
                  <td>
                    {row.share === null ? "–" : percent(row.share)}
                    {row.low !== null && row.high !== null && (
                      <span class="under">
                        {percent(row.low)} to {percent(row.high)}
                      </span>
                    )}
                  </td>
                  <td class="figure">{row.wins}</td>
                  <td class="figure">{row.losses}</td>
                  <td class="figure">{row.undecided}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </Wide>
      )}
      {board && board.votes > 0 && board.training.methods.length > 0 && <Train {...board.training} />}
    </section>
  );
}

// Begins a run that learns from the votes, on the base of one of the models.
function Train({ votes, prompts, least, methods }: Standings["training"]) {
  const { busy, problem, run } = useWork();
  const method = useSignal(methods[0] ?? "");
  const model = useSignal("");
  const bases = models.value.filter((each) => each.parent === null && each.meta.n_params).map((each) => each.id);
  const first = chosen.value[0] ?? "";
  const base = [model.value, modelOf(first)?.parent, first, ...bases].find((id) => id && bases.includes(id)) ?? "";
  const short = prompts < least;
  const why = short
    ? `Training needs ${count(least)} different prompts; ${many(votes, "vote")} on ${count(prompts)} can be learned from so far.`
    : base
      ? "The run measures the method beside the base."
      : "There is no model to train.";
  const start = () =>
    run("Starting …", async () => {
      go("run", { path: (await api.learn(base, method.value)).path });
    });
  return (
    <>
      <div class="fields">
        <Choice label="Method" value={method} shown={method.value} all={methods} />
        <Choice label="Base model" value={model} shown={base} all={bases} />
      </div>
      <div class="actions">
        <button type="button" disabled={short || !base || busy.value !== ""} onClick={() => void start()}>
          {short ? "Train on the votes" : `Train on these ${many(votes, "vote")}`}
        </button>
        <span class="under">{busy.value || why} Ties and equal answers teach nothing.</span>
      </div>
      <Problem text={problem.value} />
    </>
  );
}

function Choice(props: { label: string; value: Signal<string>; shown: string; all: readonly string[] }) {
  return (
    <Field label={props.label}>
      <select value={props.shown} onChange={(event) => (props.value.value = event.currentTarget.value)}>
        {props.all.map((name) => (
          <option key={name}>{name}</option>
        ))}
      </select>
    </Field>
  );
}
