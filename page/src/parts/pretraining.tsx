// A model that is trained from nothing: loss and bits per byte, its texts through time, the next word before and after.
import { signal } from "@preact/signals";
import type { RunEvent } from "../follow.ts";
import { count, duration, megabytes, number, percent, visible } from "../numbers.ts";
import type { Run } from "../types.ts";
import { Curve, type Line } from "./curve.tsx";
import { Learned } from "./later.tsx";
import { Term } from "./term.tsx";
import { Empty, Fact, Fold } from "./words.tsx";

interface Samples {
  readonly step: number;
  readonly texts: readonly { prompt: string; text: string }[];
  readonly next?: { prompt: string; words: readonly { text: string; p: number }[] } | null;
}

interface Facts {
  readonly model?: { family: string; layers: number; width: number; context: number; parameters: number } | null;
  readonly text?: { bytes?: number; train_tokens?: number } | null;
  readonly plan?: { steps?: number; batch_size?: number } | null;
  readonly length?: number | null;
  readonly result?: { valid_loss: number; bits_per_byte: number } | null;
  readonly cost?: { seconds: number; tokens_s: number; peak_rss_mb: number } | null;
}

type Pair = [number, number];

function series(events: readonly RunEvent[], name: string): Pair[] {
  const found = new Map<number, number>(); // a resumed run repeats steps
  for (const event of events) {
    const value = event[name];
    if (typeof event.step === "number" && typeof value === "number") found.set(event.step, value);
  }
  return [...found].sort(([a], [b]) => a - b);
}

const MOST = 1500; // points of a curve

function thinned(points: Pair[]): Pair[] {
  const every = Math.ceil(points.length / MOST);
  return every <= 1 ? points : points.filter((_, place) => place % every === 0 || place === points.length - 1);
}

// `loss`: its curves are open even if the run is done.
export function Pretraining(props: { run: Run; events: readonly RunEvent[]; loss?: boolean }) {
  const { run, events } = props;
  const facts = (run.document ?? run) as Facts;
  const rows = events.filter((event) => event.file !== "samples" && typeof event.step === "number");
  const samples = events.filter((event) => Array.isArray(event.texts)) as unknown as Samples[];
  const loss = thinned(series(rows, "loss"));
  const valid = series(rows, "valid_loss");
  const bits = series(rows, "bits_per_byte");
  const losses: Line[] = [
    { name: "training", colour: 2, points: loss },
    { name: "held-out text", colour: 5, points: valid, dots: true },
  ].filter((line) => line.points.length > 0);
  const last = rows.at(-1);
  const steps = facts.length ?? facts.plan?.steps ?? 0;
  const open = run.state !== "done"; // of a finished run the texts show, and the rest opens on demand
  return (
    <>
      <Now run={run} facts={facts} last={last} steps={steps} />
      {losses.length > 0 ? (
        <Fold title="Loss while training" open={open || props.loss}>
          <Curve title="Loss in nats per token" x="step" lines={losses} />
          {bits.length > 1 && (
            <Curve
              title="Bits per byte of held-out text"
              x="step"
              height={200}
              lines={[{ name: "bits per byte", colour: 3, points: bits, dots: true }]}
            />
          )}
        </Fold>
      ) : (
        <Empty>No step is done yet.</Empty>
      )}
      {samples.length > 0 && (
        <Learned
          path={run.path}
          open={open}
          steps={rows}
          validations={samples.length}
          tokens={(facts.plan?.batch_size ?? 0) * (facts.model?.context ?? 0)}
        />
      )}
      {samples.length > 0 && <Texts samples={samples} open={open} />}
    </>
  );
}

function Now({ run, facts, last, steps }: { run: Run; facts: Facts; last: RunEvent | undefined; steps: number }) {
  const step = last?.step ?? 0;
  const pace = typeof last?.seconds === "number" && step > 0 ? last.seconds / step : null;
  const left = run.state === "running" && pace !== null && steps > step ? pace * (steps - step) : null;
  return (
    <dl class="tiles">
      {facts.model && (
        <Fact
          name={<Term of="parameter">parameters</Term>}
          under={`${facts.model.layers} layers, width ${facts.model.width}`}
        >
          {count(facts.model.parameters)}
        </Fact>
      )}
      {steps > 0 && (
        <Fact name={<Term of="step" />} under={left === null ? "" : `${duration(left)} left`}>
          {count(step)} of {count(steps)}
        </Fact>
      )}
      {facts.result && (
        <Fact name={<Term of="bits per byte" />} under={`held-out loss ${number(facts.result.valid_loss)}`}>
          {number(facts.result.bits_per_byte)}
        </Fact>
      )}
      {facts.cost && (
        <Fact name="time" under={`${count(facts.cost.tokens_s)} tokens a second, ${megabytes(facts.cost.peak_rss_mb)}`}>
          {duration(facts.cost.seconds)}
        </Fact>
      )}
    </dl>
  );
}

const at = signal(1); // the place in time, as a share

function Texts({ samples, open }: { samples: readonly Samples[]; open: boolean }) {
  const place = Math.round(at.value * (samples.length - 1));
  const shown = samples[place];
  const [before, after] = [samples[0], samples.at(-1)];
  if (!shown) return null;
  return (
    <>
      <section>
        <h2>What it writes</h2>
        <label class="field slider">
          <span>
            After step <span class="output">{count(shown.step)}</span>
          </span>
          <input
            type="range"
            min={0}
            max={Math.max(1, samples.length - 1)}
            step={1}
            value={place}
            disabled={samples.length < 2}
            onInput={(event) => (at.value = Number(event.currentTarget.value) / Math.max(1, samples.length - 1))}
          />
        </label>
        <ul class="plain samples">
          {shown.texts.map((each) => (
            <li key={each.prompt} class="as-is">
              <b>{each.prompt}</b>
              {each.text}
            </li>
          ))}
        </ul>
      </section>
      {before?.next && after?.next && after.step > before.step && (
        <Fold title="The next word, before and after" open={open}>
          <p class="under">
            After “{after.next.prompt}”: before training (step {before.step}), and after step {after.step}
          </p>
          <div class="pair">
            <Words words={before.next.words} colour={1} most={most(before, after)} />
            <Words words={after.next.words} colour={2} most={most(before, after)} />
          </div>
        </Fold>
      )}
    </>
  );
}

const most = (...all: Samples[]): number =>
  Math.max(...all.flatMap((each) => each.next?.words.map((word) => word.p) ?? []), 0.01);

// Bars on one scale for both sides: before training all of them are near zero.
function Words(props: { words: readonly { text: string; p: number }[]; colour: number; most: number }) {
  return (
    <ol class={`bars b${props.colour}`}>
      {props.words.map((word, place) => (
        <li key={`${word.text}-${place}`}>
          <div class="row">
            <span class="word">{visible(word.text)}</span>
            <span class="track" aria-hidden="true">
              <span class="fill" style={{ width: `${(100 * word.p) / props.most}%` }} />
            </span>
            <span class="share">{percent(word.p)}</span>
          </div>
        </li>
      ))}
    </ol>
  );
}
