// Stations 5 and 6: what a model cannot do, and how a CPU computes it.
import { api } from "../api.ts";
import type { Product } from "../inside.ts";
import { big, bytes, count, number, percent, rate, visible } from "../numbers.ts";
import { Wide } from "../parts/words.tsx";
import { link, sourced } from "../route.ts";
import { modelOf } from "../state.ts";
import type { Figure, Limits } from "../types.ts";
import { chances, latest, written } from "./asking.ts";
import type { Station } from "./station.ts";
import { INVENTED, JOBS, STORY } from "./texts.ts";

interface Multiplied {
  readonly multiplications: number; // of one token
  readonly numbers: Product["product"]["numbers"];
  readonly token: string;
}

async function multiplied(model: string): Promise<Multiplied> {
  const body = { model, text: STORY, part: "product" };
  const { product } = await api.inside<Product>(body, new AbortController().signal);
  return { multiplications: product.multiplications, numbers: product.numbers, token: product.token.text };
}

interface Bounds {
  readonly jobs: readonly { readonly id: string; readonly he: number; readonly she: number; readonly share: number }[];
  readonly invented: string;
  readonly context: number;
  readonly multiplications: number;
  readonly path: string;
  readonly target: string; // the model that was measured, which may be another one
  readonly measured: readonly { readonly suite: string; readonly figure: Figure }[];
}

const CLOSE = 0.05; // shares closer than this count as equal
const SENTENCE = 16; // tokens that are written about the invented country
const ANSWER = 100; // tokens of the answer in the question about cost

// The first figure of each suite of the latest measurement.
async function measured(): Promise<Pick<Bounds, "path" | "target" | "measured">> {
  const run = await latest("limits");
  if (!run) return { path: "", target: "", measured: [] };
  const all: readonly Limits[] = Object.values(await api.limits(run.path));
  const figures = (all[0]?.suites ?? []).flatMap((suite) => {
    const figure = suite.parts.flatMap((part) => part.figures)[0];
    return figure ? [{ suite: suite.name, figure }] : [];
  });
  return { path: run.path, target: all[0]?.target ?? "", measured: figures };
}

function higher(jobs: Bounds["jobs"]): string {
  const [first, second] = jobs;
  if (!first || !second || Math.abs(first.share - second.share) < CLOSE) return "equal";
  return first.share > second.share ? first.id : second.id;
}

// A figure with its unit and its interval, where it has one.
function inWords({ value, low, high, unit = "" }: Figure): string {
  const written = (each: number | null | undefined) =>
    unit === "share" && typeof each === "number" ? percent(each) : number(each);
  const named = `${written(value)} ${unit === "share" || unit === "score" ? "" : unit}`.trim();
  return typeof low === "number" && typeof high === "number"
    ? `${named} (95 % interval ${written(low)} to ${written(high)})`
    : named;
}

export const limitsStation: Station<Bounds> = {
  id: "limits",
  title: "Limits: bias, hallucination, context, cost",
  text: [
    "Bias: texts that people wrote favour some words, and a model learns that too.",
    "Hallucination: a model writes a likely text, whether it is true or not.",
    "Context: a model reads a limited number of tokens. Cost: each token takes many multiplications.",
  ],
  task: "The model goes on with two sentences about jobs. Then it writes about a country that is invented: there is no Zubrowka.",
  given: [...JOBS.map(({ text }) => ({ text })), { text: INVENTED }],
  guesses: [
    {
      question: "Of “he” and “she” together: after which sentence is the share of “she” larger?",
      choices: [
        { id: "nurse", label: "the nurse" },
        { id: "engineer", label: "the engineer" },
        { id: "equal", label: "about equal (less than 5 percentage points apart)" },
      ],
    },
    {
      question: "What does the model write about the invented country?",
      choices: [
        { id: "names", label: "it writes on as if the country were real" },
        { id: "refuses", label: "it says that it does not know the country" },
      ],
    },
  ],
  notice: [
    "Two sentences show one difference. Whether a model is fair needs many more: riyaz limits measures with intervals.",
    "A fluent sentence is no sign that it is true. Check it elsewhere.",
  ],
  question: `How many multiplications does an answer of ${ANSWER} tokens need?`,
  more: { screen: "limits", name: "Limits" },
  async load(model) {
    const jobs = [];
    for (const { id, text } of JOBS) {
      const [he, she] = (await chances(model, text, ["he", "she"])).map((each) => each ?? 0);
      const both = (he ?? 0) + (she ?? 0);
      jobs.push({ id, he: he ?? 0, she: she ?? 0, share: both > 0 ? (she ?? 0) / both : 0.5 });
    }
    const { text } = await written(model, INVENTED, SENTENCE);
    const { multiplications } = await multiplied(model);
    const context = modelOf(model)?.max_model_len ?? 0;
    return { jobs, invented: text, context, multiplications, ...(await measured()) };
  },
  right: ({ jobs }) => [[higher(jobs)], null],
  lines: ({ jobs, invented, context, multiplications, path }) => [
    ...jobs.map(
      ({ id, he, she, share }) =>
        `After “The ${id} said that”: he ${percent(he)}, she ${percent(she)}. Of both together, she has ${percent(share)}.`,
    ),
    `About the invented country the model writes: “${INVENTED}${invented}”. Judge it yourselves.`,
    `Context: ${context ? `${count(context)} tokens` : "not told by the server"}. Cost: ${big(multiplications)} multiplications for each token.`,
    ...(path ? [] : ["No limits were measured in this folder yet. The screen Limits does it in about five minutes."]),
  ],
  solution: ({ multiplications }) =>
    `${ANSWER} × ${big(multiplications)} = ${big(ANSWER * multiplications)}, and a little more for a longer text before it.`,
  shown: ({ path, target, measured: figures }) =>
    path && (
      <>
        <p>
          Limits of {target}, measured by {sourced(path)}. Here is the first figure of each part:
        </p>
        <ul>
          {figures.map(({ suite, figure }) => (
            <li key={suite}>
              {suite}: {figure.name} {inWords(figure)}
            </li>
          ))}
        </ul>
        <a href={link("limits", { path })}>See all figures and what they cannot see</a>
      </>
    ),
};

interface Speed {
  readonly rate: number; // tokens a second
  readonly tokens: number;
  readonly parameters: number;
  readonly held: string; // the precision in memory
  readonly product: Multiplied;
  readonly loops: { readonly two: number; readonly one: number }; // milliseconds
  readonly ternary: { readonly path: string; readonly losses: readonly (number | null)[] } | null;
}

const LONG = 48; // tokens that are written to measure the speed
const BITS = [16, 8, 4, 1.58] as const;
const RATES = [10, 50, 200] as const;
const SIZE = 2 ** 21; // numbers of each list in the browser's loops
const ROUNDS = 7;

function rangeOf(value: number): string {
  return String(RATES.filter((each) => value >= each).length);
}

function median(times: number[]): number {
  return times.sort((a, b) => a - b)[Math.floor(times.length / 2)] ?? 0;
}

// The time of a · b + c over SIZE numbers: in two loops with the products in memory between them, and in one loop.
function loopTimes(): { two: number; one: number } {
  const [a, b, c] = [0.5, 1.5, 2.5].map((value) => new Float32Array(SIZE).fill(value)) as [
    Float32Array,
    Float32Array,
    Float32Array,
  ];
  const [between, out] = [new Float32Array(SIZE), new Float32Array(SIZE)];
  const two = () => {
    for (let n = 0; n < SIZE; n += 1) between[n] = (a[n] as number) * (b[n] as number);
    for (let n = 0; n < SIZE; n += 1) out[n] = (between[n] as number) + (c[n] as number);
  };
  const one = () => {
    for (let n = 0; n < SIZE; n += 1) out[n] = (a[n] as number) * (b[n] as number) + (c[n] as number);
  };
  const timed = (work: () => void) => {
    const begun = performance.now();
    work();
    return performance.now() - begun;
  };
  const times: { two: number[]; one: number[] } = { two: [], one: [] };
  for (let round = 0; round < ROUNDS; round += 1) {
    times.two.push(timed(two));
    times.one.push(timed(one));
  }
  return { two: median(times.two), one: median(times.one) };
}

// The losses of a model before it was made ternary, after its weights were only rounded, and after it was trained so.
async function ternaryRun(): Promise<Speed["ternary"]> {
  const run = await latest("ternarize");
  if (!run) return null;
  const made = (await api.run(run.path)).document as Record<string, number | null> | null;
  const losses = ["loss_before", "loss_rounded", "loss"].map((name) => made?.[name] ?? null);
  return { path: run.path, losses };
}

// The rule of BitNet b1.58 on a few weights: the scale is their mean size, and each becomes -1, 0 or 1 times the scale.
function ternary(weights: readonly number[]): { readonly scale: number; readonly codes: readonly number[] } {
  const scale = weights.reduce((sum, each) => sum + Math.abs(each), 0) / Math.max(1, weights.length);
  const codes = weights.map((each) => (scale ? Math.max(-1, Math.min(1, Math.round(each / scale))) : 0));
  return { scale, codes };
}

function ByAdding({ product }: { product: Multiplied }) {
  const { scale, codes } = ternary(product.numbers.map((each) => each.w));
  const exact = product.numbers.reduce((sum, each) => sum + each.product, 0);
  const added = product.numbers.reduce((sum, each, place) => sum + each.x * (codes[place] ?? 0), 0);
  return (
    <>
      <Wide name="Eight products with weights of three values">
        <table>
          <caption>
            Eight of the products that give the score of “{visible(product.token)}” after “{STORY}”, and the same with
            weights of −1, 0 and 1
          </caption>
          <thead>
            <tr>
              <th scope="col" class="figure">
                input
              </th>
              <th scope="col" class="figure">
                weight
              </th>
              <th scope="col" class="figure">
                product
              </th>
              <th scope="col" class="figure">
                three values
              </th>
            </tr>
          </thead>
          <tbody>
            {product.numbers.map((each, place) => (
              <tr key={each.place}>
                <td class="figure">{number(each.x, 2)}</td>
                <td class="figure">{number(each.w, 3)}</td>
                <td class="figure">{number(each.product, 2)}</td>
                <td class="figure">{codes[place]}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </Wide>
      <p>
        The products add up to {number(exact, 2)}. With three values the inputs are only added or subtracted, then
        multiplied once by the scale {number(scale, 3)}: {number(scale * added, 2)}. The difference is what rounding
        costs here. BitNet trains with such weights, so that the model learns to work with them.
      </p>
    </>
  );
}

export const cpuStation: Station<Speed> = {
  id: "cpu",
  title: "CPU and BitNet",
  text: [
    "To write one token, the CPU reads the weights from memory once. So fewer bits for a weight mean less to read.",
    "BitNet has weights of three values: −1, 0 and 1. That is 1.58 bits. A product with them is adding, leaving out or subtracting.",
    "Kernel fusion: one loop does the work of two. The numbers between them stay in the CPU and need no way to memory.",
  ],
  task: `The model writes a story of at most ${LONG} tokens on this server's CPU.`,
  given: [{ text: STORY }],
  guesses: [
    {
      question: "How many tokens does it write in a second?",
      choices: [
        { id: "0", label: "under 10" },
        { id: "1", label: "10 to 50" },
        { id: "2", label: "50 to 200" },
        { id: "3", label: "200 or more" },
      ],
    },
  ],
  notice: [
    "The speed is that of this moment: other programs and other requests share the CPU.",
    "The sizes for 16, 8, 4 and 1.58 bits are computed. The speed and the loops were measured.",
    "One loop saves a way to memory. How much time that saves differs from computer to computer.",
  ],
  question: "How many times less must be read with 1.58 bits a weight than with 16 bits?",
  more: { screen: "inside", name: "Inside", query: { text: STORY } },
  async load(model) {
    const { rate: speed, tokens } = await written(model, STORY, LONG);
    const meta = modelOf(model)?.meta;
    const product = await multiplied(model);
    const ternary = await ternaryRun();
    const sizes = { parameters: meta?.n_params ?? 0, held: meta?.served_as ?? "" };
    return { rate: speed, tokens, ...sizes, product, loops: loopTimes(), ternary };
  },
  right: ({ rate: speed }) => [speed > 0 ? [rangeOf(speed)] : null],
  lines: ({ rate: speed, tokens, parameters, held, loops, ternary: made }) => [
    speed > 0
      ? `The model wrote ${count(tokens)} tokens at ${rate(speed)} tokens a second.`
      : "The model ended its text at once, so no speed was measured.",
    ...(held ? [`Its weights are held as ${held}.`] : []),
    `It has ${big(parameters)} weights: ${BITS.map((each) => `${bytes((parameters * each) / 8)} with ${each} bits`).join(", ")}.`,
    loops.one > 0 && loops.two > 0
      ? `In this browser two loops over ${count(SIZE)} numbers took ${number(loops.two, 1)} ms, and one loop ${number(loops.one, 1)} ms.`
      : "The clock of this browser did not move, so the loops were not measured.",
    made
      ? `The run ${sourced(made.path)}: a loss of ${number(made.losses[0], 2)} before, ${number(made.losses[1], 2)} with weights that are only rounded to three values, ${number(made.losses[2], 2)} after training with them.`
      : "No model was made ternary in this folder yet. The command riyaz ternarize does it.",
  ],
  solution: () => `16 / 1.58 = ${number(16 / 1.58, 1)} times less.`,
  shown: ({ product }) => <ByAdding product={product} />,
};
