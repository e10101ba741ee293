// Attention: which tokens a token looks at, by every head of a layer, and heads that are named after a measured pattern.
import { signal, useSignal } from "@preact/signals";
import { useMemo } from "preact/hooks";
import { type Attention, type Pattern, type Read, usePart } from "../inside.ts";
import { count, many, percent, visible } from "../numbers.ts";
import { Bars } from "./bars.tsx";
import { Heat } from "./heat.tsx";
import { useSeen } from "./seen.ts";
import { Term } from "./term.tsx";
import { Field, Problem, Waiting } from "./words.tsx";

const LOOKED_AT = 8; // bars of what the token looks at
const LABELLED = 24; // tokens that have room beside the picture
const JUMPS = 6; // heads of one name that can be gone to
const layer = signal(-1); // from 0; -1: the last
const head = signal<number | null>(0); // from 0; null: the mean of all

const NAMES = [
  {
    name: "previous token",
    share: (each: Pattern) => each.previous,
    rule: "their largest weight is on the token before in at least half of the positions",
  },
  {
    name: "first token",
    share: (each: Pattern) => each.first,
    rule: "their largest weight is on the first token in at least half of the positions",
  },
  {
    name: "copies",
    share: (each: Pattern) => each.copied,
    rule: "on random tokens that come twice, at least 30 % of their weight is on what followed the same token before",
  },
] as const;

const whole = (share: number) => `${Math.round(100 * share)} %`;

export function Heads({ read }: { read: Read }) {
  const { place, seen } = useSeen<HTMLElement>();
  const shownLayer = layer.value < 0 ? read.model.layers - 1 : Math.min(layer.value, read.model.layers - 1);
  const chosen = head.value === null ? null : Math.min(head.value, read.model.heads - 1);
  const more = { layer: shownLayer, ...(chosen === null ? {} : { head: chosen }) };
  const { answer, problem } = usePart<Attention>(read, "attention", more, seen.value);
  const { answer: named } = usePart<{ heads: readonly Pattern[] }>(read, "heads", { at: -1 }, seen.value);
  const heads = named?.heads ?? [];
  const go = (to: Pattern) => {
    layer.value = to.layer;
    head.value = to.head;
  };
  return (
    <section ref={place}>
      <h2>Attention</h2>
      <p class="under">
        In each layer, <Term of="head">{many(read.model.heads, "head")}</Term> give every token a weight for itself and
        each token before it; the weights of a token add up to 100 %.
      </p>
      <div class="fields">
        <Field label="Layer">
          <select value={shownLayer} onChange={(event) => (layer.value = Number(event.currentTarget.value))}>
            {Array.from({ length: read.model.layers }, (_, each) => (
              <option key={each} value={each}>
                {each + 1}
              </option>
            ))}
          </select>
        </Field>
        <Field label="Head">
          <select
            value={chosen ?? ""}
            onChange={(event) => (head.value = event.currentTarget.value ? Number(event.currentTarget.value) : null)}
          >
            <option value="">the mean of all</option>
            {Array.from({ length: read.model.heads }, (_, each) => (
              <option key={each} value={each}>
                {each + 1}
              </option>
            ))}
          </select>
        </Field>
      </div>
      <Problem text={problem} />
      {!answer && !problem && <Waiting />}
      {answer && <Small answer={answer} heads={heads.filter((each) => each.layer === answer.attention.layer)} />}
      {answer && <Large read={read} answer={answer} />}
      <Rule
        pattern={heads.find((each) => each.layer === shownLayer && each.head === chosen)}
        positions={read.tokens.length - 2}
      />
      <Alike heads={heads} go={go} />
    </section>
  );
}

function shadesOf(picture: string): Float32Array {
  return Float32Array.from(atob(picture), (letter) => letter.charCodeAt(0) / 255);
}

// A head's name with the share that it was given for.
function labelOf(pattern: Pattern | undefined): string {
  const rule = NAMES.find((each) => each.name === pattern?.name);
  return pattern && rule ? `${rule.name}, ${whole(rule.share(pattern))}` : "";
}

// Every head of the layer as a small picture: rows look, columns are looked at.
function Small({ answer, heads }: { answer: Attention; heads: readonly Pattern[] }) {
  const { side, heads: pictures } = answer.pictures;
  const shades = useMemo(() => pictures.map(shadesOf), [answer]);
  return (
    <ul class="plain heads" aria-label={`The heads of layer ${answer.attention.layer + 1}`}>
      {shades.map((each, place) => (
        <li key={place}>
          <button type="button" aria-pressed={head.value === place} onClick={() => (head.value = place)}>
            <Heat label="" columns={side} rows={side} shades={each} />
            <span>
              head {place + 1}
              {(labelOf(heads[place]) || "\u00a0, \u00a0").split(", ").map((line) => (
                <small key={line}>{line}</small>
              ))}
            </span>
          </button>
        </li>
      ))}
    </ul>
  );
}

// One head: the whole picture, the field under the pointer in words, and what the token looks at as bars.
function Large({ read, answer }: { read: Read; answer: Attention }) {
  const { weights, head: shown } = answer.attention;
  const size = weights.length;
  const under = useSignal<readonly [number, number] | null>(null);
  const shades = useMemo(() => weights.flat(), [answer]);
  const [row, column] = under.value ?? [read.at, read.at];
  const word = (place: number) => visible(read.tokens[place]?.text ?? "");
  const which = shown === null ? "all heads together" : `head ${shown + 1}`;
  const point = (event: PointerEvent) => {
    const box = (event.currentTarget as HTMLElement).getBoundingClientRect();
    const at = (offset: number, length: number) =>
      Math.max(0, Math.min(size - 1, Math.floor((size * offset) / length)));
    const looked = at(event.clientX - box.left, box.width);
    const looks = at(event.clientY - box.top, box.height);
    under.value = [looks, Math.min(looks, looked)];
  };
  const keys = (event: KeyboardEvent) => {
    const steps: Readonly<Record<string, readonly [number, number]>> = {
      ArrowUp: [-1, 0],
      ArrowDown: [1, 0],
      ArrowLeft: [0, -1],
      ArrowRight: [0, 1],
    };
    const step = steps[event.key];
    if (!step) return;
    event.preventDefault();
    const looks = Math.max(0, Math.min(size - 1, row + step[0]));
    under.value = [looks, Math.max(0, Math.min(looks, column + step[1]))];
  };
  const looks = weights[row] ?? [];
  const largest = looks
    .slice(0, row + 1)
    .map((p, place) => ({ id: place, text: `${word(place)}`, logprob: 0, p, kept: true }))
    .sort((a, b) => b.p - a.p)
    .slice(0, LOOKED_AT);
  return (
    <div class="pair">
      <figure class={size <= LABELLED ? "large-head labelled" : "large-head"}>
        {size <= LABELLED && <Words read={read} class="columns-words" />}
        {size <= LABELLED && <Words read={read} class="rows-words" />}
        <div
          class="pointed"
          role="application"
          // biome-ignore lint/a11y/noNoninteractiveTabindex: the arrow keys go from field to field
          tabIndex={0}
          aria-label={`The weights of ${which}. Arrow keys go from field to field.`}
          onPointerMove={point}
          onPointerDown={point}
          onKeyDown={keys}
        >
          <Heat label={`${size} tokens, each a row that looks at columns`} columns={size} rows={size} shades={shades} />
          <span
            class="field-mark"
            aria-hidden="true"
            style={{
              left: `${(100 * column) / size}%`,
              top: `${(100 * row) / size}%`,
              width: `${100 / size}%`,
              height: `${100 / size}%`,
            }}
          />
        </div>
        <figcaption aria-live="polite">
          Layer {answer.attention.layer + 1}, {which}: “{word(row)}” (token {row}) looks at “{word(column)}” (token{" "}
          {column}) with {percent(weights[row]?.[column] ?? 0)}.
        </figcaption>
      </figure>
      <div class="column">
        <h3>
          What “{word(row)}” looks at, by {which}
        </h3>
        <Bars candidates={largest} colour={2} />
        {answer.looks.length > 1 && <Looks read={read} answer={answer} />}
      </div>
    </div>
  );
}

// The tokens beside the rows or above the columns.
function Words({ read, class: name }: { read: Read; class: string }) {
  return (
    <div class={name} aria-hidden="true">
      {read.tokens.map((token, place) => (
        <span key={place} class="word">
          {visible(token.text)}
        </span>
      ))}
    </div>
  );
}

// Heads by tokens: what the chosen token looks at.
function Looks({ read, answer }: { read: Read; answer: Attention }) {
  const columns = answer.looks[0]?.length ?? 0;
  const shades = useMemo(() => answer.looks.flat(), [answer]);
  const token = visible(read.tokens[columns - 1]?.text ?? "");
  return (
    <figure>
      <Heat
        label={`What ${token} looks at: ${answer.looks.length} heads by ${columns} tokens`}
        columns={columns}
        rows={answer.looks.length}
        shades={shades}
        class="looks"
      />
      <figcaption>
        What “{token}” looks at: a row for each head, a column for each token from the first to “{token}”.
      </figcaption>
    </figure>
  );
}

function Rule({ pattern, positions }: { pattern: Pattern | undefined; positions: number }) {
  if (!pattern) return null;
  return (
    <p class="note">
      <b>
        Layer {pattern.layer + 1}, head {pattern.head + 1}
        {pattern.name && `: ${labelOf(pattern)}`}.
      </b>{" "}
      In this text its largest weight is on the first token in {whole(pattern.first)} of positions, on the token before
      in {whole(pattern.previous)}, on the token itself in {whole(pattern.itself)}, counted over the{" "}
      {many(positions, "position")} from the third token on. On random tokens that come twice, {whole(pattern.copied)}{" "}
      of its weight is on what followed the same token before.
    </p>
  );
}

// All heads with one name, the clearest first.
function Alike({ heads, go }: { heads: readonly Pattern[]; go: (to: Pattern) => void }) {
  if (!heads.length) return null;
  return (
    <dl class="alike">
      {NAMES.map(({ name, share, rule }) => {
        const alike = heads.filter((each) => each.name === name).sort((a, b) => share(b) - share(a));
        return (
          <div key={name}>
            <dt>
              {name}: {count(alike.length)} of {count(heads.length)} heads
            </dt>
            <dd>
              <span class="under">The rule: {rule}.</span>
              <span class="actions">
                {alike.slice(0, JUMPS).map((each) => (
                  <button key={`${each.layer}.${each.head}`} type="button" class="small" onClick={() => go(each)}>
                    layer {each.layer + 1}, head {each.head + 1}: {whole(share(each))}
                  </button>
                ))}
              </span>
            </dd>
          </div>
        );
      })}
    </dl>
  );
}
