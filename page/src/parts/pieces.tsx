// Words to numbers: the tokens of a text, one of which is looked at; their vectors, and the tokens nearest to them.
import { useSignal } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";
import { at, type Near, type Piece, type Read, usePart } from "../inside.ts";
import { count, number, visible } from "../numbers.ts";
import { Heat, scaled } from "./heat.tsx";
import { Term } from "./term.tsx";
import { Problem, Wide } from "./words.tsx";

const STEPS: Readonly<Record<string, number>> = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };

// The tokens as buttons of which one is on: by pointer, or with the arrow keys, Home and End.
export function Chooser({ read }: { read: Read }) {
  const last = read.tokens.length - 1;
  const chosen = at.value < 0 ? last : Math.min(at.value, last);
  const choose = (place: number) => {
    if (place >= read.soft) at.value = place;
  };
  const keys = (event: KeyboardEvent) => {
    const step = STEPS[event.key];
    if (step === undefined && event.key !== "Home" && event.key !== "End") return;
    event.preventDefault();
    const next = step === undefined ? (event.key === "Home" ? read.soft : last) : chosen + step;
    at.value = Math.max(read.soft, Math.min(last, next));
    const group = event.currentTarget as HTMLElement;
    requestAnimationFrame(() => group.querySelector<HTMLElement>("[aria-checked=true]")?.focus());
  };
  return (
    <div class="chooser" role="radiogroup" aria-label="The token that is looked at" onKeyDown={keys}>
      {read.tokens.map((token, place) => (
        // biome-ignore lint/a11y/useSemanticElements: radio inputs would need a name and a label for each token
        <span
          key={place}
          role="radio"
          class="word"
          aria-checked={place === chosen}
          aria-disabled={place < read.soft}
          tabIndex={place === chosen ? 0 : -1}
          onClick={() => choose(place)}
          onKeyDown={(event) => event.key === " " && choose(place)}
        >
          {visible(token.text)}
        </span>
      ))}
    </div>
  );
}

export function Pieces({ read }: { read: Read }) {
  const wanted = useSignal(false);
  const { answer, problem } = usePart<Near>(read, "near", { at: -1 }, wanted.value);
  useEffect(() => {
    wanted.value = false;
  }, [read.of.text, read.of.model]);
  const near = answer?.near;
  return (
    <section>
      <h2>Words to numbers</h2>
      <p class="under">
        The text is cut into <Term of="token">tokens</Term>. Each has a number, its id, and under this number a{" "}
        <Term of="vector" /> in a table of {count(read.model.vocabulary)} rows: {count(read.model.width)} numbers, of
        which the first {read.tokens[0]?.vector.length} are shown. <span class="key c2" /> above zero,{" "}
        <span class="key c6" /> below; the largest of a row is darkest.
      </p>
      <Wide name="Tokens and their vectors">
        <table class="vectors">
          <thead>
            <tr>
              <th scope="col">token</th>
              <th scope="col" class="figure">
                id
              </th>
              <th scope="col">vector</th>
              <th scope="col" class="figure">
                length
              </th>
              {near && <th scope="col">nearest tokens, with the cosine</th>}
            </tr>
          </thead>
          <tbody>
            {read.tokens.map((token, place) => (
              <Row key={place} token={token} near={near?.[place - read.soft]} />
            ))}
          </tbody>
        </table>
      </Wide>
      <Problem text={problem} />
      {!near && (
        <button type="button" disabled={wanted.value && !problem} onClick={() => (wanted.value = true)}>
          {wanted.value && !problem ? "Comparing with every token …" : "Show the nearest tokens"}
        </button>
      )}
    </section>
  );
}

function Row({ token, near }: { token: Piece; near?: Near["near"][number] }) {
  const shades = useMemo(() => scaled(token.vector), [token]);
  return (
    <tr>
      <th scope="row" class="word">
        {visible(token.text)}
      </th>
      <td class="figure">{token.id < 0 ? "–" : token.id}</td>
      <td>
        <Heat
          label={`The first ${token.vector.length} numbers of the vector of ${visible(token.text)}`}
          columns={token.vector.length}
          rows={1}
          shades={shades}
          class="strip"
        />
      </td>
      <td class="figure">{number(token.norm, 2)}</td>
      {near && (
        <td>
          {near.map((each) => (
            <span key={each.id} class="near">
              <span class="word">{visible(each.text)}</span> {number(each.cosine, 2)}
            </span>
          ))}
        </td>
      )}
    </tr>
  );
}
