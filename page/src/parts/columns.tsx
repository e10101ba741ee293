// Columns over the layers, with a mark at one of them: drawn once, so that only the mark moves with the slider.
import { memo } from "./memo.ts";

export interface Series {
  readonly name: string;
  readonly colour: number; // --c0 to --c10
  readonly values: readonly number[]; // one for each layer, from 0 on; below 0 the column hangs
}

interface Props {
  readonly title: string;
  readonly series: readonly Series[];
  readonly say: (value: number) => string;
  readonly summary: string; // for those who do not see the picture
}

function range(series: readonly Series[]): { most: number; least: number } {
  const values = series.flatMap((each) => each.values);
  return { most: Math.max(1e-9, ...values), least: Math.min(0, ...values) };
}

export const Columns = memo(({ title, series, say, summary }: Props) => {
  const { most, least } = range(series);
  const zero = (100 * most) / (most - least);
  const layers = series[0]?.values.length ?? 0;
  return (
    <figure class="layers">
      <figcaption>
        {title}
        {series.length > 1 &&
          series.map((each) => (
            <span key={each.name}>
              {" "}
              <span class={`key c${each.colour}`} /> {each.name}
            </span>
          ))}
        <span class="output"> · up to {say(most)}</span>
      </figcaption>
      <div class="over-layers" role="img" aria-label={summary}>
        {Array.from({ length: layers }, (_, place) => (
          <div key={place} class="of-layer">
            {series.map((each) => {
              const value = each.values[place] ?? 0;
              const height = (100 * Math.abs(value)) / (most - least);
              return (
                <span
                  key={each.name}
                  class={`c${each.colour}`}
                  style={{ top: `${value < 0 ? zero : zero - height}%`, height: `${height}%` }}
                />
              );
            })}
          </div>
        ))}
      </div>
    </figure>
  );
});
