// What comes after a text: the likeliest next tokens as bars that temperature and top-p move, for one model or two.
import { effect, type Signal, signal, useComputed, useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { api, told } from "../api.ts";
import { big, count, drawn, many, number, type Shown, shape, visible } from "../numbers.ts";
import { Bars } from "../parts/bars.tsx";
import { ModelPicker } from "../parts/picker.tsx";
import { Term } from "../parts/term.tsx";
import { Command, Field, Head, Problem, Slider } from "../parts/words.tsx";
import { key, route } from "../route.ts";
import { keep, kept, modelOf, models, quoted } from "../state.ts";
import type { Next } from "../types.ts";

const ASKED = 100; // candidates, for the tail that top-p cuts
const SHOWN = 10;
const PAUSE = 200; // milliseconds without a key before the model is asked
const PACE = 350; // milliseconds between two words of a run
const LONGEST = 60; // words of a run
const ENDS = /^<\|.*\|>$|^<\/?s>$|^<end_of_turn>$|^<eos>$/;

const KEPT = kept("next", { text: "The quick brown fox", first: "", second: "" });
const text = signal(KEPT.text);
const first = signal(KEPT.first);
const second = signal(KEPT.second);
const temperature = signal(1);
const topP = signal(1);
effect(() => keep("next", { text: text.value, first: first.value, second: second.value }));
effect(() => {
  const model = models.value[0];
  if (model && !first.peek()) first.value = model.id;
});

interface Asked {
  readonly found: Signal<Next | null>;
  readonly problem: Signal<string>;
}

function useNext(model: string): Asked {
  const found = useSignal<Next | null>(null);
  const problem = useSignal("");
  const asked = text.value;
  useEffect(() => {
    if (!model || asked.trim() === "") {
      found.value = null;
      return;
    }
    const stopper = new AbortController();
    const soon = setTimeout(() => {
      const body = { model, text: asked, top: ASKED };
      api.next(body, stopper.signal).then(
        (next) => {
          found.value = next;
          problem.value = "";
        },
        (error: unknown) => {
          if (!stopper.signal.aborted) problem.value = told(error);
        },
      );
    }, PAUSE);
    return () => {
      clearTimeout(soon);
      stopper.abort();
    };
  }, [model, asked, key.value]);
  return { found, problem };
}

function shaped(next: Next | null): Shown[] {
  if (!next) return [];
  return shape(next.candidates, temperature.value, topP.value, next.vocabulary, sumOf(next));
}

// The server's sum over the whole vocabulary at the temperature of the slider.
function sumOf(next: Next): number | undefined {
  return next.sums?.find((each) => Math.abs(each.temperature - temperature.value) < 0.001)?.sum;
}

export function NextWord() {
  const given = route.value.query;
  const [wanted, other, sentence] = [given.get("model"), given.get("beside"), given.get("text")];
  useEffect(() => {
    if (wanted) first.value = wanted;
    if (other) second.value = other;
    if (sentence) text.value = sentence;
  }, [wanted, other, sentence]);
  const left = useNext(first.value);
  const right = useNext(second.value);
  const two = second.value !== "";
  return (
    <>
      <Head title="Next word">
        A language model does one thing: it gives every word a <Term of="probability" /> of being the next one. Choose a
        bar and the text goes on.
      </Head>
      <Text asked={left} />
      <div class="fields">
        <ModelPicker label="Model" value={first.value} set={(id) => (first.value = id)} />
        <ModelPicker label="Beside it" value={second.value} none="no other model" set={(id) => (second.value = id)} />
        <Slider
          label="Temperature"
          value={temperature.value}
          min={0}
          max={2}
          step={0.1}
          shown={temperature.value.toFixed(1)}
          set={(value) => (temperature.value = value)}
        />
        <Slider
          label="Top-p"
          value={topP.value}
          min={0.05}
          max={1}
          step={0.05}
          shown={topP.value.toFixed(2)}
          set={(value) => (topP.value = value)}
        />
      </div>
      <div class={two ? "pair" : ""}>
        <Column asked={left} name={two ? first.value : ""} colour={2} />
        {two && <Column asked={right} name={second.value} colour={5} />}
      </div>
      <Story next={left.found.value} />
      <Command text={command(two)} />
    </>
  );
}

function command(two: boolean): string {
  const besides = two && modelOf(second.value)?.parent === first.value;
  const one = `riyaz predict ${quoted(text.value)} --model ${quoted(first.value)}`;
  if (besides) return `${one} --adapter ${quoted(second.value)}`;
  return two ? `${one} && riyaz predict ${quoted(text.value)} --model ${quoted(second.value)}` : one;
}

// The text, and the buttons that make it longer.
function Text({ asked }: { asked: Asked }) {
  const running = useSignal(0); // words that a run has left
  const ended = useSignal(false);
  const next = asked.found.value;
  const put = (candidate: Shown | undefined) => {
    if (!candidate) return;
    ended.value = ENDS.test(candidate.text);
    if (ended.value) running.value = 0;
    else text.value += candidate.text;
  };
  useEffect(() => {
    if (running.value === 0 || next === null || asked.problem.value) return;
    const soon = setTimeout(() => {
      running.value -= 1;
      put(drawn(shaped(next), Math.random()));
    }, PACE);
    return () => clearTimeout(soon);
  }, [next, running.value > 0]);
  return (
    <>
      <Field label="Text" wide>
        <textarea
          class="large"
          rows={2}
          value={text.value}
          onInput={(event) => {
            running.value = 0;
            ended.value = false;
            text.value = event.currentTarget.value;
          }}
        />
      </Field>
      <div class="actions">
        <button type="button" disabled={!next} onClick={() => put(shaped(next)[0])}>
          Add the likeliest
        </button>
        <button type="button" disabled={!next} onClick={() => put(drawn(shaped(next), Math.random()))}>
          Draw one
        </button>
        <button type="button" disabled={!next} onClick={() => (running.value = running.value ? 0 : LONGEST)}>
          {running.value ? "Stop" : "Run"}
        </button>
        <button
          type="button"
          class="small"
          onClick={() => {
            running.value = 0;
            ended.value = false;
            text.value = "The quick brown fox";
          }}
        >
          Begin again
        </button>
        {ended.value && <span class="under">The model would end its text here.</span>}
      </div>
    </>
  );
}

const CLEAR = 0.41; // nats: below it the draw would be from one token

function Column(props: { asked: Asked; name: string; colour: number }) {
  const next = props.asked.found.value;
  const bars = useComputed(() => shaped(props.asked.found.value));
  const about = next !== null && temperature.value !== 1 && sumOf(next) === undefined;
  return (
    <section class="column">
      {props.name && <h2>{props.name}</h2>}
      <Problem text={props.asked.problem.value} />
      {next && (
        <p class="under">
          {count(next.vocabulary)} <Term of="token">tokens</Term> to choose from. The next one is{" "}
          {next.entropy < CLEAR
            ? "almost certain."
            : `about as uncertain as a draw from ${count(Math.exp(next.entropy))} tokens with equal chances.`}
        </p>
      )}
      <Bars
        candidates={bars.value.slice(0, SHOWN)}
        colour={props.colour}
        about={about && temperature.value > 0}
        pick={(candidate) => (text.value += candidate.text)}
        pickName={(candidate) => `Go on with “${visible(candidate.text)}”`}
      />
    </section>
  );
}

// From the text to the bars in three sentences, with this model's own numbers.
function Story({ next }: { next: Next | null }) {
  if (!next) return null;
  const bits = next.entropy / Math.LN2;
  return (
    <section class="story">
      <h2>How the bars came about</h2>
      <p class="pieces">
        {next.tokens.slice(-60).map((token, place) => (
          <span key={place}>{visible(token.text)}</span>
        ))}
      </p>
      <ol>
        <li>
          <b>
            <Term of="embedding">Embedding</Term>.
          </b>{" "}
          The text is {many(next.tokens.length, "token")}; each one is looked up in a table of {count(next.vocabulary)}{" "}
          rows and becomes a <Term of="vector" /> of {count(next.width)} numbers.
        </li>
        <li>
          <b>
            <Term of="layer">Layers</Term>.
          </b>{" "}
          {many(next.layers, "layer")} rewrite the vectors one after the other: <Term of="attention" /> brings in what
          earlier tokens say, and a small network adds what the model has learned; {big(next.parameters)} weights take
          part.
        </li>
        <li>
          <b>
            <Term of="logit">Logits</Term>.
          </b>{" "}
          The last token’s vector is compared with all {count(next.vocabulary)} tokens; the scores become the
          probabilities above, {number(bits, 1)} bits of <Term of="entropy">uncertainty</Term>.
        </li>
      </ol>
    </section>
  );
}
