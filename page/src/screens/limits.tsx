// What a model cannot do, as `riyaz limits` measured it.
import { signal, useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { api, told } from "../api.ts";
import { count, number } from "../numbers.ts";
import { Curve } from "../parts/curve.tsx";
import { FileChoice } from "../parts/files.tsx";
import { Samples } from "../parts/later.tsx";
import { Term } from "../parts/term.tsx";
import { Command, Empty, Head, Problem, Waiting, Wide } from "../parts/words.tsx";
import { go, route } from "../route.ts";
import { models, quoted, useLoaded } from "../state.ts";
import type { Limits as Document, Figure, LimitsPart as Part } from "../types.ts";

const path = signal("");
const SUITES: Readonly<Record<string, string>> = {
  bias: "Bias",
  truth: "Hallucination",
  context: "Context",
  cost: "Cost",
  fragile: "How fragile",
};

export function Limits() {
  const given = route.value.query.get("path");
  useEffect(() => {
    if (given) path.value = given;
  }, [given]);
  return (
    <>
      <Head title="Limits">
        What a model cannot do: bias, <Term of="hallucination" />, <Term of="context" />, cost, how fragile it is. No
        figure here says that a model is fair, truthful or understands: every part ends with what it cannot see.
      </Head>
      <FileChoice
        label="A folder with limits.json, or a run"
        value={path.value}
        kinds={["run", "artifact", "folder"]}
        set={(next) => (path.value = next)}
      />
      {path.value ? <Shown key={path.value} path={path.value} /> : <Measure />}
      {!path.value && <Samples of="limits" />}
    </>
  );
}

function Measure() {
  const target = models.value.find((model) => model.parent === null)?.id ?? "smollm2-135m";
  const problem = useSignal("");
  const start = async () => {
    try {
      go("run", { path: (await api.start({ verb: "limits", target, budget: "5m" })).path });
    } catch (error) {
      problem.value = told(error);
    }
  };
  return (
    <>
      <Empty>Choose a folder above, or measure a model now; that takes up to five minutes.</Empty>
      <div class="actions">
        <button type="button" onClick={() => void start()}>
          Measure {target}
        </button>
      </div>
      <Problem text={problem.value} />
      <Command text={`riyaz limits ${quoted(target)} --budget 5m --out limits`} />
    </>
  );
}

export function Shown({ path }: { path: string }) {
  const { value, problem, again } = useLoaded(path, () => api.limits(path));
  const found = value.value;
  return (
    <>
      <Problem text={problem.value} again={again} />
      {!found && !problem.value && <Waiting />}
      {found && Object.entries(found).map(([name, each]) => <Suites key={name} found={each} />)}
    </>
  );
}

function Suites({ found }: { found: Document }) {
  const beyond = found.suites.flatMap((suite) => suite.parts.flatMap(beyondChance));
  return (
    <>
      <p class="under">
        {found.target}
        {found.date ? `, measured on ${found.date}` : ""}
      </p>
      {beyond.length > 0 && (
        <>
          <p>
            Beyond chance, by their 95 % intervals; of twenty figures without a finding one is expected to be listed
            too:
          </p>
          <ul>
            {beyond.map((line) => (
              <li key={line}>{line}</li>
            ))}
          </ul>
        </>
      )}
      <p class="under">
        The small line under a value is its <Term of="95 % interval" />; the last column counts the items.
      </p>
      {found.suites.map((suite) => (
        <section key={suite.name}>
          <h2>{SUITES[suite.name] ?? suite.name}</h2>
          {suite.parts.map((part) => (
            <PartView key={part.name} part={part} />
          ))}
          {suite.left_out && suite.left_out.length > 0 && (
            <>
              <p class="under">Left out:</p>
              <ul class="under">
                {suite.left_out.map((reason) => (
                  <li key={reason}>{reason}</li>
                ))}
              </ul>
            </>
          )}
        </section>
      ))}
      {found.command && <Command text={found.command} />}
    </>
  );
}

// The figures whose interval does not hold the value where nothing is found.
function beyondChance(part: Part): string[] {
  return part.figures.flatMap(({ name, group = "all", value, low, high, even, unit = "" }) => {
    if (typeof even !== "number" || typeof low !== "number" || typeof high !== "number") return [];
    if (low <= even && even <= high) return [];
    const of = group === "all" ? "" : `, ${group}`;
    return [`${part.name}${of}: ${name} ${inUnit(value, unit)} (${interval(low, high, unit)})`];
  });
}

// One point is a figure, which the table has.
const hasCourse = (curve: { readonly points: readonly unknown[] }): boolean => curve.points.length > 1;

function PartView({ part }: { part: Part }) {
  return (
    <div class="part">
      <h3>{part.name}</h3>
      <p>{part.what}</p>
      <Figures part={part} />
      {part.curves?.filter(hasCourse).map((curve) => (
        <Curve
          key={curve.name}
          title={`${curve.y} by ${curve.x}`}
          x={curve.x}
          height={180}
          share={(curve.unit ?? "share") === "share"}
          lines={[{ name: curve.y, colour: 2, points: curve.points, dots: true }]}
        />
      ))}
      {part.notes?.map((note) => (
        <p key={note} class="under">
          {note}
        </p>
      ))}
      <p class="under">It does not see: {part.blind}</p>
    </div>
  );
}

function inUnit(value: number | null | undefined, unit: string): string {
  if (value === null || value === undefined) return "–";
  if (unit === "share") return `${(100 * value).toFixed(1)} %`;
  if (["count", "rows", "tokens"].includes(unit)) return `${count(value)} ${unit === "count" ? "" : unit}`.trim();
  const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 3;
  if (unit === "FLOP" && value >= 1e9) return `${count(value / 1e9)} GFLOP`;
  const written = value >= 1000 ? count(value) : number(value, digits).replace("-", "−");
  return `${written} ${unit === "score" ? "" : unit}`.trim();
}

// The unit stands with the value above it.
function interval(low: number, high: number, unit: string): string {
  const sign = unit === "share" ? " %" : ` ${unit}`;
  return [low, high].map((end) => inUnit(end, unit).replace(sign, "")).join(" to ");
}

function Figures({ part }: { part: Part }) {
  const { name, figures } = part;
  if (!figures.length) return null;
  const evens = new Set(figures.map((figure) => figure.even ?? null));
  const [even = null] = evens.size === 1 ? evens : [];
  return (
    <Wide name={`Figures of ${name}`}>
      <table>
        <caption class="hidden">{name}</caption>
        <thead>
          <tr>
            <th scope="col">figure</th>
            <th scope="col" class="figure">
              value
              {even !== null && <span class="under">even: {inUnit(even, figures[0]?.unit ?? "")}</span>}
            </th>
            <th scope="col" class="figure">
              from
            </th>
          </tr>
        </thead>
        <tbody>
          {figures.map((figure, place) => (
            <Row key={place} figure={figure} even={evens.size > 1} />
          ))}
        </tbody>
      </table>
    </Wide>
  );
}

function Row({ figure, even }: { figure: Figure; even: boolean }) {
  const { name, group = "all", value, low, high, n, unit = "", p_value: p } = figure;
  return (
    <tr>
      <th scope="row">
        {name}
        {group !== "all" && <span class="under">{group}</span>}
      </th>
      <td class="figure">
        <b>{inUnit(value, unit)}</b>
        {typeof low === "number" && typeof high === "number" && <span class="under">{interval(low, high, unit)}</span>}
        {even && typeof figure.even === "number" && <span class="under">even: {inUnit(figure.even, unit)}</span>}
        {typeof p === "number" && <span class="under">{p < 0.001 ? "p < 0.001" : `p ${p.toFixed(3)}`}</span>}
      </td>
      <td class="figure">{typeof n === "number" ? count(n) : "–"}</td>
    </tr>
  );
}
