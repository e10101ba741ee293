// What a model cannot do, as `riyaz limits` measured it.
import { signal, useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { api, told } from "../api.ts";
import { count, number } from "../numbers.ts";
import { Curve } from "../parts/curve.tsx";
import { FileChoice } from "../parts/files.tsx";
import { Command, Empty, Head, Problem, Waiting, Wide } from "../parts/words.tsx";
import { go, route } from "../route.ts";
import { models, quoted, useLoaded } from "../state.ts";
import type { Limits as Document, Figure } from "../types.ts";

const path = signal("");
const SUITES: Readonly<Record<string, string>> = {
  bias: "Bias",
  truth: "Truth",
  context: "Context",
  cost: "Cost",
  fragile: "Fragility",
};

export function Limits() {
  const given = route.value.query.get("path");
  useEffect(() => {
    if (given) path.value = given;
  }, [given]);
  return (
    <>
      <Head title="Limits">
        What a model cannot do, measured on this machine: bias, truth, context, cost, fragility.
      </Head>
      <FileChoice
        label="A folder with limits.json, or a run"
        value={path.value}
        kinds={["run", "artifact", "folder"]}
        set={(next) => (path.value = next)}
      />
      {path.value ? <Shown key={path.value} path={path.value} /> : <Measure />}
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
      <Empty>Choose a folder above, or measure a model now; that takes five minutes.</Empty>
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

function Shown({ path }: { path: string }) {
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
  return (
    <>
      <p class="under">
        {found.target}
        {found.date ? `, measured on ${found.date}` : ""}
      </p>
      {found.suites.map((suite) => (
        <section key={suite.name}>
          <h2>{SUITES[suite.name] ?? suite.name}</h2>
          {suite.left_out?.map((reason) => (
            <p key={reason} class="under">
              Left out: {reason}
            </p>
          ))}
          {suite.parts.map((part) => (
            <div key={part.name} class="part">
              <h3>{part.name}</h3>
              <p>{part.what}</p>
              <Figures figures={part.figures} />
              {part.curves?.map((curve) => (
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
          ))}
        </section>
      ))}
      {found.command && <Command text={found.command} />}
    </>
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
  return [low, high].map((end) => inUnit(end, unit).replace(` ${unit}`, "")).join(" to ");
}

function Figures({ figures }: { figures: readonly Figure[] }) {
  if (!figures.length) return null;
  return (
    <Wide name="Figures">
      <table>
        <caption>with 95 % intervals, and the number of items they are from</caption>
        <thead>
          <tr>
            <th scope="col">figure</th>
            <th scope="col" class="figure">
              value
            </th>
            <th scope="col" class="figure">
              from
            </th>
          </tr>
        </thead>
        <tbody>
          {figures.map((figure, place) => (
            <tr key={place}>
              <th scope="row">
                {figure.name}
                {figure.group && <span class="under">{figure.group}</span>}
              </th>
              <td class="figure">
                <b>{inUnit(figure.value, figure.unit ?? "")}</b>
                {typeof figure.low === "number" && typeof figure.high === "number" && (
                  <span class="under">{interval(figure.low, figure.high, figure.unit ?? "")}</span>
                )}
              </td>
              <td class="figure">{typeof figure.n === "number" ? count(figure.n) : "–"}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </Wide>
  );
}
