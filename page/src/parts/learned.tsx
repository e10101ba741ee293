// What a training run recorded of itself: at every validation the loss of each token of a fixed text, the next word of a
// fixed sentence layer by layer, the gradients by layer, and the four lines of the program that do a step.
import { signal, useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { api, told } from "../api.ts";
import type { RunEvent } from "../follow.ts";
import { count, number, percent, visible } from "../numbers.ts";
import { Columns } from "./columns.tsx";
import { Fold, Problem, Slider, Wide } from "./words.tsx";

interface Line {
  readonly step: number;
  readonly text: readonly { text: string; nats: number | null }[];
  readonly sentence: string;
  readonly lens: readonly (readonly { text: string; p: number }[])[];
  readonly gradients: readonly number[] | null;
  readonly answer?: number; // the place in the text from which on training counts the tokens; none: it counts all
}

interface Part {
  readonly part: "forward" | "loss" | "backward" | "step";
  readonly line: number;
  readonly text: string;
}

export interface LearnedProps {
  readonly path: string;
  readonly open?: boolean; // when it appears
  readonly steps: readonly RunEvent[]; // the run's steps with their numbers
  readonly validations: number; // how many the page knows of: with another number the file has new lines
  readonly tokens: number; // that a step reads; 0: not known
  readonly arm?: string; // of a comparison, whose part has a title already
}

export interface ArmsProps {
  readonly path: string;
  readonly arms: readonly string[]; // that have a record
  readonly pick?: string | null;
  readonly events: readonly RunEvent[]; // of the whole comparison
}

const at = signal(1); // the place in time, as a share

// The arms of a comparison, one at a time: the pick first.
export function LearnedArms({ path, arms, pick, events }: ArmsProps) {
  const chosen = useSignal("");
  const first = pick && arms.includes(pick) ? pick : (arms[0] ?? "");
  const arm = arms.includes(chosen.value) ? chosen.value : first;
  const steps = events.flatMap((event) =>
    event.phase === "train" && event.metrics && (event.method || event.arm) === arm
      ? [{ ...event.metrics, step: event.done }]
      : [],
  ) as RunEvent[];
  return (
    <>
      {arms.length > 1 && (
        <label class="field narrow">
          <span>Method</span>
          <select value={arm} onChange={(event) => (chosen.value = event.currentTarget.value)}>
            {arms.map((each) => (
              <option key={each}>{each}</option>
            ))}
          </select>
        </label>
      )}
      <Learned
        key={arm}
        path={path}
        arm={arm}
        steps={steps}
        validations={steps.filter((each) => "valid_loss" in each).length}
        tokens={0}
      />
    </>
  );
}

export function Learned({ path, open, steps, validations, tokens, arm }: LearnedProps) {
  const lines = useSignal<readonly Line[]>([]);
  const program = useSignal<readonly Part[]>([]);
  const problem = useSignal("");
  useEffect(() => {
    const after = lines.value.at(-1)?.step ?? -1;
    api.learned<Line, Part>(path, after, arm).then(
      (found) => {
        lines.value = [...lines.value.filter((line) => line.step <= after), ...found.lines];
        program.value = found.program;
        problem.value = "";
      },
      (error) => {
        problem.value = told(error);
      },
    );
  }, [path, validations]);
  const last = lines.value.length - 1;
  const place = Math.max(0, Math.round(at.value * last));
  const line = lines.value[place];
  if (!line) return <Problem text={problem.value} />;
  const step = steps.find((each) => each.step === line.step);
  const shown = (
    <>
      <Problem text={problem.value} />
      <Slider
        label="After step"
        value={place}
        min={0}
        max={Math.max(1, last)}
        step={1}
        shown={line.step ? count(line.step) : "0: before training"}
        set={(value) => (at.value = value / Math.max(1, last))}
      />
      <Text line={line} most={largest(lines.value[0] ?? line)} />
      <Program program={program.value} line={line} step={step} tokens={tokens} />
      <Gradients line={line} />
      <Lens line={line} />
    </>
  );
  return (
    <div class="learned">
      {arm ? (
        shown
      ) : (
        <Fold title="How it learns" open={open}>
          {shown}
        </Fold>
      )}
    </div>
  );
}

// Of the tokens that training counts.
function mean(line: Line): number {
  const nats = line.text.slice(line.answer).flatMap((each) => (each.nats === null ? [] : [each.nats]));
  return nats.reduce((sum, each) => sum + each, 0) / Math.max(1, nats.length);
}

const largest = (line: Line): number => Math.max(0.01, ...line.text.map((each) => each.nats ?? 0));

function Text({ line, most }: { line: Line; most: number }) {
  return (
    <>
      <h3>
        {line.answer === undefined
          ? "A text that it does not train on"
          : "A validation row: the end of its prompt, and its answer"}
      </h3>
      <p class="under">
        The loss of a token is −log of the probability that the model gave it: 0 for a token that it was sure of. The
        mean of {line.answer === undefined ? "this text" : "the answer, in bold type,"} is {number(mean(line), 2)} nats.
        {line.answer !== undefined && " Only answers count in training."} The stronger the colour, the larger the loss;
        full colour is {number(most, 1)} nats, the largest in the first record.
      </p>
      <p class="tokens-line">
        {line.text.map((each, place) => (
          <span
            key={place}
            class={line.answer !== undefined && place >= line.answer ? "t answer" : "t"}
            style={{ background: shade((each.nats ?? 0) / most) }}
            title={each.nats === null ? "the first token" : `${number(each.nats, 2)} nats`}
          >
            {each.text.trim() === "" ? visible(each.text) : each.text}
          </span>
        ))}
      </p>
      <details>
        <summary>Every loss as a number</summary>
        <Wide name="Loss of every token">
          <table>
            <thead>
              <tr>
                <th scope="col">token</th>
                <th scope="col" class="figure">
                  loss in nats
                </th>
              </tr>
            </thead>
            <tbody>
              {line.text.map((each, place) => (
                <tr key={place}>
                  <th scope="row" class="word">
                    {visible(each.text)}
                  </th>
                  <td class="figure">{each.nats === null ? "–" : number(each.nats, 2)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </Wide>
      </details>
    </>
  );
}

const shade = (share: number): string =>
  `color-mix(in srgb, var(--c6) ${Math.round(45 * Math.min(1, share))}%, transparent)`;

interface Made {
  readonly program: readonly Part[];
  readonly line: Line;
  readonly step: RunEvent | undefined;
  readonly tokens: number;
}

const figure = (step: RunEvent | undefined, name: string): number | null => {
  const value = step?.[name];
  return typeof value === "number" ? value : null;
};

// What each line of the program made in this step; the lines are those of the file that ran.
function Program({ program, line, step, tokens }: Made) {
  if (!program.length || !line.step) return null;
  const [loss, norm, rate] = ["loss", "norm", "learning_rate"].map((name) => figure(step, name));
  const moves = line.answer === undefined ? "every weight moves" : "every weight that is trained moves";
  const made: Readonly<Record<Part["part"], string>> = {
    forward: tokens ? `the model reads ${count(tokens)} tokens` : "the model reads the tokens of this step",
    loss:
      loss == null
        ? "the loss of its guesses"
        : `loss ${number(loss, 3)} nats per ${line.answer === undefined ? "" : "answer "}token`,
    backward: norm == null ? "the gradient of the loss" : `a gradient of length ${short(norm)}`,
    step: rate == null ? moves : `${moves}, learning rate ${short(rate)}`,
  };
  return (
    <>
      <h3>The four lines of step {count(line.step)}</h3>
      <p class="under">
        Training repeats these lines of riyaz/train.py, here with the numbers that they made in this step.
      </p>
      <dl class="program">
        {program.map((each) => (
          <div key={each.part}>
            <dt>
              <span class="under">line {each.line}</span> <code>{each.text}</code>
            </dt>
            <dd>
              <b>{each.part}</b>: {made[each.part]}
            </dd>
          </div>
        ))}
      </dl>
    </>
  );
}

const short = (value: number) => Number(value.toPrecision(3)).toString();

function Gradients({ line }: { line: Line }) {
  if (!line.gradients) return null;
  const most = Math.max(...line.gradients);
  const where = line.gradients.indexOf(most);
  return (
    <>
      <h3>Gradients by layer</h3>
      <p class="under">
        A gradient says how the loss would change with each weight. Its length is largest{" "}
        {where ? `in layer ${where}` : "outside the layers"}: {short(most)}.
      </p>
      <Columns
        title="Length of the gradient: outside the layers, then of each layer"
        series={[{ name: "gradient", colour: 5, values: line.gradients }]}
        say={short}
        summary={`Outside the layers ${short(line.gradients[0] ?? 0)}; of layers 1 to ${line.gradients.length - 1}: ${line.gradients.slice(1).map(short).join(", ")}`}
      />
    </>
  );
}

function Lens({ line }: { line: Line }) {
  if (!line.lens.length) return null;
  return (
    <>
      <h3>
        {line.answer === undefined ? `The next word of “${line.sentence}”` : "The beginning of its answer"}, layer by
        layer
      </h3>
      <p class="under">What the model would say next if it ended behind that layer. The last row is what it says.</p>
      <Wide name="The next word by layer">
        <table class="lens">
          <thead>
            <tr>
              <th scope="col">layer</th>
              <th scope="col" colSpan={3}>
                the likeliest next tokens
              </th>
            </tr>
          </thead>
          <tbody>
            {line.lens.map((words, layer) => (
              <tr key={layer}>
                <th scope="row">{layer || "start"}</th>
                {words.map((word, place) => (
                  <td
                    key={place}
                    class="word"
                    style={{ background: `color-mix(in srgb, var(--c3) ${Math.round(45 * word.p)}%, transparent)` }}
                  >
                    {visible(word.text)} <span class="under">{percent(word.p)}</span>
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </Wide>
    </>
  );
}
