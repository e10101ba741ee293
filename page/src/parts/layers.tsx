// Layers: how the stream of one token grows, what each layer adds, and which word would come next if it were the last.
import { useComputed } from "@preact/signals";
import { useMemo } from "preact/hooks";
import { type Layer, layer, type Read } from "../inside.ts";
import { number, percent, visible } from "../numbers.ts";
import { Bars } from "./bars.tsx";
import { Columns } from "./columns.tsx";
import { memo } from "./memo.ts";
import { Term } from "./term.tsx";
import { Slider, Wide } from "./words.tsx";

const signed = (share: number) => `${share < 0 ? "−" : "+"}${(100 * Math.abs(share)).toFixed(1)} %`;
const name = (place: number) => (place ? `after layer ${place}` : "before the first layer");

export function Layers({ read }: { read: Read }) {
  const last = read.layers.length - 1;
  const answer = visible(read.next[0]?.text ?? "");
  const token = visible(read.tokens[read.at]?.text ?? "");
  return (
    <section>
      <h2>Layers</h2>
      <p class="under">
        The <Term of="residual stream">stream</Term> of “{token}” is a vector that {last} <Term of="layer">layers</Term>{" "}
        add to: <Term of="attention" /> brings in other tokens, the <Term of="MLP" /> works on this one.{" "}
        {since(read, answer)}
      </p>
      <div class="layered">
        <Pictures read={read} answer={answer} />
        <Mark last={last} />
      </div>
      <LayerSlider last={last} />
      <Chosen read={read} />
      <Lens read={read} answer={read.next[0]?.id ?? -1} />
    </section>
  );
}

function since(read: Read, answer: string): string {
  if (!read.appears) return `“${answer}” leads from the start.`;
  return `“${answer}”, the likeliest next token, leads from layer ${read.appears} on.`;
}

// What does not change while the slider moves.
const Pictures = memo(({ read, answer }: { read: Read; answer: string }) => {
  const rows = read.layers;
  const series = useMemo(() => {
    const share = (half: "attention" | "mlp") => rows.map((each) => each[half]?.share ?? 0);
    return {
      norm: [{ name: "length", colour: 9, values: rows.map((each) => each.norm) }],
      shares: [
        { name: "attention", colour: 2, values: share("attention") },
        { name: "MLP", colour: 5, values: share("mlp") },
      ],
      answer: [{ name: "answer", colour: 3, values: rows.map((each) => each.answer.probability) }],
    };
  }, [read]);
  const [first, final] = [rows[0], rows.at(-1)];
  return (
    <>
      <Columns
        title="Length of the stream"
        series={series.norm}
        say={say.plain}
        summary={`The length of the stream, from ${number(first?.norm, 1)} to ${number(final?.norm, 1)}`}
      />
      <Columns
        title="Share of the final stream that comes from"
        series={series.shares}
        say={signed}
        summary="The shares of attention and MLP of every layer in the final stream; the table below has them"
      />
      <Columns
        title={`Probability of “${answer}” if this were the last layer`}
        series={series.answer}
        say={percent}
        summary={`The probability of ${answer} layer by layer, at the end ${percent(final?.answer.probability ?? 0)}`}
      />
    </>
  );
});

const say = { plain: (value: number) => number(value, 1) };

const chosenOf = (last: number) => (layer.value < 0 ? last : Math.min(layer.value, last));

function Mark({ last }: { last: number }) {
  const width = 100 / (last + 1);
  return <span class="marker" aria-hidden="true" style={{ left: `${width * chosenOf(last)}%`, width: `${width}%` }} />;
}

function LayerSlider({ last }: { last: number }) {
  const chosen = chosenOf(last);
  return (
    <div class="layered">
      <Slider
        label="Layer"
        value={chosen}
        min={0}
        max={last}
        step={1}
        shown={name(chosen)}
        set={(value) => (layer.value = value)}
      />
    </div>
  );
}

// The layer under the slider.
function Chosen({ read }: { read: Read }) {
  const place = chosenOf(read.layers.length - 1);
  const one = read.layers[place];
  if (!one) return null;
  const bars = one.lens.map((each) => ({
    id: each.id,
    text: each.text,
    logprob: Math.log(each.probability),
    p: each.probability,
    kept: true,
  }));
  return (
    <div class="of-chosen">
      <p>
        <b>{place ? `After layer ${place}` : "Before the first layer"}</b> the stream has the length{" "}
        {number(one.norm, 1)}.{" "}
        {one.attention && one.mlp
          ? `Of the final stream, attention of this layer is ${signed(one.attention.share)}, its MLP ${signed(one.mlp.share)}; a part that points against it counts below zero.`
          : `It is the token’s vector, ${signed(read.embedding_share)} of the final stream.`}{" "}
        If the model ended here, the next token would be:
      </p>
      <Bars candidates={bars} colour={2} />
    </div>
  );
}

const Lens = memo(({ read, answer }: { read: Read; answer: number }) => (
  <details>
    <summary>Every layer as a table</summary>
    <Wide name="The next token by layer">
      <table class="lens">
        <thead>
          <tr>
            <th scope="col">layer</th>
            <th scope="col" class="figure">
              length
            </th>
            <th scope="col" class="figure">
              attention
            </th>
            <th scope="col" class="figure">
              MLP
            </th>
            <th scope="col" colSpan={5}>
              <Term of="logit lens">the likeliest next tokens if the model ended there</Term>
            </th>
            <th scope="col" class="figure">
              rank of the answer
            </th>
          </tr>
        </thead>
        <tbody>
          {read.layers.map((each) => (
            <LensRow key={each.layer} one={each} answer={answer} share={read.embedding_share} />
          ))}
        </tbody>
      </table>
    </Wide>
  </details>
));

function LensRow({ one, answer, share }: { one: Layer; answer: number; share: number }) {
  const chosen = useComputed(() => layer.value === one.layer);
  return (
    <tr class={chosen.value ? "picked" : ""}>
      <th scope="row">{one.layer || "start"}</th>
      <td class="figure">{number(one.norm, 1)}</td>
      <td class="figure">{one.attention ? signed(one.attention.share) : ""}</td>
      <td class="figure">{one.mlp ? signed(one.mlp.share) : signed(share)}</td>
      {one.lens.map((each) => (
        <td
          key={each.id}
          class={each.id === answer ? "word answer" : "word"}
          style={{ background: `color-mix(in srgb, var(--c3) ${Math.round(45 * each.probability)}%, transparent)` }}
        >
          {visible(each.text)} <span class="under">{percent(each.probability)}</span>
        </td>
      ))}
      <td class="figure">{one.answer.rank}</td>
    </tr>
  );
}
