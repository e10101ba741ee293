// The guessing game: which word comes next? Human against model.
import { signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { api } from "../api.ts";
import { count, many, number, percent, visible } from "../numbers.ts";
import { Field, Problem, Wide } from "../parts/words.tsx";
import { useWork } from "../state.ts";
import { chances, isFocusLost, model } from "./asking.ts";
import { ROUNDS, type Round } from "./texts.ts";

export const RULE =
  "You get 1 point for the real word; the model gets as many points as the probability that it gave to the real word, from 0 to 1.";

interface Played {
  readonly round: Round;
  readonly said: string;
  readonly model: string;
  readonly p: number; // of the real word
  readonly own: number | null; // of the word that was said
  readonly likeliest: string;
}

const played = signal<readonly Played[]>([]);
const typing = signal(false);
const typed = signal("");

const alike = (a: string, b: string) => a.trim().toLowerCase() === b.trim().toLowerCase();

// The four words of a round in the order of the alphabet, so that their order tells nothing.
export const wordsOf = ({ word, others }: Round): string[] => [word, ...others].sort();

async function play(round: Round, said: string): Promise<void> {
  const name = model.value;
  const [p, own] = await chances(name, round.text, alike(said, round.word) ? [round.word] : [round.word, said]);
  const { candidates } = await api.next({ model: name, text: round.text, top: 1 });
  if (played.peek().some((each) => each.round === round)) return;
  const shares = { p: p ?? 0, own: (alike(said, round.word) ? p : own) ?? null };
  played.value = [...played.value, { round, said, model: name, ...shares, likeliest: candidates[0]?.text ?? "" }];
  typed.value = "";
}

export function Game() {
  const { busy, problem, run } = useWork();
  const at = played.value.length;
  const round = ROUNDS[at];
  const last = played.value.at(-1);
  const heading = useRef<HTMLHeadingElement>(null);
  const before = useRef(at);
  useEffect(() => {
    if (before.current !== at && isFocusLost()) heading.current?.focus(); // the chosen word is gone
    before.current = at;
  }, [at]);
  const answer = (said: string) => {
    if (round && said.trim() && !busy.value) void run("The model guesses …", () => play(round, said.trim()));
  };
  return (
    <section>
      <h2 tabIndex={-1} ref={round ? undefined : heading}>
        Which word comes next?
      </h2>
      <p>{RULE}</p>
      <p class="under">
        You see four words, and the model chooses among all of its tokens. Type the word to play without the four words.
      </p>
      <Score />
      {last && <Outcome last={last} />}
      {round && (
        <>
          <h3 tabIndex={-1} ref={heading}>
            Text {at + 1} of {ROUNDS.length}
          </h3>
          <p class="lead">{round.text} …</p>
          {typing.value ? (
            <form
              onSubmit={(event) => {
                event.preventDefault();
                answer(typed.value);
              }}
            >
              <div class="narrow">
                <Field label="The next word">
                  <input
                    value={typed.value}
                    maxLength={40}
                    autocomplete="off"
                    onInput={(event) => (typed.value = event.currentTarget.value)}
                  />
                </Field>
              </div>
              <div class="actions">
                <button type="submit" class="main" disabled={!typed.value.trim() || busy.value !== ""}>
                  This word
                </button>
              </div>
            </form>
          ) : (
            <div class="actions">
              {wordsOf(round).map((word) => (
                <button key={word} type="button" disabled={busy.value !== ""} onClick={() => answer(word)}>
                  {word}
                </button>
              ))}
            </div>
          )}
          <label class="check">
            <input
              type="checkbox"
              checked={typing.value}
              onChange={(event) => (typing.value = event.currentTarget.checked)}
            />
            Type the word
          </label>
        </>
      )}
      {busy.value && (
        <p class="waiting" role="status">
          {busy.value}
        </p>
      )}
      <Problem text={problem.value} />
      {at > 0 && (
        <div class="actions">
          <button type="button" class="small" onClick={() => (played.value = [])}>
            Begin the game again
          </button>
        </div>
      )}
      {at > 0 && <Rounds />}
    </section>
  );
}

function Outcome({ last }: { last: Played }) {
  const { round, said, p, own, likeliest } = last;
  return (
    <p class="note" role="status">
      {round.text} <b>{round.word}</b>. {alike(said, round.word) ? "You were right." : `You chose “${said}”.`} The model
      gave the real word {percent(p)}
      {!alike(said, round.word) && own !== null && `, and yours ${percent(own)}`}. Its likeliest token was “
      {visible(likeliest)}”.
    </p>
  );
}

function Score() {
  const rows = played.value;
  const hits = rows.filter((each) => alike(each.said, each.round.word)).length;
  const model = rows.reduce((sum, each) => sum + each.p, 0);
  return (
    <dl class="tiles">
      <div>
        <dt>You</dt>
        <dd>
          <b>{count(hits)}</b>
          <span>of {many(rows.length, "text")}</span>
        </dd>
      </div>
      <div>
        <dt>The model</dt>
        <dd>
          <b>{number(model, 2)}</b>
          <span>of {many(rows.length, "text")}</span>
        </dd>
      </div>
    </dl>
  );
}

function Rounds() {
  return (
    <Wide name="The texts that were played">
      <table>
        <caption>Every text that was played, with the real word</caption>
        <thead>
          <tr>
            <th scope="col">text</th>
            <th scope="col">real word</th>
            <th scope="col">you</th>
            <th scope="col" class="figure">
              the model
            </th>
          </tr>
        </thead>
        <tbody>
          {played.value.map((each) => (
            <tr key={each.round.text}>
              <th scope="row">{each.round.text}</th>
              <td>{each.round.word}</td>
              <td>{each.said}</td>
              <td class="figure">{percent(each.p)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </Wide>
  );
}
