// Stations 3 and 4: the training loop, and the tuning methods with their costs.
import { api } from "../api.ts";
import { count, duration, many, number, percent } from "../numbers.ts";
import { Wide } from "../parts/words.tsx";
import { link, sourced } from "../route.ts";
import { info } from "../state.ts";
import type { Arm, RunDocument } from "../types.ts";
import { chances, latest, scored } from "./asking.ts";
import { largest, type Station } from "./station.ts";
import { EXAMPLES, LABELS, ORDERS, REVIEW, STEP } from "./texts.ts";

interface Trained {
  readonly path: string;
  readonly first: number | null; // loss of its first step, nats per token
  readonly last: number | null; // loss on held-out text at the end
}

interface Training {
  readonly losses: readonly {
    readonly id: string;
    readonly name: string;
    readonly tokens: number;
    readonly value: number;
  }[];
  readonly before: number | null; // the probability of the word that comes
  readonly after: number | null; // the same after one step on the scores
  readonly run: Trained | null;
}

const LONGEST = 5000; // milliseconds that the first step of a run may take to be read

// Nats per token, over the tokens that have text before them.
function meanLoss(logprobs: readonly (number | null)[]): number {
  const known = logprobs.filter((each): each is number => each !== null);
  return known.length ? -known.reduce((sum, each) => sum + each, 0) / known.length : 0;
}

// The probability of a token after a step of size 1 on its scores: down the gradient of the loss, which is p - 1 for this
// token and p for every other one. The tokens that were not sent move so little that they stay where they are.
function stepped(all: readonly number[], own: number): number {
  const moved = all.map((p, place) => p * Math.exp(place === own ? 1 - p : -p));
  const unseen = Math.max(0, 1 - all.reduce((sum, each) => sum + each, 0));
  return (moved[own] ?? 0) / (moved.reduce((sum, each) => sum + each, 0) + unseen);
}

async function trainedHere(): Promise<Trained | null> {
  const run = await latest("pretrain");
  if (!run) return null;
  const document = (await api.run(run.path)).document as { result?: { valid_loss?: number } | null } | null;
  let first: number | null = null;
  try {
    for await (const { data } of api.events(run.path, "", AbortSignal.timeout(LONGEST), () => undefined)) {
      const { loss } = JSON.parse(data) as { loss?: number | null };
      if (typeof loss !== "number") continue;
      first = loss;
      break;
    }
  } catch {
    first = null; // the run keeps no losses
  }
  return { path: run.path, first, last: document?.result?.valid_loss ?? null };
}

export const trainingStation: Station<Training> = {
  id: "training",
  title: "The training loop",
  text: [
    "Forward pass: the model reads a text and gives every next token a probability p.",
    "Loss: −ln p of the token that really came. It is 0 if p is 100 %, and large if p is small.",
    "Backpropagation: for every weight it is computed how the loss changes when the weight changes.",
    "Step: every weight is changed a little so that the loss becomes smaller. Then the loop begins again.",
  ],
  task: "The model computes the loss of these three texts.",
  given: ORDERS,
  guesses: [
    {
      question: "Which text has the largest loss per token?",
      choices: ORDERS.map(({ id, name }) => ({ id, label: name })),
    },
  ],
  notice: [
    "The loss is measured. Nobody has to say what is right: the text itself holds the next token.",
    "The step on the scores moves one prediction. A training changes the weights, in thousands of small steps on many texts.",
  ],
  question: "The model gives the real next token a probability of 50 %. How large is the loss?",
  more: { screen: "learn", name: "Learn" },
  async load(model) {
    const all = await scored(
      model,
      ORDERS.map((each) => each.text),
    );
    const losses = ORDERS.map(({ id, name }, place) => {
      const logprobs = all[place]?.logprobs ?? [];
      return { id, name, tokens: logprobs.length, value: meanLoss(logprobs) };
    });
    const { candidates } = await api.next({ model, text: STEP.text, top: 1000 });
    const own = candidates.findIndex((each) => each.text.trim() === STEP.word);
    const p = candidates.map((each) => Math.exp(each.logprob));
    const run = await trainedHere();
    return { losses, before: own < 0 ? null : (p[own] ?? null), after: own < 0 ? null : stepped(p, own), run };
  },
  right: ({ losses }) => [largest(losses)],
  lines: ({ losses, before, after, run }) => [
    ...losses.map((each) => `Loss of ${each.name}: ${number(each.value, 2)} nats per token.`),
    before === null || after === null
      ? `For this model “${STEP.word}” is not one token among the 1,000 likeliest after “${STEP.text}”, so no step is shown.`
      : `After “${STEP.text}” the token “${STEP.word}” has ${percent(before)}: a loss of ${number(-Math.log(before), 2)}. The scores are the numbers that become probabilities. One step of size 1 on them, by the gradient p − 1, makes it ${percent(after)}: a loss of ${number(-Math.log(after), 2)}.`,
    run
      ? `The run ${sourced(run.path)} had a loss of ${number(run.first, 2)} nats per token at its first step. At its end it had ${number(run.last, 2)} on text that it had not read.`
      : "No finished training is in this folder yet. The screen Learn trains a small model in about five minutes.",
  ],
  solution: () => `−ln 0.5 = ${number(-Math.log(0.5), 2)} nats.`,
  shown: ({ run }) => run && <a href={link("run", { path: run.path })}>See its curve and its texts</a>,
};

interface Prompted {
  readonly tokens: number;
  readonly labels: readonly (number | null)[];
}

interface Methods {
  readonly bare: Prompted;
  readonly shots: Prompted;
  readonly path: string;
  readonly document: RunDocument | null;
}

const EVEN = 0.01; // a difference below one percentage point counts as none

async function prompted(model: string, text: string): Promise<Prompted> {
  const { tokens } = await api.next({ model, text, top: 1 });
  return { tokens: tokens.length, labels: await chances(model, text, LABELS) };
}

const total = (prompt: Prompted) => prompt.labels.reduce<number>((sum, each) => sum + (each ?? 0), 0);

function change({ bare, shots }: Methods): string {
  const difference = total(shots) - total(bare);
  return Math.abs(difference) < EVEN ? "same" : difference > 0 ? "up" : "down";
}

function Arms({ arms, pick }: { arms: readonly Arm[]; pick?: string | null }) {
  const known = arms.filter((arm) => typeof arm.score === "number");
  return (
    <Wide name="Methods of the comparison">
      <table>
        <caption>
          The methods of one comparison, as they were measured. The pick is what the comparison recommends.
        </caption>
        <thead>
          <tr>
            <th scope="col">method</th>
            <th scope="col" class="figure">
              {known[0]?.metric ?? "score"}
            </th>
            <th scope="col" class="figure">
              trained weights
            </th>
            <th scope="col" class="figure">
              training
            </th>
            <th scope="col" class="figure">
              per answer
            </th>
          </tr>
        </thead>
        <tbody>
          {known.map((arm) => (
            <tr key={`${arm.method}@${arm.base ?? ""}`}>
              <th scope="row">
                {arm.method}
                {arm.method === pick && <span class="badge sure">pick</span>}
              </th>
              <td class="figure">{number(arm.score)}</td>
              <td class="figure">{count(arm.trainable_params)}</td>
              <td class="figure">{duration((arm.train_seconds ?? 0) + (arm.search_seconds ?? 0))}</td>
              <td class="figure">{arm.ms_per_answer ? duration(arm.ms_per_answer / 1000) : "–"}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </Wide>
  );
}

export const methodsStation: Station<Methods> = {
  id: "methods",
  title: "The tuning methods and their costs",
  text: [
    "Prompt: examples stand before the question. No weight changes. Every answer takes longer, because more is read.",
    "RAG: passages of your documents are searched and put before the question. No weight changes here either.",
    "LoRA: small new matrices are trained beside the weights. The weights themselves stay as they are.",
    "Full training: every weight is trained. It takes the most memory, and the model can lose what it had learned before.",
  ],
  task: "The model shall label a short review: good or bad. Once without examples, once with three of them before it.",
  given: [{ text: REVIEW }, { text: EXAMPLES + REVIEW }],
  guesses: [
    {
      question: "What do three examples do to the probability that the next word is one of the two labels?",
      choices: [
        { id: "up", label: "it rises" },
        { id: "same", label: "it stays, within one percentage point" },
        { id: "down", label: "it falls" },
      ],
    },
  ],
  notice: [
    "The examples say which words may come. That does not make the label right.",
    "No method is the best at everything. Look at score, training time and time per answer together.",
  ],
  question: "How many more tokens does the model read for each answer with the three examples?",
  more: { screen: "compare", name: "Compare" },
  async load(model) {
    const bare = await prompted(model, REVIEW);
    const shots = await prompted(model, EXAMPLES + REVIEW);
    const run = await latest("compare");
    const document = run ? (await api.run(run.path)).document : null;
    return { bare, shots, path: run?.path ?? "", document };
  },
  right: (answer) => [[change(answer)]],
  lines: ({ bare, shots, path, document }) => [
    ...[
      { name: "Without examples", prompt: bare },
      { name: "With three examples", prompt: shots },
    ].map(
      ({ name, prompt }) =>
        `${name}: ${LABELS.map((label, place) => `${label} ${percent(prompt.labels[place] ?? 0)}`).join(", ")}, together ${percent(total(prompt))}.`,
    ),
    document?.arms
      ? `The comparison ${sourced(path)} has measured ${many(document.arms.length, "method")}${document.pick ? ` and recommends ${document.pick}` : ""}.`
      : "No finished comparison is in this folder yet. The screen Compare makes one.",
  ],
  solution: ({ bare, shots }) =>
    `${count(shots.tokens - bare.tokens)} more: ${count(shots.tokens)} tokens, not ${count(bare.tokens)}.`,
  shown: ({ path, document }) => (
    <>
      {document?.arms && <Arms arms={document.arms} pick={document.pick} />}
      {document?.arms && <a href={link("run", { path })}>See the whole comparison</a>}
      {!document?.arms && info.value?.methods && (
        <details>
          <summary>The methods that this server can compare</summary>
          <ul>
            {Object.entries(info.value.methods).map(([name, about]) => (
              <li key={name}>
                <b>{name}</b>: {about.what}
              </li>
            ))}
          </ul>
        </details>
      )}
    </>
  ),
};
