// One turn of a conversation: its text or its tokens, its sources, and what can be done with it.
import { type Signal, signal, useSignal } from "@preact/signals";
import { useRef } from "preact/hooks";
import * as chat from "../chat.ts";
import { count, many, rate } from "../numbers.ts";
import { link } from "../route.ts";
import { type Citation, siblings, step, type Turn } from "../tree.ts";
import { Markdown } from "./markdown.tsx";
import { Tokens } from "./tokens.tsx";
import { Copy, Problem } from "./words.tsx";

export interface Looked {
  readonly turn: number;
  readonly at: Signal<number>;
}

export function TurnView(props: { turn: Turn; looked: Signal<Looked | null>; enter: () => void }) {
  const { turn } = props;
  return (
    <article class={`turn ${turn.role}`} aria-label={turn.role === "user" ? "You" : `Answer of ${turn.model}`}>
      {turn.role === "user" ? <Question turn={turn} /> : <Answer {...props} />}
    </article>
  );
}

function Question({ turn }: { turn: Turn }) {
  const editing = useSignal(false);
  const text = useSignal(turn.text);
  if (!editing.value) {
    return (
      <>
        <p class="as-is said-text">{turn.text}</p>
        <div class="actions">
          <Versions turn={turn} />
          <button
            type="button"
            class="small"
            onClick={() => {
              text.value = turn.text;
              editing.value = true;
            }}
          >
            Edit
          </button>
          <Copy text={turn.text} />
        </div>
      </>
    );
  }
  const send = () => {
    editing.value = false;
    if (text.value.trim()) chat.edit(turn, text.value);
  };
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
    >
      <label class="field">
        <span>Ask it in other words; the first version stays beside it</span>
        <textarea rows={3} value={text.value} onInput={(event) => (text.value = event.currentTarget.value)} />
      </label>
      <div class="actions">
        <button type="submit">Ask</button>
        <button type="button" class="small" onClick={() => (editing.value = false)}>
          Leave it
        </button>
      </div>
    </form>
  );
}

function Answer(props: { turn: Turn; looked: Signal<Looked | null>; enter: () => void }) {
  const { turn, looked } = props;
  void chat.revision(turn.id).value; // the turn is the same object: signals would not draw it again
  const at = useRef(signal(-1)).current;
  const growing = turn.state === "running";
  const asTokens = chat.tokenView.value && turn.tokens.length > 0;
  const look = () => {
    if (asTokens && looked.value?.turn !== turn.id) looked.value = { turn: turn.id, at };
  };
  return (
    <>
      <p class="who">
        {turn.model}
        {growing && <span class="pulse" role="status" aria-label="answering" />}
      </p>
      <div onFocusIn={look} onPointerOver={look}>
        {asTokens ? (
          <Tokens
            tokens={turn.tokens}
            count={turn.tokens.length}
            label={`Tokens of the answer of ${turn.model}`}
            at={at}
            enter={props.enter}
          />
        ) : (
          <Markdown text={turn.text} growing={growing} />
        )}
      </div>
      {turn.note && turn.state === "failed" ? <Problem text={turn.note} again={() => chat.again(turn)} /> : null}
      {turn.note && turn.state !== "failed" ? <p class="under">{turn.note}</p> : null}
      <Sources found={turn.citations} model={turn.model} />
      {!growing && (
        <div class="actions">
          <Versions turn={turn} />
          <button type="button" class="small" onClick={() => chat.again(turn)}>
            Answer again
          </button>
          <Copy text={turn.text} />
          <span class="under">
            {turn.state === "stopped" ? "stopped · " : ""}
            {turn.tokens.length > 0 ? many(turn.tokens.length, "token") : ""}
            {turn.rate > 0 ? ` · ${rate(turn.rate)} a second` : ""}
          </span>
        </div>
      )}
    </>
  );
}

function Versions({ turn }: { turn: Turn }) {
  const all = siblings(chat.tree.value, turn);
  if (all.length < 2) return null;
  const place = all.findIndex((other) => other.id === turn.id);
  const turned = (by: number) => {
    step(chat.tree.value, turn, by);
    chat.shown();
  };
  return (
    <span class="versions">
      <button
        type="button"
        class="small"
        disabled={place === 0}
        aria-label="Previous version"
        onClick={() => turned(-1)}
      >
        ‹
      </button>
      {count(place + 1)} of {count(all.length)}
      <button
        type="button"
        class="small"
        disabled={place === all.length - 1}
        aria-label="Next version"
        onClick={() => turned(1)}
      >
        ›
      </button>
    </span>
  );
}

export function Sources({ found, model }: { found: readonly Citation[]; model: string }) {
  if (!found.length) return null;
  const doubt = found.every((cited) => cited.relevant === false) ? ", likely not about the question" : "";
  return (
    <details class="sources">
      <summary>
        {many(found.length, "source")}
        {doubt}
      </summary>
      <ol>
        {found.map((cited, place) => (
          <li key={place}>
            <a href={link("documents", { ...passageOf(cited), model })}>
              {cited.title || cited.document || cited.doc_id || "a document"}
            </a>{" "}
            <span class="under inline">{placeOf(cited)}</span>
            {cited.text && <blockquote class="as-is">{cited.text}</blockquote>}
          </li>
        ))}
      </ol>
    </details>
  );
}

const passageOf = (cited: Citation): Record<string, string> => ({
  document: cited.document ?? cited.doc_id ?? "",
  start: String(cited.start ?? 0),
  end: String(cited.end ?? 0),
});

interface Where {
  readonly page?: number | null;
  readonly start?: number;
  readonly end?: number;
  readonly also?: readonly string[];
}

export function placeOf(cited: Where): string {
  const page = cited.page ? `page ${cited.page}` : "";
  const range = cited.start !== undefined && cited.end !== undefined ? `characters ${cited.start}–${cited.end}` : "";
  const copies = cited.also?.length ? `also in ${cited.also.join(", ")}` : "";
  return [page, range, copies].filter(Boolean).join(", ");
}
