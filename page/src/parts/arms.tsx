// The arms of a comparison: a table, score against cost, and the rows on which they disagree.
import { useSignal } from "@preact/signals";
import { api } from "../api.ts";
import { count, duration, megabytes, number } from "../numbers.ts";
import { useLoaded } from "../state.ts";
import type { Arm, Rows } from "../types.ts";
import { aboutOf, colourOf, Method } from "./methods.tsx";
import { Term } from "./term.tsx";
import { Empty, Pager, Problem, Wide } from "./words.tsx";

const shown = (value: number | null | undefined): value is number => value !== null && value !== undefined;

const LOWEST = -1e9; // below any score

function ranked(arms: readonly Arm[]): Arm[] {
  return [...arms].sort((a, b) => (b.score ?? LOWEST) - (a.score ?? LOWEST));
}

// The ends of the scale of scores: 0 and 1, of log-probabilities the lowest and 0.
function endsOf(arms: readonly Arm[]): [number, number] {
  const lowest = Math.min(0, ...arms.map((arm) => arm.ci_low ?? arm.score ?? 0));
  return lowest < 0 ? [lowest, 0] : [0, 1];
}

export function ArmTable({ arms: given, pick }: { arms: readonly Arm[]; pick?: string | null }) {
  const arms = ranked(given);
  const metric = metricOf(arms.find((arm) => arm.metric));
  const rows = arms.find((arm) => arm.n_test)?.n_test ?? 0;
  if (!arms.length) return <Empty>No arm is finished yet.</Empty>;
  return (
    <Wide name="Methods">
      <table class="arms">
        <caption>
          {metric} on {count(rows)} <Term of="test rows" /> with <Term of="95 % interval">95 % intervals</Term>, best
          first. Columns: <Term of="method" />, <Term of="peak memory" />, <Term of="artifact" />,{" "}
          <Term of="forgetting" />
        </caption>
        <thead>
          <tr>
            <th scope="col">method</th>
            <th scope="col">{metric}</th>
            <th scope="col" class="figure">
              ms per answer
            </th>
            <th scope="col" class="figure">
              training
            </th>
            <th scope="col" class="figure">
              peak memory
            </th>
            <th scope="col" class="figure">
              artifact
            </th>
            <th scope="col" class="figure">
              forgetting
            </th>
          </tr>
        </thead>
        <tbody>
          {arms.map((arm) => (
            <Row key={arm.method} arm={arm} pick={arm.method === pick} ends={endsOf(arms)} />
          ))}
        </tbody>
      </table>
    </Wide>
  );
}

// The name of the score in words.
export function metricOf(arm: Arm | undefined): string {
  return (arm?.metric ?? "score").replaceAll("_", " ");
}

const milliseconds = (value: number | null | undefined): string =>
  shown(value) && value < 1 ? "< 1" : number(value, 0);

function Row({ arm, pick, ends }: { arm: Arm; pick: boolean; ends: [number, number] }) {
  return (
    <tr class={pick ? "picked" : ""}>
      <th scope="row">
        <Method name={arm.method} role={pick ? "pick" : ""} colour={colourOf(arm)} />
        {arm.status && arm.status !== "ok" && <span class="badge unsure">{arm.status}</span>}
        <span class="under">{arm.reason || aboutOf(arm)?.what}</span>
      </th>
      <td>
        <b>{number(arm.score)}</b>
        {shown(arm.ci_low) && shown(arm.ci_high) && (
          <span class="under">
            {number(arm.ci_low)}–{number(arm.ci_high)}
          </span>
        )}
        {shown(arm.score) && <Interval arm={arm} ends={ends} />}
      </td>
      <td class="figure">{milliseconds(arm.ms_per_answer)}</td>
      <td class="figure">{duration((arm.train_seconds ?? 0) + (arm.search_seconds ?? 0))}</td>
      <td class="figure">{megabytes(arm.peak_rss_mb)}</td>
      <td class="figure">{megabytes(arm.artifact_mb)}</td>
      <td class="figure">{number(arm.forgetting_nats)}</td>
    </tr>
  );
}

// The score as a point and its interval as a line, on a scale between these ends.
function Interval({ arm, ends }: { arm: Arm; ends: [number, number] }) {
  const score = arm.score ?? ends[0];
  const x = (value: number) => 3 + (100 * (value - ends[0])) / (ends[1] - ends[0]);
  return (
    <svg class={`interval f${colourOf(arm)}`} viewBox="0 0 106 12" aria-hidden="true" focusable="false">
      <line class="scale" x1="3" x2="103" y1="6" y2="6" />
      <line class="range" x1={x(arm.ci_low ?? score)} x2={x(arm.ci_high ?? score)} y1="6" y2="6" />
      <circle cx={x(score)} cy="6" r="3.5" />
    </svg>
  );
}

const WIDEST = 620;
const HEIGHT = 300;
const LEFT = 52;
const BOTTOM = 44;
const TOP = 14;
const RIGHT = 100;

// Score against milliseconds per answer: an arm is on the front when none is both quicker and better.
export function Pareto({ arms, pick }: { arms: readonly Arm[]; pick?: string | null }) {
  const points = arms.flatMap((arm) =>
    shown(arm.score) && shown(arm.ms_per_answer)
      ? [{ arm, score: arm.score, ms: Math.max(0.1, arm.ms_per_answer) }]
      : [],
  );
  if (points.length < 2) return null;
  const width = Math.min(WIDEST, document.documentElement.clientWidth - 40); // one unit is one pixel, so that text keeps its size
  const low = Math.floor(Math.log10(Math.min(...points.map(({ ms }) => ms))));
  const high = Math.max(low + 1, Math.ceil(Math.log10(Math.max(...points.map(({ ms }) => ms)))));
  const x = (ms: number) => LEFT + ((Math.log10(ms) - low) / (high - low)) * (width - LEFT - RIGHT);
  const [least, most] = endsOf(arms);
  const y = (score: number) => TOP + ((most - score) / (most - least)) * (HEIGHT - TOP - BOTTOM);
  const best = points.filter((one) => !points.some((other) => other.ms <= one.ms && other.score > one.score));
  const front = best.sort((a, b) => a.ms - b.ms).map(({ ms, score }) => `${x(ms)},${y(score)}`);
  const every = (high - low + 1) * 62 > width - LEFT - RIGHT ? 2 : 1;
  const ticks = Array.from({ length: Math.floor((high - low) / every) + 1 }, (_, step) => 10 ** (low + every * step));
  return (
    <figure>
      <figcaption>
        Score against the time of an answer: up and to the left is better; the line joins the arms that none beats in
        both
      </figcaption>
      <svg
        class="drawn"
        viewBox={`0 0 ${width} ${HEIGHT}`}
        role="img"
        aria-label="Score against milliseconds per answer"
      >
        {[0, 0.25, 0.5, 0.75, 1]
          .map((share) => least + share * (most - least))
          .map((score) => (
            <g key={score}>
              <line class="scale" x1={LEFT} x2={width - RIGHT} y1={y(score)} y2={y(score)} />
              <text x={LEFT - 8} y={y(score) + 4} class="tick end">
                {Number(score.toFixed(2))}
              </text>
            </g>
          ))}
        {ticks.map((ms) => (
          <text key={ms} x={x(ms)} y={HEIGHT - BOTTOM + 20} class="tick middle">
            {ms >= 1000 ? `${ms / 1000} s` : `${ms} ms`}
          </text>
        ))}
        <text x={(LEFT + width - RIGHT) / 2} y={HEIGHT - 5} class="tick middle">
          time per answer
        </text>
        <polyline class="front" points={front.join(" ")} />
        {points.map(({ arm, score, ms }) => (
          <g key={arm.method} class={`f${colourOf(arm)}`}>
            <circle cx={x(ms)} cy={y(score)} r={arm.method === pick ? 7 : 5} />
            <text x={x(ms) + 11} y={y(score) + 4} class={arm.method === pick ? "label picked" : "label"}>
              {arm.method}
            </text>
          </g>
        ))}
      </svg>
    </figure>
  );
}

export function Disagreements({ path }: { path: string }) {
  const only = useSignal("disagreements");
  const offset = useSignal(0);
  const { value, problem } = useLoaded(`${path} ${only.value} ${offset.value}`, () =>
    api.rows(path, only.value, offset.value),
  );
  const found = value.value;
  const shownRows = found?.rows.length ?? 0;
  return (
    <section>
      <label class="field narrow">
        <span>Show</span>
        <select
          value={only.value}
          onChange={(event) => {
            offset.value = 0;
            only.value = event.currentTarget.value;
          }}
        >
          <option value="disagreements">rows on which they disagree</option>
          <option value="all">all rows</option>
        </select>
      </label>
      <Problem text={problem.value} />
      {found && found.total === 0 && <Empty>There are no such rows.</Empty>}
      {found && <RowList found={found} />}
      {found && found.total > shownRows && <Pager offset={offset} page={PAGE} shown={shownRows} total={found.total} />}
    </section>
  );
}

const PAGE = 50; // rows that the server sends at once

// Methods with the same answer share a line.
function grouped(found: Rows, row: Rows["rows"][number]) {
  const groups = new Map<string, { text: string; score: number | null; names: string[] }>();
  row.said.forEach((said, place) => {
    const name = found.methods[place]?.name;
    if (!said || name === undefined) return;
    const [text, score] = said;
    const group = groups.get(`${score} ${text}`) ?? { text, score, names: [] };
    group.names.push(name);
    groups.set(`${score} ${text}`, group);
  });
  return [...groups.values()].sort((a, b) => (b.score ?? LOWEST) - (a.score ?? LOWEST));
}

function RowList({ found }: { found: Rows }) {
  const pick = found.pick === null ? "" : found.methods[found.pick]?.name;
  return (
    <ol class="rows">
      {found.rows.map((row) => (
        <li key={row.where}>
          <div>
            <p class="under">{row.slice ? `${row.where} · ${row.slice}` : row.where}</p>
            <p class="as-is">{row.prompt}</p>
            <p>
              Accepted: <b>{row.answers.join("  or  ") || "(nothing)"}</b>
            </p>
          </div>
          <ul class="plain said">
            {grouped(found, row).map(({ text, score, names }) => (
              <li key={`${score} ${text}`} class={(score ?? LOWEST) >= found.right ? "right" : "wrong"}>
                <span class="points">{score === null ? "–" : score.toFixed(2)}</span>
                <span class="as-is">{text || "(nothing)"}</span>
                <span class="under who-said">
                  {names.map((name) => (
                    <Method
                      key={name}
                      name={name === pick ? `${name} (pick)` : name}
                      colour={found.methods.find((each) => each.name === name)?.colour}
                    />
                  ))}
                </span>
              </li>
            ))}
          </ul>
        </li>
      ))}
    </ol>
  );
}
