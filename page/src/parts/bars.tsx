// The likeliest tokens as bars, on one scale.
import type { Shown } from "../numbers.ts";
import { percent, visible } from "../numbers.ts";

interface Props {
  readonly candidates: readonly Shown[];
  readonly colour?: number;
  readonly chosen?: string; // the token that stands in the text
  readonly about?: boolean; // the probabilities are estimated
  readonly pick?: (candidate: Shown) => void;
  readonly pickName?: (candidate: Shown) => string;
}

export function Bars(props: Props) {
  return (
    <ol class={`bars b${props.colour ?? 2}`}>
      {props.candidates.map((each, place) => (
        <li key={`${each.id ?? each.text}-${place}`} class={each.kept ? "" : "cut"}>
          <Bar {...props} each={each} />
        </li>
      ))}
    </ol>
  );
}

function Bar(props: Props & { each: Shown }) {
  const { each } = props;
  const inside = (
    <>
      <span class="word">
        {visible(each.text)}
        {each.text === props.chosen && <span class="hidden"> (chosen)</span>}
      </span>
      <span class="track" aria-hidden="true">
        <span class="fill" style={{ width: `${100 * each.p}%` }} />
      </span>
      <span class="share">{each.kept ? `${props.about ? "≈ " : ""}${percent(each.p)}` : "cut off"}</span>
    </>
  );
  const name = each.text === props.chosen ? "row chosen" : "row";
  if (!props.pick) return <div class={name}>{inside}</div>;
  return (
    <button type="button" class={name} title={props.pickName?.(each)} onClick={() => props.pick?.(each)}>
      {inside}
    </button>
  );
}
