// Stations 1 and 2: words become numbers, and the next word.
import { api } from "../api.ts";
import type { Reading } from "../inside.ts";
import { type Candidate, count, many, number, percent, visible } from "../numbers.ts";
import { Bars } from "../parts/bars.tsx";
import { modelOf } from "../state.ts";
import { chances } from "./asking.ts";
import { largest, type Station } from "./station.ts";
import { CAPITAL, CAPITAL_WORDS, SENTENCES } from "./texts.ts";

interface Cut {
  readonly id: string;
  readonly language: string;
  readonly code: string;
  readonly words: number;
  readonly tokens: readonly { readonly id: number; readonly text: string }[];
}

interface Numbers {
  readonly cuts: readonly Cut[];
  readonly vocabulary: number;
  readonly width: number;
  readonly context: number; // tokens that the model reads at most; 0: not told
  readonly vector: readonly number[]; // the first numbers of the first token
}

const SHOWN = 4; // numbers of a vector

const perWord = (cut: Cut) => cut.tokens.length / cut.words;

// Tokens with which every text begins belong to none of them.
function withoutBeginning(cuts: readonly Cut[]): Cut[] {
  let same = 0;
  const first = cuts[0]?.tokens ?? [];
  while (first[same] && cuts.every((cut) => cut.tokens[same]?.id === first[same]?.id)) same += 1;
  return cuts.map((cut) => ({ ...cut, tokens: cut.tokens.slice(same) }));
}

async function loadNumbers(model: string): Promise<Numbers> {
  const cuts: Cut[] = [];
  let sizes = { vocabulary: 0, width: 0 };
  for (const { language, code, text } of SENTENCES) {
    const next = await api.next({ model, text, top: 1 });
    sizes = next;
    cuts.push({ id: code, language, code, words: text.split(" ").length, tokens: next.tokens });
  }
  const own = withoutBeginning(cuts);
  const text = SENTENCES[0]?.text ?? "";
  const read = await api.inside<Reading>({ model, text, part: "layers" }, new AbortController().signal);
  const piece = read.tokens.find((token) => token.id === own[0]?.tokens[0]?.id);
  return {
    cuts: own,
    vocabulary: sizes.vocabulary,
    width: sizes.width,
    context: modelOf(model)?.max_model_len ?? 0,
    vector: piece?.vector.slice(0, SHOWN) ?? [],
  };
}

function Pieces({ cut }: { cut: Cut }) {
  return (
    <p class="pieces">
      {cut.tokens.map((token, place) => (
        <span key={place}>
          {visible(token.text)} <b>{token.id}</b>
        </span>
      ))}
    </p>
  );
}

export const numbersStation: Station<Numbers> = {
  id: "tokens",
  title: "Words become numbers",
  text: [
    "A model cannot read letters. A tokenizer cuts a text into pieces, which are called tokens.",
    "Each token has a number: its id. For each id the model has a list of numbers: its vector.",
  ],
  task: "Here is one sentence in four languages.",
  given: SENTENCES,
  guesses: [
    {
      question: "Which sentence becomes the most tokens?",
      choices: SENTENCES.map(({ code, language }) => ({ id: code, label: language })),
    },
  ],
  notice: [
    "A tokenizer has whole words only for what was frequent in the texts that it was made from.",
    "The sign � stands for a piece that is less than one letter. U+ and a number stand for a sign that cannot stand alone.",
    "The model works once for each token. More tokens for the same sentence mean more work.",
  ],
  question:
    "The model reads a limited number of tokens. How many of the English sentences fit, and how many Hindi ones?",
  more: { screen: "inside", name: "Inside", query: { text: SENTENCES[0]?.text ?? "" } },
  load: loadNumbers,
  right: ({ cuts }) => [largest(cuts.map((cut) => ({ id: cut.id, value: cut.tokens.length })))],
  lines: ({ cuts, vocabulary, width }) => [
    ...cuts.map(
      (cut) =>
        `${cut.language}: ${many(cut.words, "word")}, ${many(cut.tokens.length, "token")}, ${number(perWord(cut), 1)} tokens per word.`,
    ),
    `The vocabulary has ${count(vocabulary)} tokens. A vector has ${count(width)} numbers.`,
  ],
  solution: ({ cuts, context }) =>
    context
      ? `The model reads ${count(context)} tokens: ${cuts
          .map((cut) => `${count(Math.floor(context / cut.tokens.length))} sentences in ${cut.language}`)
          .join(", ")}.`
      : "The server does not tell how many tokens this model reads.",
  shown: ({ cuts, vector, width }) => (
    <>
      {cuts.map((cut) => (
        <div key={cut.id}>
          <h4>{cut.language}</h4>
          <Pieces cut={cut} />
        </div>
      ))}
      {vector.length > 0 && (
        <p>
          The vector of “{visible(cuts[0]?.tokens[0]?.text ?? "")}” begins with{" "}
          {vector.map((each) => number(each, 3)).join(", ")} and has {count(width)} numbers.
        </p>
      )}
    </>
  ),
};

interface NextWord {
  readonly words: readonly { readonly id: string; readonly value: number }[];
  readonly candidates: readonly Candidate[];
  readonly vocabulary: number;
}

const BARS = 8;

const rest = (candidates: readonly Candidate[]) =>
  Math.max(0, 1 - candidates.reduce((sum, each) => sum + Math.exp(each.logprob), 0));

export const nextStation: Station<NextWord> = {
  id: "next",
  title: "The next word",
  text: [
    "A language model gives every token of its vocabulary a probability of being the next one. Together they are 100 %.",
    "It writes a text so: choose one token, add it to the text, and begin again.",
  ],
  task: "Read the beginning of this sentence.",
  given: [{ text: CAPITAL }],
  guesses: [
    {
      question: "To which of these words does the model give the largest probability?",
      choices: CAPITAL_WORDS.map((word) => ({ id: word, label: word })),
    },
  ],
  notice: [
    "The model does not look up a fact. It computes a probability for each token.",
    "Small words such as “the” get a part of the probability, because many sentences can go on so.",
  ],
  question: `The list shows ${BARS} tokens. How much probability is left for all other tokens?`,
  more: { screen: "next", name: "Next word", query: { text: CAPITAL } },
  async load(model) {
    const next = await api.next({ model, text: CAPITAL, top: BARS });
    const all = await chances(model, CAPITAL, CAPITAL_WORDS);
    const words = CAPITAL_WORDS.map((id, place) => ({ id, value: all[place] ?? 0 }));
    return { words, candidates: next.candidates, vocabulary: next.vocabulary };
  },
  right: ({ words }) => [largest(words)],
  lines: ({ words, candidates }) => [
    `${words.map((each) => `${each.id} ${percent(each.value)}`).join(", ")}.`,
    `The likeliest token of all is “${visible(candidates[0]?.text ?? "")}” with ${percent(Math.exp(candidates[0]?.logprob ?? -99))}.`,
  ],
  solution: ({ candidates, vocabulary }) =>
    `${percent(rest(candidates))} is left for the other ${count(vocabulary - candidates.length)} tokens.`,
  shown: ({ candidates }) => (
    <Bars candidates={candidates.map((each) => ({ ...each, p: Math.exp(each.logprob), kept: true }))} />
  ),
};
