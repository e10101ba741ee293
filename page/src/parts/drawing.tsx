// Next word: temperature, top-k and top-p move the distribution, and a text grows by drawing from it, word by word.
import { signal, useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { at, type Read, text, write } from "../inside.ts";
import { drawn, type Shown, shape, visible } from "../numbers.ts";
import { Bars } from "./bars.tsx";
import { Term } from "./term.tsx";
import { Slider } from "./words.tsx";

const SHOWN = 10;
const ALL = 51; // the place of the slider behind the largest top-k
const PACE = 250; // milliseconds between two words of a run
const LONGEST = 40; // words of a run
const ENDS = /^<\|.*\|>$|^<\/?s>$|^<end_of_turn>$|^<eos>$/;
const temperature = signal(1);
const topK = signal(ALL);
const topP = signal(1);

// As the engine draws: the k likeliest, temperature, then the fewest of the likeliest that reach top-p.
function shaped(read: Read): Shown[] {
  const [t, k] = [temperature.value, topK.value];
  if (k < ALL) {
    const first = read.candidates.slice(0, k);
    return shape(first, t, topP.value, first.length, logOf(first, t));
  }
  const sum = read.sums.find((each) => Math.abs(each.temperature - t) < 0.001)?.sum;
  return shape(read.candidates, t, topP.value, read.model.vocabulary, sum);
}

function logOf(first: Read["candidates"], t: number): number {
  const most = Math.max(...first.map((each) => each.logprob / t));
  return most + Math.log(first.reduce((sum, each) => sum + Math.exp(each.logprob / t - most), 0));
}

export function Drawing({ read }: { read: Read }) {
  const running = useSignal(0); // words that a run has left
  const ended = useSignal(false);
  const shown = shaped(read);
  const last = read.at === read.tokens.length - 1;
  const current = last && read.of.text === text.value;
  const put = (token: Shown | undefined) => {
    if (!token) return;
    ended.value = ENDS.test(token.text);
    if (ended.value) running.value = 0;
    else write(text.value + token.text);
  };
  useEffect(() => {
    if (!running.value || !current) return;
    const soon = setTimeout(() => {
      running.value -= 1;
      put(drawn(shaped(read), Math.random()));
    }, PACE);
    return () => clearTimeout(soon);
  }, [read, current, running.value > 0]);
  return (
    <section>
      <h2>Next word</h2>
      <p class="under">
        What comes after “{visible(read.tokens[read.at]?.text ?? "")}”. Choose a bar, or draw: the{" "}
        <Term of="probability" /> of a token is the length of its bar. <Term of="temperature">Temperature</Term>,{" "}
        <Term of="top-k" /> and <Term of="top-p" /> change it.
      </p>
      <div class="fields">
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
          label="Top-k"
          value={topK.value}
          min={1}
          max={ALL}
          step={1}
          shown={topK.value < ALL ? String(topK.value) : "all"}
          set={(value) => (topK.value = value)}
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
      <Bars
        candidates={shown.slice(0, SHOWN)}
        pick={current ? put : undefined}
        pickName={(token) => `Go on with “${visible(token.text)}”`}
      />
      <div class="actions">
        <button type="button" disabled={!current} onClick={() => put(drawn(shown, Math.random()))}>
          Draw one
        </button>
        <button
          type="button"
          disabled={!current && !running.value}
          onClick={() => (running.value = running.value ? 0 : LONGEST)}
        >
          {running.value ? "Stop" : "Draw word by word"}
        </button>
        {!last && (
          <button type="button" class="small" onClick={() => (at.value = -1)}>
            Go to the last token, where the text goes on
          </button>
        )}
        {ended.value && <span class="under">The model would end its text here.</span>}
      </div>
    </section>
  );
}
