// A station on the screen: its text, the guess of the pupil, then the answer of the model.
import { useEffect, useRef } from "preact/hooks";
import { Problem, Waiting } from "../parts/words.tsx";
import { link } from "../route.ts";
import { guesses, isFocusLost, opened, useAnswer } from "./asking.ts";
import type { Guess, Station } from "./station.ts";

export const placeOf = (station: Station<unknown>, place: number) => `${station.id}.${place}`;

export function Walk({ station }: { station: Station<unknown> }) {
  const heading = useRef<HTMLHeadingElement>(null);
  const seen = useRef("");
  const asked = useRef("");
  const shown = opened.value.includes(station.id);
  const complete = station.guesses.every((_, place) => guesses.value[placeOf(station, place)]);
  useEffect(() => {
    if (seen.current) heading.current?.focus(); // the first station keeps the focus where it is
    seen.current = station.id;
  }, [station.id]);
  return (
    <section>
      <h2 ref={heading} tabIndex={-1}>
        {station.title}
      </h2>
      {station.text.map((line) => (
        <p key={line}>{line}</p>
      ))}
      <h3>Task</h3>
      <Given station={station} />
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (!complete || shown) return;
          asked.current = station.id;
          opened.value = [...opened.value, station.id];
        }}
      >
        {station.guesses.map((guess, place) => (
          <Choices key={guess.question} guess={guess} name={placeOf(station, place)} locked={shown} />
        ))}
        {!shown && (
          <div class="actions">
            <button type="submit" class="main" disabled={!complete}>
              Ask the model
            </button>
            {!complete && <span class="under">Guess first. Then the model answers.</span>}
          </div>
        )}
      </form>
      {shown && <Told key={station.id} station={station} asked={asked.current === station.id} />}
    </section>
  );
}

export function Given({ station }: { station: Station<unknown> }) {
  return (
    <>
      <p>{station.task}</p>
      <ul>
        {station.given.map(({ text, code }) => (
          <li key={text} class="as-is" lang={code}>
            {text}
          </li>
        ))}
      </ul>
    </>
  );
}

function Choices({ guess, name, locked }: { guess: Guess; name: string; locked: boolean }) {
  const choose = (id: string) => {
    guesses.value = { ...guesses.value, [name]: id };
  };
  return (
    <fieldset class="methods" disabled={locked}>
      <legend>Your guess: {guess.question}</legend>
      {guess.choices.map(({ id, label }) => (
        <label key={id} class="check">
          <input type="radio" name={name} checked={guesses.value[name] === id} onChange={() => choose(id)} />
          {label}
        </label>
      ))}
    </fieldset>
  );
}

const labelOf = (guess: Guess, id: string) => guess.choices.find((each) => each.id === id)?.label ?? id;

// What a guess was worth, in one sentence.
function verdict(guess: Guess, own: string, right: readonly string[] | null): string {
  if (right === null) return `Your guess: ${labelOf(guess, own)}. Read the answer and judge it yourselves.`;
  const names = right.map((id) => labelOf(guess, id)).join(", ");
  if (right.length === guess.choices.length)
    return "Your guess cannot be right or wrong: all are equal for this model.";
  return `Your guess: ${labelOf(guess, own)}. The model's answer: ${names}. ${right.includes(own) ? "You were right." : "You were not right."}`;
}

// `asked`: just now, by a button that is gone, so the answer takes the focus.
function Told({ station, asked }: { station: Station<unknown>; asked: boolean }) {
  const { value, problem, milliseconds, again } = useAnswer(station.id, (model) => station.load(model));
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    if (asked && isFocusLost()) heading.current?.focus();
  }, [value]);
  if (problem) return <Problem text={problem} again={again} />;
  if (value === null) return <Waiting>The model computes the answer …</Waiting>;
  const right = station.right(value);
  return (
    <div class="told">
      <h3 ref={heading} tabIndex={-1}>
        The answer of the model
      </h3>
      <div role="status">
        {station.guesses.map((guess, place) => (
          <p key={guess.question}>
            <b>{verdict(guess, guesses.value[placeOf(station, place)] ?? "", right[place] ?? null)}</b>
          </p>
        ))}
      </div>
      <ul>
        {station.lines(value).map((line) => (
          <li key={line}>{line}</li>
        ))}
      </ul>
      {station.shown(value)}
      <h3>What to notice</h3>
      <ul>
        {station.notice.map((line) => (
          <li key={line}>{line}</li>
        ))}
      </ul>
      <h3>A question</h3>
      <p>{station.question}</p>
      <details key={station.id}>
        <summary>Show the answer to the question</summary>
        <p>{station.solution(value)}</p>
      </details>
      <p class="under">
        Answered in {(milliseconds / 1000).toFixed(1)} s.{" "}
        <a href={link(station.more.screen, station.more.query)}>Go on with this in {station.more.name}</a>
      </p>
    </div>
  );
}
