// Chat with a model or an adapter, and see what else each word could have been.
import { useSignal, useSignalEffect } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { api } from "../api.ts";
import * as chat from "../chat.ts";
import { count } from "../numbers.ts";
import { Drawer } from "../parts/drawer.tsx";
import { ModelPicker, modelLine } from "../parts/picker.tsx";
import { Term } from "../parts/term.tsx";
import { Inspector, Legend } from "../parts/tokens.tsx";
import { type Looked, TurnView } from "../parts/turns.tsx";
import { route } from "../route.ts";
import { modelOf } from "../state.ts";
import { path } from "../tree.ts";

const NEAR = 120; // pixels from the end within which the page follows a growing answer

export function Chat() {
  const looked = useSignal<Looked | null>(null);
  const panel = useRef<HTMLDivElement>(null);
  void chat.shapeOf.value;
  const turns = path(chat.tree.value);
  const wanted = route.value.query.get("model");
  useEffect(() => {
    if (wanted) chat.model.value = wanted;
  }, [wanted]);
  useFollowing();
  const enter = () => panel.current?.querySelector<HTMLElement>(".bars button")?.focus();
  return (
    <div class="chat">
      <header class="toolbar">
        <h1 class="hidden">Chat</h1>
        <ModelPicker label="Model" value={chat.model.value} set={(id) => (chat.model.value = id)} />
        <fieldset class="choice">
          <legend class="hidden">Show answers as</legend>
          <Choice name="Text" on={!chat.tokenView.value} set={() => (chat.tokenView.value = false)} />
          <Choice name="Tokens" on={chat.tokenView.value} set={() => (chat.tokenView.value = true)} />
        </fieldset>
        <button type="button" onClick={chat.clear} disabled={!turns.length}>
          New chat
        </button>
      </header>
      <p class="under">{modelLine(chat.model.value)}</p>
      <Drawer />
      {chat.tokenView.value && turns.length > 0 && <Legend />}
      <div class={chat.tokenView.value ? "talk beside" : "talk"}>
        <div class="turns" aria-live="polite" aria-relevant="additions">
          {turns.length ? (
            turns.map((turn) => <TurnView key={turn.id} turn={turn} looked={looked} enter={enter} />)
          ) : (
            <Begin />
          )}
        </div>
        {chat.tokenView.value && (
          <div class="panel" ref={panel}>
            <Candidates looked={looked.value} />
          </div>
        )}
      </div>
      <Composer />
    </div>
  );
}

function Choice(props: { name: string; on: boolean; set: () => void }) {
  return (
    <label>
      <input type="radio" name="view" checked={props.on} onChange={props.set} />
      <span>{props.name}</span>
    </label>
  );
}

// The page stays at the end of a growing answer while the reader is there.
function useFollowing(): void {
  useSignalEffect(() => {
    void chat.shapeOf.value;
    const last = path(chat.tree.value).at(-1);
    if (last) void chat.revision(last.id).value;
    const page = document.documentElement;
    const away = page.scrollHeight - innerHeight - scrollY;
    if (last?.state === "running" && away < NEAR) requestAnimationFrame(() => scrollTo({ top: page.scrollHeight }));
  });
}

const FIRST = [
  "What is the capital of France?",
  "Write two sentences about the sea.",
  "Explain to a child why the sky is blue.",
];

function Begin() {
  return (
    <div class="begin">
      <p class="lead">
        Ask something. The <Term of="model" /> runs on this machine, and nothing leaves it.
      </p>
      <ul class="plain">
        {FIRST.map((text) => (
          <li key={text}>
            <button type="button" class="suggested" onClick={() => chat.start(text)}>
              {text}
            </button>
          </li>
        ))}
      </ul>
      <p class="under">
        Choose “Tokens” above to see the <Term of="probability" /> of every word of an answer, and what else could have
        come.
      </p>
    </div>
  );
}

function Candidates({ looked }: { looked: Looked | null }) {
  const turn = looked ? chat.tree.value.turns[looked.turn] : undefined;
  const at = looked ? looked.at.value : -1;
  const token = turn?.tokens[at];
  if (!turn || !looked || !token) {
    return (
      <p class="under hint">
        Point at a word, or tap it, to see the ten likeliest words for its place. Choose one and the answer goes on from
        there.
      </p>
    );
  }
  return (
    <Inspector
      token={token}
      place={at}
      close={() => (looked.at.value = -1)}
      branch={(candidate) => {
        chat.branch(turn, at, candidate);
        looked.at.value = -1;
      }}
    />
  );
}

function Composer() {
  const busy = chat.running.value !== null;
  const send = () => {
    const text = chat.draft.value;
    if (!text.trim() || busy || !chat.model.value) return;
    chat.draft.value = "";
    chat.start(text);
  };
  return (
    <form
      class="composer"
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
    >
      <label class="hidden" for="question">
        Your question
      </label>
      <textarea
        id="question"
        rows={2}
        placeholder="Ask the model"
        value={chat.draft.value}
        onInput={(event) => (chat.draft.value = event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
          event.preventDefault();
          send();
        }}
      />
      <div class="composer-row">
        <Meter />
        {busy ? (
          // A button of its own: as the same one it would be "Ask" before the browser has done with this click.
          <button key="stop" type="button" class="main" onClick={chat.stop}>
            Stop
          </button>
        ) : (
          <button key="ask" type="submit" class="main" disabled={!chat.draft.value.trim()}>
            Ask
          </button>
        )}
      </div>
    </form>
  );
}

const PAUSE = 500; // milliseconds without a key before the draft is counted

// How much of the context the conversation fills.
function Meter() {
  const used = useSignal(0);
  void chat.shapeOf.value;
  const turns = path(chat.tree.value);
  const last = turns.at(-1);
  const text = chat.draft.value;
  const room = modelOf(chat.model.value)?.max_model_len ?? 0;
  const answered = last?.used ?? 0;
  const settled = chat.running.value === null;
  useEffect(() => {
    used.value = answered;
    if (!text.trim() || !settled) return;
    const soon = setTimeout(() => {
      const messages = [...chat.messagesOf(turns), { role: "user", content: text }];
      api.length(chat.requestOf(chat.model.value, messages)).then(
        ({ input_tokens }) => (used.value = input_tokens),
        () => undefined, // the answer itself will say what is wrong
      );
    }, PAUSE);
    return () => clearTimeout(soon);
  }, [text, answered, settled]);
  if (!room) return <span class="meter" />;
  const share = Math.min(1, used.value / room);
  return (
    <div class={share > 0.85 ? "meter full" : "meter"}>
      <span class="track" aria-hidden="true">
        <span class="fill" style={{ width: `${100 * share}%` }} />
      </span>
      <span>
        {count(used.value)} of {count(room)} <Term of="token">tokens</Term>
        {share > 0.85 ? ": start a new chat soon" : ""}
      </span>
    </div>
  );
}
