// The token view: every token of an answer, shaded by how unlikely it was, and the candidates of the one that is looked at.
import { type Signal, useSignal } from "@preact/signals";
import { Component } from "preact";
import { percent, shape, surprise, visible } from "../numbers.ts";
import type { Token, Top } from "../tree.ts";
import { Bars } from "./bars.tsx";
import { Term } from "./term.tsx";

const LINE = 600; // tokens after which a line without end is broken, so that appending stays cheap

interface Line {
  readonly start: number;
  readonly end: number;
}

// Lines end at line ends of the text. The answer only grows, so that all lines but the last stay as they are.
export function lines(tokens: readonly Token[]): Line[] {
  const found: Line[] = [];
  let start = 0;
  tokens.forEach((token, place) => {
    const ends = token.token.includes("\n") && !(tokens[place + 1]?.token.startsWith("\n") ?? false);
    if (ends || (place - start >= LINE && token.token.startsWith(" "))) {
      found.push({ start, end: place + 1 });
      start = place + 1;
    }
  });
  if (start < tokens.length) found.push({ start, end: tokens.length });
  return found;
}

class LineOf extends Component<Line & { tokens: readonly Token[]; at: number }> {
  override shouldComponentUpdate(next: Readonly<Line & { tokens: readonly Token[]; at: number }>): boolean {
    const { start, end, at, tokens } = this.props;
    const held = (place: number) => place >= start && place < end;
    return (
      next.end !== end ||
      next.start !== start ||
      next.tokens !== tokens ||
      (next.at !== at && (held(at) || held(next.at)))
    );
  }

  override render() {
    const { start, end, tokens, at } = this.props;
    return (
      <div class="tokens-line">
        {tokens.slice(start, end).map((token, offset) => {
          const place = start + offset;
          const blank = token.token.trim() === "";
          return (
            // biome-ignore lint/a11y/useSemanticElements: thousands of buttons would break lines at every token
            <span
              key={place}
              role="button"
              class={`t s${surprise(token.logprob)}${place === at ? " at" : ""}`}
              tabIndex={place === Math.max(at, 0) ? 0 : -1}
              data-place={place}
            >
              {blank ? visible(token.token) : token.token}
            </span>
          );
        })}
      </div>
    );
  }
}

const placeOf = (target: EventTarget | null): number => {
  const token = target instanceof Element ? target.closest<HTMLElement>("[data-place]") : null;
  return token ? Number(token.dataset.place) : -1;
};

const NARROW = "(max-width: 66rem)"; // where the candidates cover the lower half of the page (style.css)

function intoView(target: EventTarget | null): void {
  const token = target instanceof Element ? target.closest("[data-place]") : null;
  requestAnimationFrame(() => token?.scrollIntoView({ block: "start" }));
}

interface TokensProps {
  readonly tokens: readonly Token[];
  readonly count: number; // of the tokens, whose list stays the same object while it grows
  readonly label: string;
  readonly at: Signal<number>; // the token that is looked at, -1: none
  readonly enter: () => void; // the reader wants to choose a candidate
}

export function Tokens({ tokens, label, at, enter }: TokensProps) {
  const pinned = useSignal(false); // a tap or a key holds the token while the pointer moves on
  const look = (place: number) => {
    if (place >= 0) at.value = place;
  };
  const keys = (event: KeyboardEvent) => {
    const steps: Readonly<Record<string, number>> = { ArrowRight: 1, ArrowLeft: -1, Home: -1e9, End: 1e9 };
    const by = steps[event.key];
    if (event.key === "Enter" || event.key === " ") enter();
    else if (event.key === "Escape") at.value = -1;
    else if (by !== undefined) {
      const next = Math.max(0, Math.min(tokens.length - 1, Math.max(at.value, 0) + by));
      at.value = next;
      const group = event.currentTarget as HTMLElement;
      requestAnimationFrame(() => group.querySelector<HTMLElement>(`[data-place="${next}"]`)?.focus());
    } else return;
    event.preventDefault();
  };
  return (
    // biome-ignore lint/a11y/useSemanticElements: a fieldset has no place in running text
    <div
      class="tokens"
      role="group"
      aria-label={`${label}. Arrow keys go from token to token, Enter chooses another one.`}
      onPointerOver={(event) => event.pointerType === "mouse" && !pinned.value && look(placeOf(event.target))}
      onClick={(event) => {
        const place = placeOf(event.target);
        pinned.value = place >= 0 && !(pinned.value && place === at.value);
        look(place);
        if (place >= 0 && matchMedia(NARROW).matches) intoView(event.target);
      }}
      onFocusIn={(event) => look(placeOf(event.target))}
      onKeyDown={keys}
    >
      {lines(tokens).map((line) => (
        <LineOf key={line.start} {...line} tokens={tokens} at={at.value} />
      ))}
    </div>
  );
}

interface InspectorProps {
  readonly token: Token;
  readonly place: number;
  readonly close: () => void;
  readonly branch?: (candidate: Top) => void;
}

// The ten likeliest tokens at a place of the answer.
export function Inspector({ token, place, close, branch }: InspectorProps) {
  const top = token.top.map((each) => ({ text: each.token, logprob: each.logprob }));
  const outside = !top.some((each) => each.text === token.token);
  const listed = outside ? [...top, { text: token.token, logprob: token.logprob }] : top;
  const choose = (text: string) => {
    const found = token.top.find((each) => each.token === text);
    if (found && branch) branch(found);
  };
  return (
    <section class="inspector" aria-label="What else could have come here">
      <div class="inspector-head">
        <div>
          <b class="word">{visible(token.token)}</b> <span class="quiet">{percent(Math.exp(token.logprob))}</span>
        </div>
        <button type="button" class="small" onClick={close} aria-label="Close">
          ✕
        </button>
      </div>
      <p class="under">
        {token.top.length
          ? `Token ${place + 1}: the likeliest ${top.length} before temperature`
          : "This token has no candidates"}
        {branch && token.top.length ? "; choose one to go on from there" : ""}
      </p>
      <Bars
        candidates={shape(listed, 1, 1, 0, 0)}
        chosen={token.token}
        pick={branch ? (candidate) => choose(candidate.text) : undefined}
        pickName={(candidate) => `Go on with “${visible(candidate.text)}”`}
      />
    </section>
  );
}

export function Legend() {
  const names = ["sure", "60 %", "35 %", "15 %", "4 %", "a surprise"];
  return (
    <p class="legend">
      <span>
        Shaded by <Term of="probability" />
      </span>
      {names.map((name, shade) => (
        <span key={name} class={`t s${shade}`}>
          {name}
        </span>
      ))}
    </p>
  );
}
