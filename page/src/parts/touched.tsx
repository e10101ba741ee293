// Which part of the model a method touched: the prompt, vectors before it, pairs beside the matrices, or every weight.
import { useMemo } from "preact/hooks";
import { before, type Read, usePart, type Weights } from "../inside.ts";
import { many, number, percent } from "../numbers.ts";
import { Heat } from "./heat.tsx";
import { Problem, Waiting, Wide } from "./words.tsx";

type Linear = Weights["weights"]["linears"][number];

const OF_LAYER = /(?:layers?|\bh)\.(\d+)\.(.+)$/;

// The layer of a matrix, and its name without that; null outside the layers.
export function inLayer(name: string): { readonly layer: number; readonly kind: string } | null {
  const found = OF_LAYER.exec(name);
  return found ? { layer: Number(found[1]), kind: found[2] ?? "" } : null;
}

export function Touched({ read }: { read: Read }) {
  const { answer, problem } = usePart<Weights>(read, "weights", { before: before.value }, true);
  return (
    <>
      <h3>Which part of the model was touched</h3>
      <Problem text={problem} />
      {!answer && !problem && <Waiting>Comparing the weights …</Waiting>}
      {answer && <Parts weights={answer.weights} />}
      {answer && answer.weights.linears.length > 0 && <Matrices linears={answer.weights.linears} />}
    </>
  );
}

function Parts({ weights }: { weights: Weights["weights"] }) {
  const { prompt, vectors, pairs, weights: changed, labels } = weights.touched;
  const parts = [
    { name: "Text of the prompt", said: prompt.join(", ") },
    { name: "Vectors before the text", said: vectors ? many(vectors, "vector") : "" },
    { name: "Pairs beside matrices", said: pairs ? many(pairs, "matrix", "matrices") : "" },
    { name: "The weights themselves", said: changed ? many(changed, "matrix", "matrices") : "" },
    { name: "A head of labels", said: labels ? many(labels, "label") : "" },
  ];
  return (
    <ul class="touched">
      {parts.map(({ name, said }) => (
        <li key={name} class={said ? "on" : ""}>
          <b>{name}</b>
          <span>{said || "not touched"}</span>
        </li>
      ))}
    </ul>
  );
}

// (Σσ)² / Σσ²: how many of its ranks a change uses, between 1 and all.
export function ranksOf(spectrum: readonly number[]): number {
  const sum = spectrum.reduce((total, each) => total + each, 0);
  const squares = spectrum.reduce((total, each) => total + each * each, 0);
  return squares > 0 ? (sum * sum) / squares : 0;
}

// Rows are the kinds of matrix, columns the layers; what belongs to no layer is told below.
function grid(linears: readonly Linear[]) {
  const kinds = new Map<string, (Linear | undefined)[]>();
  const others: Linear[] = [];
  for (const each of linears) {
    const place = inLayer(each.name);
    if (!place) {
      others.push(each);
      continue;
    }
    const row = kinds.get(place.kind) ?? [];
    row[place.layer] = each;
    kinds.set(place.kind, row);
  }
  const layers = Math.max(0, ...[...kinds.values()].map((row) => row.length));
  return { kinds: [...kinds], others, layers };
}

function Matrices({ linears }: { linears: readonly Linear[] }) {
  const { kinds, others, layers } = useMemo(() => grid(linears), [linears]);
  const most = linears.reduce((a, b) => (b.relative > a.relative ? b : a));
  const scale = most.relative || 1;
  const pairs = linears.some((each) => each.spectrum.length > 0);
  return (
    <>
      <p class="under">
        The length of each matrix's change, divided by that of the matrix: one field for each layer, from the first on
        the left. The darkest field is {most.name} with {percent(most.relative)}.
      </p>
      <Wide name="Change of each matrix by layer">
        <table class="vectors">
          <thead>
            <tr>
              <th scope="col">matrix</th>
              <th scope="col">layers</th>
              <th scope="col" class="figure">
                mean
              </th>
              {pairs && (
                <th scope="col" class="figure">
                  ranks in use
                </th>
              )}
            </tr>
          </thead>
          <tbody>
            {kinds.map(([kind, row]) => {
              const own = row.filter((each) => each !== undefined);
              const mean = own.reduce((sum, each) => sum + each.relative, 0) / own.length;
              const ranks = own.reduce((sum, each) => sum + ranksOf(each.spectrum), 0) / own.length;
              return (
                <tr key={kind}>
                  <th scope="row">{kind}</th>
                  <td>
                    <Heat
                      label={`Change of ${kind} in ${layers} layers, on average ${percent(mean)}`}
                      columns={layers}
                      rows={1}
                      shades={Array.from({ length: layers }, (_, layer) => (row[layer]?.relative ?? 0) / scale)}
                      class="strip"
                    />
                  </td>
                  <td class="figure">{percent(mean)}</td>
                  {pairs && (
                    <td class="figure">
                      {number(ranks, 1)} of {Math.max(...own.map((each) => each.spectrum.length))}
                    </td>
                  )}
                </tr>
              );
            })}
            {others.map((each) => (
              <tr key={each.name}>
                <th scope="row">{each.name}</th>
                <td />
                <td class="figure">{percent(each.relative)}</td>
                {pairs && <td />}
              </tr>
            ))}
          </tbody>
        </table>
      </Wide>
      {pairs && (
        <p class="under">
          Ranks in use are (Σσ)² / Σσ² of the singular values σ of B·A: equal values use every rank, one large value
          uses one.
        </p>
      )}
    </>
  );
}
