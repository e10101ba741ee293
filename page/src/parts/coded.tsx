// Weights in few bits: how often each code occurs in every kind of matrix, and how many weights are zero.
import { useMemo } from "preact/hooks";
import { type Codes, type Read, usePart } from "../inside.ts";
import { count, many, percent } from "../numbers.ts";
import { Heat, scaled } from "./heat.tsx";
import { useSeen } from "./seen.ts";
import { inLayer } from "./touched.tsx";
import { Problem, Waiting, Wide } from "./words.tsx";

type Coded = Codes["codes"][number];

interface Kind {
  readonly name: string;
  readonly matrices: number;
  readonly first: Coded;
  readonly counts: readonly number[];
  readonly zeros: number | null; // how many weights
}

// All layers of a kind of matrix added up, one line for each type that the file has of it.
function kinds(codes: readonly Coded[]): Kind[] {
  const groups = new Map<string, Kind>();
  for (const each of codes) {
    const name = inLayer(each.name)?.kind ?? each.name;
    const before = groups.get(`${name} ${each.kind}`);
    const counts = each.counts.map((own, place) => own + (before?.counts[place] ?? 0));
    const total = sum(each.counts);
    const zeros = each.zeros === null ? null : (before?.zeros ?? 0) + each.zeros * total;
    groups.set(`${name} ${each.kind}`, { name, matrices: (before?.matrices ?? 0) + 1, first: each, counts, zeros });
  }
  return [...groups.values()];
}

const sum = (numbers: readonly number[]): number => numbers.reduce((total, each) => total + each, 0);

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
                    <td class="figure">{row.zeros === null ? "–" : percent(row.zeros / sum(row.counts))}</td>
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
