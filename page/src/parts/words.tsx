// Small parts of every screen: headings, refusals, commands, fields.
import { type Signal, useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { count } from "../numbers.ts";

export function Head(props: { title: string; children?: ComponentChildren }) {
  return (
    <header class="head">
      <h1>{props.title}</h1>
      {props.children !== undefined && <p class="lead">{props.children}</p>}
    </header>
  );
}

export function Problem(props: { text: string; again?: () => void }) {
  if (!props.text) return null;
  return (
    <p class="problem" role="alert">
      {props.text}
      {props.again && (
        <button type="button" class="small" onClick={props.again}>
          Try again
        </button>
      )}
    </p>
  );
}

export function Copy(props: { text: string; name?: string }) {
  const said = useSignal("");
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(props.text);
      said.value = "Copied";
    } catch {
      said.value = "Select the text and copy it";
    }
    setTimeout(() => {
      said.value = "";
    }, 2500);
  };
  return (
    <button type="button" class="small" onClick={copy}>
      <span aria-live="polite">{said.value || props.name || "Copy"}</span>
    </button>
  );
}

// The command line that does the same as the screen. A line breaks between words, not within `--out`.
export function Command(props: { text: string; children?: ComponentChildren }) {
  return (
    <div class="command">
      <span class="under">{props.children ?? "The same from the command line"}</span>
      <div class="line">
        <code>
          {props.text.split(" ").flatMap((word, place) => [place ? " " : "", <span key={place}>{word}</span>])}
        </code>
        <Copy text={props.text} />
      </div>
    </div>
  );
}

export function Field(props: { label: string; hint?: string; wide?: boolean; children: ComponentChildren }) {
  return (
    // biome-ignore lint/a11y/noLabelWithoutControl: the control is among the children
    <label class={props.wide ? "field wide" : "field"}>
      <span>{props.label}</span>
      {props.children}
      {props.hint && <small>{props.hint}</small>}
    </label>
  );
}

export function Slider(props: {
  label: string;
  value: number;
  min: number;
  max: number;
  step: number;
  shown?: string;
  set: (value: number) => void;
}) {
  return (
    <label class="field slider">
      <span>
        {props.label} <span class="output">{props.shown ?? String(props.value)}</span>
      </span>
      <input
        type="range"
        min={props.min}
        max={props.max}
        step={props.step}
        value={props.value}
        onInput={(event) => props.set(Number(event.currentTarget.value))}
      />
    </label>
  );
}

const TASKS: Readonly<Record<string, string>> = {
  closed: "choose one answer from a fixed set",
  short: "give a short answer",
  free: "write a text",
  questions: "answer typed questions",
};

// What the rows of a file ask of a model.
export const taskLine = (kind: string): string => `Task: ${TASKS[kind] ?? kind}`;

export function Empty(props: { children: ComponentChildren }) {
  return <p class="empty">{props.children}</p>;
}

export function Waiting(props: { children?: ComponentChildren }) {
  return (
    <p class="waiting" role="status">
      {props.children ?? "Reading …"}
    </p>
  );
}

// A section that opens on demand. Finding in the page opens it too, and paper has all of it.
export function Fold(props: { title: string; open?: boolean; children: ComponentChildren }) {
  const open = useState(props.open)[0]; // as it is when it appears: what the reader opens or closes stays so
  return (
    <details class="fold" open={open}>
      <summary>
        <h2>{props.title}</h2>
      </summary>
      {props.children}
    </details>
  );
}

export function Fact(props: { name: ComponentChildren; children: ComponentChildren; under?: ComponentChildren }) {
  return (
    <div>
      <dt>{props.name}</dt>
      <dd>
        <b>{props.children}</b>
        {props.under !== undefined && <span>{props.under}</span>}
      </dd>
    </div>
  );
}

// A table that may be wider than the page scrolls in its own box, by keyboard too.
export function Wide(props: { name: string; children: ComponentChildren }) {
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard
    <section class="wide-table" tabIndex={0} aria-label={props.name}>
      {props.children}
    </section>
  );
}

// Goes through the rows of a list in pages; `shown` of them stand above it.
export function Pager(props: { offset: Signal<number>; page: number; shown: number; total: number }) {
  const { offset, page, shown, total } = props;
  return (
    <div class="actions">
      <button
        type="button"
        disabled={offset.value === 0}
        onClick={() => (offset.value = Math.max(0, offset.value - page))}
      >
        Rows before
      </button>
      <button type="button" disabled={offset.value + shown >= total} onClick={() => (offset.value += page)}>
        Rows after
      </button>
      <span class="under">
        {count(offset.value + 1)}–{count(offset.value + shown)} of {count(total)}
      </span>
    </div>
  );
}
