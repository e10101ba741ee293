// Weights in few bits: how often each code occurs in every kind of matrix, and how many weights are zero.
import { useMemo } from "preact/hooks";
import { type Codes, type Read, usePart } from "../inside.ts";
import { count, many, percent } from "../numbers.ts";
import { Heat, scaled } from "./heat.tsx";
import { useSeen } from "./seen.ts";
import { OF_LAYER } from "./touched.tsx";
import { Problem, Waiting, Wide } from "./words.tsx";

type Coded = Codes["codes"][number];

interface Kind {
  readonly name: string;
  readonly matrices: number;
  readonly first: Coded;
  readonly counts: readonly number[];
  readonly zeros: number | null;
}

// All layers of a kind of matrix added up, one line for each type that the file has of it.
function kinds(codes: readonly Coded[]): Kind[] {
  const groups = new Map<string, Coded[]>();
  for (const each of codes) {
    const found = OF_LAYER.exec(each.name);
    const name = `${found?.[2] ?? found?.[4] ?? each.name} ${each.kind}`;
    groups.set(name, [...(groups.get(name) ?? []), each]);
  }
  return [...groups.values()].flatMap((group) => {
    const first = group[0];
    if (!first) return [];
    const counts = first.counts.map((_, place) => group.reduce((sum, each) => sum + (each.counts[place] ?? 0), 0));
    const weights = group.map((each) => each.counts.reduce((sum, own) => sum + own, 0));
    const all = weights.reduce((sum, own) => sum + own, 0);
    const zero = group.reduce((sum, each, place) => sum + (each.zeros ?? 0) * (weights[place] ?? 0), 0);
    const found = OF_LAYER.exec(first.name);
    const name = found?.[2] ?? found?.[4] ?? first.name;
    return [{ name, matrices: group.length, first, counts, zeros: first.zeros === null ? null : zero / all }];
  });
}

export function Coded({ read }: { read: Read }) {
  const { place, seen } = useSeen<HTMLElement>();
  const { answer, problem } = usePart<Codes>(read, "codes", {}, seen.value);
  const rows = useMemo(() => kinds(answer?.codes ?? []), [answer]);
  return (
    <section ref={place}>
      <h2>Weights in few bits</h2>
      <Problem text={problem} />
      {!answer && !problem && <Waiting />}
      {answer && rows.length === 0 && (
        <p class="under">The file holds no weights as codes of 8 bits or fewer, so there is nothing to count.</p>
      )}
      {rows.length > 0 && (
        <>
          <p class="under">
            The file holds a code for each weight. One field for each code, from the smallest; the most frequent of a
            row is darkest.
          </p>
          <Wide name="Codes of the weights">
            <table class="vectors">
              <thead>
                <tr>
                  <th scope="col">matrices</th>
                  <th scope="col">type</th>
                  <th scope="col">how often each code occurs</th>
                  <th scope="col" class="figure">
                    zeros
                  </th>
                </tr>
              </thead>
              <tbody>
                {rows.map((row) => (
                  <tr key={`${row.name} ${row.first.kind}`}>
                    <th scope="row">
                      {row.name}
                      <span class="under">{many(row.matrices, "matrix", "matrices")}</span>
                    </th>
                    <td>{row.first.kind}</td>
                    <td>
                      <Heat
                        label={spoken(row)}
                        columns={row.counts.length}
                        rows={1}
                        shades={scaled(row.counts)}
                        class="strip"
                      />
                      <span class="under">
                        {row.first.first} to {row.first.first + row.counts.length - 1}
                      </span>
                    </td>
                    <td class="figure">{row.zeros === null ? "–" : percent(row.zeros)}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </Wide>
        </>
      )}
    </section>
  );
}

function spoken(row: Kind): string {
  const most = row.counts.indexOf(Math.max(...row.counts));
  return `Codes of ${row.name}: the most frequent is ${row.first.first + most}, ${count(row.counts[most])} times`;
}
