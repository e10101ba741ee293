// Collections of documents: search one, and read the passages where they stand.
import { signal, useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { api, told } from "../api.ts";
import { many, number } from "../numbers.ts";
import { placeOf } from "../parts/turns.tsx";
import { Command, Empty, Field, Head, Problem, Waiting } from "../parts/words.tsx";
import { route } from "../route.ts";
import { quoted, useLoaded } from "../state.ts";
import type { Passage } from "../types.ts";

const collection = signal("");
const query = signal("");

export function Documents() {
  const { value, problem, again } = useLoaded("collections", api.collections);
  const given = route.value.query;
  const [path, wanted] = [given.get("collection"), given.get("query")];
  const all = value.value?.collections;
  useEffect(() => {
    if (path) collection.value = path;
    else if (!collection.value && all?.[0]) collection.value = all[0].path;
    if (wanted) query.value = wanted;
  }, [path, wanted, all]);
  return (
    <>
      <Head title="Documents">Search your own documents, and read each passage with its document, page and place.</Head>
      <Problem text={problem.value} again={again} />
      {!all && !problem.value && <Waiting />}
      {all?.length === 0 && (
        <>
          <Empty>There is no collection of documents in this folder yet.</Empty>
          <Command text="riyaz rag add my.sqlite handbook/">Make one from a folder of texts</Command>
        </>
      )}
      {all && all.length > 0 && <Search all={all} />}
    </>
  );
}

function Search({ all }: { all: readonly { path: string; name?: string; documents?: number; passages?: number }[] }) {
  const found = useSignal<readonly Passage[] | null>(null);
  const problem = useSignal("");
  const busy = useSignal(false);
  const about = all.find((each) => each.path === collection.value);
  const ask = async () => {
    busy.value = true;
    try {
      found.value = (await api.search(collection.value, query.value)).passages;
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
            hint={
              about?.documents ? `${many(about.documents, "document")}, ${many(about.passages ?? 0, "passage")}` : ""
            }
          >
            <select value={collection.value} onChange={(event) => (collection.value = event.currentTarget.value)}>
              {all.map((each) => (
                <option key={each.path} value={each.path}>
                  {each.name ?? each.path}
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
      <Problem text={problem.value} />
      {busy.value && <Waiting>Searching …</Waiting>}
      {found.value?.length === 0 && <Empty>No passage was found.</Empty>}
      {found.value && found.value.length > 0 && (
        <ol class="plain cards" aria-live="polite">
          {found.value.map((passage, place) => (
            <li key={place} class="card passage">
              <h2>{passage.title || passage.document}</h2>
              <p class="under">
                {[
                  passage.document,
                  placeOf({ ...passage }),
                  typeof passage.score === "number" ? `score ${number(passage.score, 2)}` : "",
                ]
                  .filter(Boolean)
                  .join(" · ")}
              </p>
              <p class="as-is">
                <Marked text={passage.text} words={query.value} />
              </p>
            </li>
          ))}
        </ol>
      )}
      {query.value.trim() && <Command text={`riyaz rag ask ${quoted(collection.value)} ${quoted(query.value)}`} />}
    </>
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
