// The sheet to print: the tasks on the first pages, the answers of the served model on a page of their own.

import { api } from "../api.ts";
import { percent, visible } from "../numbers.ts";
import { Empty, Problem, Waiting } from "../parts/words.tsx";
import { chances, model, useAnswer } from "./asking.ts";
import { RULE, wordsOf } from "./game.tsx";
import type { Guess, Station } from "./station.ts";
import { ROUNDS } from "./texts.ts";
import { Given } from "./walk.tsx";

interface Told {
  readonly lines: readonly string[];
  readonly right: readonly (readonly string[] | null)[];
  readonly solution: string;
}

interface Answers {
  readonly stations: readonly Told[];
  readonly words: readonly { readonly p: number; readonly likeliest: string }[];
}

// Everything that the page of answers says, one request after the other.
async function loadAnswers(name: string, stations: readonly Station<unknown>[]): Promise<Answers> {
  const told: Told[] = [];
  for (const station of stations) {
    const answer = await station.load(name);
    told.push({ lines: station.lines(answer), right: station.right(answer), solution: station.solution(answer) });
  }
  const words = [];
  for (const round of ROUNDS) {
    const [p] = await chances(name, round.text, [round.word]);
    const { candidates } = await api.next({ model: name, text: round.text, top: 1 });
    words.push({ p: p ?? 0, likeliest: candidates[0]?.text ?? "" });
  }
  return { stations: told, words };
}

export function Sheet({ stations }: { stations: readonly Station<unknown>[] }) {
  const { value, problem, again } = useAnswer("sheet", (name) => loadAnswers(name, stations));
  return (
    <div class="paper">
      <div class="actions unprinted">
        <button type="button" class="main" disabled={value === null} onClick={() => print()}>
          Print
        </button>
        <span class="under">
          The answers stand on a page of their own at the end. They are those of {model.value || "no model"}.
        </span>
      </div>
      <Tasks stations={stations} />
      <section class="answers">
        <h2>Answers</h2>
        <Problem text={problem} again={again} />
        {value === null && !problem && (model.value ? <Waiting>The model answers every task …</Waiting> : <NoModel />)}
        {value && <Solved stations={stations} answers={value} />}
      </section>
    </div>
  );
}

function rightOf(guess: Guess, right: readonly string[] | null): string {
  if (right === null) return "Read what it wrote below, and judge.";
  if (right.length === guess.choices.length) return "All are equal for this model.";
  return guess.choices.flatMap(({ id, label }) => (right.includes(id) ? [label] : [])).join(", ");
}

const NoModel = () => <Empty>No model is served, so there are no answers.</Empty>;

function Tasks({ stations }: { stations: readonly Station<unknown>[] }) {
  return (
    <>
      <p>Name: ______________________________</p>
      {stations.map((station, place) => (
        <section key={station.id} class="kept-whole">
          <h2>
            {place + 1}. {station.title}
          </h2>
          <Given station={station} />
          {station.guesses.map((guess) => (
            <div key={guess.question}>
              <p>
                <b>{guess.question}</b>
              </p>
              <p>{guess.choices.map((each) => `☐ ${each.label}`).join("\u2003")}</p>
            </div>
          ))}
          <p>
            <b>{station.question}</b> ______________________________
          </p>
        </section>
      ))}
      <section class="kept-whole">
        <h2>7. Which word comes next?</h2>
        <p>{RULE}</p>
        <ol>
          {ROUNDS.map((round) => (
            <li key={round.text}>
              {round.text} …{" "}
              {wordsOf(round)
                .map((word) => `☐ ${word}`)
                .join("\u2003")}
            </li>
          ))}
        </ol>
      </section>
    </>
  );
}

function Solved({ stations, answers }: { stations: readonly Station<unknown>[]; answers: Answers }) {
  return (
    <>
      <p class="under">
        Computed by {model.value} on {new Date().toLocaleDateString("en")}. Another model gives other numbers.
      </p>
      {stations.map((station, place) => (
        <div key={station.id} class="kept-whole">
          <h3>
            {place + 1}. {station.title}
          </h3>
          <ul>
            {station.guesses.map((guess, at) => (
              <li key={guess.question}>
                {guess.question} <b>{rightOf(guess, answers.stations[place]?.right[at] ?? null)}</b>
              </li>
            ))}
            {answers.stations[place]?.lines.map((line) => (
              <li key={line}>{line}</li>
            ))}
            <li>
              {station.question} <b>{answers.stations[place]?.solution}</b>
            </li>
          </ul>
        </div>
      ))}
      <div class="kept-whole">
        <h3>7. Which word comes next?</h3>
        <ol>
          {ROUNDS.map((round, place) => (
            <li key={round.text}>
              <b>{round.word}</b>: the model gave it {percent(answers.words[place]?.p ?? 0)}. Its likeliest token: “
              {visible(answers.words[place]?.likeliest ?? "")}”.
            </li>
          ))}
        </ol>
      </div>
    </>
  );
}
