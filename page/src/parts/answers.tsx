// The answers to typed questions about one text as bars, which move while the text changes.
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { api, told } from "../api.ts";
import { model, questions, text } from "../decide.ts";
import { percent } from "../numbers.ts";
import { type Answer, answerOf, asked, confidence, names, place, type Question, score } from "../questions.ts";
import { key } from "../route.ts";
import { modelOf } from "../state.ts";
import { Problem } from "./words.tsx";

const PAUSE = 200; // milliseconds without a key before the model is asked
const SHOWN = 10; // bars of a question; of more values the likeliest

interface Found {
  readonly model: string;
  readonly questions: readonly Question[];
  readonly answers: readonly (Answer | null)[];
}

// The answers to the latest text; a request for an earlier one is taken back.
function useAnswers() {
  const found = useSignal<Found | null>(null);
  const problem = useSignal("");
  const [who, what, about] = [model.value, questions.value, text.value];
  useEffect(() => {
    if (!who || !what.length || !about.trim()) {
      found.value = null;
      problem.value = "";
      return;
    }
    const stopper = new AbortController();
    const soon = setTimeout(() => {
      api.decide({ model: who, questions: asked(what), input: about }, stopper.signal).then(
        ({ answers }) => {
          if (stopper.signal.aborted) return;
          found.value = { model: who, questions: what, answers: what.map((_, at) => answerOf(answers[at])) };
          problem.value = "";
        },
        (error: unknown) => {
          if (stopper.signal.aborted) return;
          found.value = null;
          problem.value = told(error);
        },
      );
    }, PAUSE);
    return () => {
      clearTimeout(soon);
      stopper.abort();
    };
  }, [who, what, about, key.value]);
  return { found: found.value, problem: problem.value };
}

export function Answers() {
  const { found, problem } = useAnswers();
  const lines = found?.questions.map((question, at) => line(question, found.answers[at] ?? null)) ?? [];
  return (
    <>
      <Problem text={problem} />
      <p class="hidden" role="status">
        {lines.join("; ")}
      </p>
      {found && (
        <div class="columns answers">
          {found.questions.map((question, at) => (
            <OneAnswer key={question.name} question={question} answer={found.answers[at] ?? null} model={found.model} />
          ))}
        </div>
      )}
    </>
  );
}

function line(question: Question, answer: Answer | null): string {
  if (!answer) return `${question.name}: no answer`;
  return `${question.name}: ${names(question)[place(question, answer)]}, ${percent(confidence(answer))}`;
}

function by(model: string, trained: boolean): string {
  if (trained) return `answered by ${model}, which was trained on it`;
  return `answered without training by ${modelOf(model)?.parent ?? model}`;
}

function OneAnswer({ question, answer, model }: { question: Question; answer: Answer | null; model: string }) {
  if (!answer)
    return (
      <section class="column">
        <h3>{question.name}</h3>
        <p class="under">
          {model} was not trained on this question, and no base is open that could answer it. Ask its own questions, or
          choose a language model.
        </p>
      </section>
    );
  const all = names(question).map((name, at) => ({ name, at, p: answer.p[at] ?? 0 }));
  const few = all.length <= SHOWN ? all : all.sort((a, b) => b.p - a.p).slice(0, SHOWN);
  const best = place(question, answer);
  return (
    <section class="column">
      <h3>
        {question.name}: {names(question)[best]}
      </h3>
      <p class="under">
        confidence <b class="confidence">{percent(confidence(answer))}</b>
        {question.type === "score" && ` · level ${score(answer).toFixed(2)}, from 0 to ${answer.p.length - 1}`}
        {` · ${by(model, answer.trained)}`}
      </p>
      <ol class={`bars counts ${answer.trained ? "b3" : "b2"}`}>
        {few.map(({ name, at, p }) => (
          <li key={at}>
            <div class={at === best ? "row chosen" : "row"}>
              <span class="name">{name}</span>
              <span class="track" aria-hidden="true">
                <span class="fill" style={{ width: `${100 * p}%` }} />
              </span>
              <span class="share">{percent(p)}</span>
            </div>
          </li>
        ))}
      </ol>
      {few.length < answer.p.length && <p class="under">and {answer.p.length - few.length} less likely</p>}
    </section>
  );
}
