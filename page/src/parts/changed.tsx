// Before and after: how the second model's next word, stream and lens differ from those of the first.
import { useMemo } from "preact/hooks";
import { type Between, before, type Read, usePart } from "../inside.ts";
import { number, percent, visible } from "../numbers.ts";
import { Columns } from "./columns.tsx";
import { Term } from "./term.tsx";
import { Touched } from "./touched.tsx";
import { Problem, Waiting, Wide } from "./words.tsx";

const nats = (value: number) => `${number(value, 3)} nats`;

export function Changed({ read }: { read: Read }) {
  const { answer, problem } = usePart<Between>(read, "before", { before: before.value }, true);
  return (
    <section>
      <h2>Before and after</h2>
      <p class="under">
        The same text through {before.value}, before, and through {read.of.model}, after.
      </p>
      <Problem text={problem} />
      {!answer && !problem && <Waiting>Reading the text with both models …</Waiting>}
      {answer && <Pictures read={read} answer={answer} />}
      {answer && <Touched read={read} />}
    </section>
  );
}

function Pictures({ read, answer }: { read: Read; answer: Between }) {
  const { divergence, moved, lens, parts } = answer.before;
  const series = useMemo(
    () => ({
      moved: [{ name: "moved", colour: 2, values: moved }],
      lens: [{ name: "lens", colour: 5, values: lens }],
    }),
    [answer],
  );
  const most = Math.max(1e-9, ...divergence);
  const where =
    parts === null
      ? "The lens differs by more than .01 nats behind no layer."
      : `The lens differs by more than .01 nats first ${parts ? `behind layer ${parts}` : "before the first layer"}.`;
  return (
    <div class="pair">
      <div class="column">
        <Columns
          title="How far the stream moved, relative to its length"
          series={series.moved}
          say={percent}
          summary={`At the end the stream moved by ${percent(moved.at(-1) ?? 0)} of its length`}
        />
        <Columns
          title="How far the next word by the lens differs (KL)"
          series={series.lens}
          say={nats}
          summary={`At the end the lens differs by ${nats(lens.at(-1) ?? 0)}`}
        />
        <p class="under">
          From before the first layer, on the left, to the last, for “{visible(read.tokens[read.at]?.text ?? "")}”.{" "}
          {where}
        </p>
      </div>
      <Wide name="The next word after each token">
        <table>
          <thead>
            <tr>
              <th scope="col">after</th>
              <th scope="col" class="figure">
                <Term of="KL divergence">KL</Term> of the next word, <Term of="nat">nats</Term>
              </th>
              <th scope="col" class="bar-cell">
                <span class="hidden">as a bar</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {divergence.map((each, place) => (
              <tr key={place}>
                <th scope="row" class="word">
                  {visible(read.tokens[place + read.soft]?.text ?? "")}
                </th>
                <td class="figure">{number(each, 4)}</td>
                <td class="bar-cell">
                  <span class="track" aria-hidden="true">
                    <span class="fill" style={{ width: `${(100 * each) / most}%` }} />
                  </span>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </Wide>
    </div>
  );
}
