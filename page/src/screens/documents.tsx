// Collections of documents: search one, and read the passages where they stand.
import { signal, useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { api, told } from "../api.ts";
import { many } from "../numbers.ts";
import { FileChoice } from "../parts/files.tsx";
import { Term } from "../parts/term.tsx";
import { placeOf } from "../parts/turns.tsx";
import { Command, Empty, Field, Head, Problem, Waiting } from "../parts/words.tsx";
import { link, route } from "../route.ts";
import { quoted, useLoaded } from "../state.ts";
import type { Collection, Passage } from "../types.ts";

const collection = signal("");
const query = signal("");

export function Documents() {
  const { value, problem, again } = useLoaded("collections", api.collections);
  const given = route.value.query;
  const [path, wanted] = [given.get("collection"), given.get("query")];
  const all = value.value;
  useEffect(() => {
    if (path) collection.value = path;
    else if (!collection.value && all?.[0]) collection.value = all[0].path;
    if (wanted) query.value = wanted;
  }, [path, wanted, all]);
  return (
    <>
      <Head title="Documents">
        Make a <Term of="collection" /> of your own documents, search it, and read each <Term of="passage" /> where it
        stands.
      </Head>
      <Problem text={problem.value} again={again} />
      {!all && !problem.value && <Waiting />}
      {all?.length === 0 && <Empty>There is no collection of documents in this folder yet.</Empty>}
      {given.get("document") && <Cited />}
      {all && all.length > 0 && <Search all={all} />}
      {all && <Collect done={again} first={all.length === 0} />}
    </>
  );
}

function Search({ all }: { all: readonly Collection[] }) {
  const found = useSignal<readonly Passage[] | null>(null);
  const problem = useSignal("");
  const busy = useSignal(false);
  const about = all.find((each) => each.path === collection.value);
  const ask = async () => {
    busy.value = true;
    try {
      found.value = await api.search(collection.value, query.value);
      problem.value = "";
    } catch (error) {
      problem.value = told(error);
    }
    busy.value = false;
  };
  return (
    <>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (query.value.trim()) void ask();
        }}
      >
        <div class="fields">
          <Field
            label="Collection"
            hint={about ? `${many(about.documents.length, "document")}, ${many(about.passages, "passage")}` : ""}
          >
            <select value={collection.value} onChange={(event) => (collection.value = event.currentTarget.value)}>
              {all.map((each) => (
                <option key={each.path} value={each.path}>
                  {each.path}
                </option>
              ))}
            </select>
          </Field>
          <Field label="What do you look for?">
            <input type="search" value={query.value} onInput={(event) => (query.value = event.currentTarget.value)} />
          </Field>
        </div>
        <div class="actions">
          <button type="submit" class="main" disabled={busy.value || !query.value.trim()}>
            Search
          </button>
        </div>
      </form>
      <Problem text={problem.value || about?.problem || ""} />
      {busy.value && <Waiting>Searching …</Waiting>}
      {found.value?.length === 0 && <Empty>No passage was found.</Empty>}
      {found.value && found.value.length > 0 && <Found passages={found.value} />}
      {query.value.trim() && <Command text={`riyaz rag ask ${quoted(collection.value)} ${quoted(query.value)}`} />}
    </>
  );
}

// Passages of which none fits the question are shown only on demand.
function Found({ passages }: { passages: readonly Passage[] }) {
  const cards = (
    <ol class="plain cards" aria-live="polite">
      {passages.map((passage) => (
        <Card key={`${passage.doc_id} ${passage.start}`} passage={passage} />
      ))}
    </ol>
  );
  if (!passages.every((passage) => passage.relevant === false)) return cards;
  return (
    <>
      <Empty>Nothing relevant: no passage of these documents seems to answer the question.</Empty>
      <details>
        <summary>Show the nearest passages in any case</summary>
        {cards}
      </details>
    </>
  );
}

function Card({ passage }: { passage: Passage }) {
  const open = useSignal(false);
  const parts = [passage.doc_id, placeOf(passage), passage.relevant === false ? "likely not about the question" : ""];
  return (
    <li class="card passage">
      <h2>{passage.heading || passage.title || passage.doc_id}</h2>
      <p class="under">{parts.filter(Boolean).join(" · ")}</p>
      <p class="as-is">
        <Marked text={passage.text} words={query.value} />
      </p>
      <button type="button" class="small" onClick={() => (open.value = !open.value)} aria-expanded={open.value}>
        {open.value ? "Close the document" : "Where it stands"}
      </button>
      {open.value && (
        <InPlace of={{ collection: collection.value }} id={passage.doc_id} start={passage.start} end={passage.end} />
      )}
    </li>
  );
}

const ABOVE = 60; // pixels of the text before a passage that stay in sight

function intoSight(mark: HTMLElement | null): void {
  const box = mark?.parentElement;
  if (mark && box) box.scrollTop = mark.offsetTop - box.offsetTop - ABOVE;
}

// `of`: a collection, or the model whose answer cites the passage.
function InPlace(props: { of: Record<string, string>; id: string; start: number; end: number }) {
  const query = { ...props.of, id: props.id, start: String(props.start), end: String(props.end) };
  const { value, problem } = useLoaded(JSON.stringify(query), () => api.place(query));
  const found = value.value;
  return (
    <>
      <Problem text={problem.value} />
      {found && (
        // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard
        <section class="rendered in-place" tabIndex={0} aria-label={`A passage of ${props.id} in its place`}>
          {found.before}
          <mark ref={intoSight}>{found.passage}</mark>
          {found.after}
        </section>
      )}
    </>
  );
}

// A source that an answer of the chat cites.
function Cited() {
  const given = route.value.query;
  const [id, start, end] = [given.get("document") ?? "", given.get("start") ?? "0", given.get("end") ?? "0"];
  const model = given.get("model");
  const of: Record<string, string> = model ? { model } : { collection: collection.value };
  return (
    <section class="cited">
      <h2>{id}</h2>
      {model && (
        <p class="under">
          cited by {model} · <a href={link("chat", { model })}>back to the answer</a>
        </p>
      )}
      {(model || collection.value) && <InPlace of={of} id={id} start={Number(start)} end={Number(end)} />}
    </section>
  );
}

const documents = signal("");
const name = signal("documents.sqlite");

function Collect({ done, first }: { done: () => void; first: boolean }) {
  const problem = useSignal("");
  const said = useSignal("");
  const add = async () => {
    said.value = "Reading the documents …";
    problem.value = "";
    try {
      const { added } = await api.collect(name.value, documents.value);
      const counts = `${many(added.added, "document")} added, ${added.replaced} replaced, ${added.unchanged} unchanged.`;
      said.value = [counts, ...(added.notes ?? []).map((note) => `${note}.`)].join(" ");
      done();
    } catch (error) {
      said.value = "";
      problem.value = told(error);
    }
  };
  return (
    <details class="collect" open={first}>
      <summary>Make a collection, or add documents to one</summary>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (documents.value) void add();
        }}
      >
        <FileChoice
          label="Folder or file of documents"
          value={documents.value}
          kinds={["documents", "folder", "text", "data"]}
          upload
          set={(path) => (documents.value = path)}
        />
        <div class="fields">
          <Field label="Name of the collection">
            <input value={name.value} onInput={(event) => (name.value = event.currentTarget.value)} />
          </Field>
        </div>
        <div class="actions">
          <button type="submit" disabled={!documents.value || !name.value.trim()}>
            Add
          </button>
          <span class="under" role="status">
            {said.value}
          </span>
        </div>
        <Problem text={problem.value} />
        {documents.value && <Command text={`riyaz rag add ${quoted(name.value)} ${quoted(documents.value)}`} />}
      </form>
    </details>
  );
}

// The words of the question are marked in the passage.
function Marked({ text, words }: { text: string; words: string }) {
  const wanted = new Set(
    words
      .toLowerCase()
      .split(/[^\p{L}\p{N}]+/u)
      .filter((word) => word.length > 2),
  );
  return (
    <>
      {text
        .split(/([\p{L}\p{N}]+)/u)
        .map((piece, place) => (wanted.has(piece.toLowerCase()) ? <mark key={place}>{piece}</mark> : piece))}
    </>
  );
}
