// Curves over steps or time with uPlot, in the page's colours, drawn again when the theme or the width changes.
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import { number } from "../numbers.ts";

export interface Line {
  readonly name: string;
  readonly colour: number; // of the page's colours --c0 to --c10
  readonly points: readonly (readonly [number, number])[];
  readonly dashed?: boolean;
  readonly dots?: boolean;
}

interface Props {
  readonly title: string;
  readonly x: string;
  readonly lines: readonly Line[];
  readonly height?: number;
  readonly log?: boolean;
  readonly share?: boolean; // y goes from 0 to 1
}

const DARK = "(prefers-color-scheme: dark)";

// One x for all lines; a line without a value there has null.
function aligned(lines: readonly Line[]): uPlot.AlignedData {
  const xs = [...new Set(lines.flatMap((line) => line.points.map(([x]) => x)))].sort((a, b) => a - b);
  const columns = lines.map((line) => {
    const values = new Map(line.points);
    return xs.map((x) => values.get(x) ?? null);
  });
  return [xs, ...columns] as uPlot.AlignedData;
}

function options(props: Props, width: number): uPlot.Options {
  const style = getComputedStyle(document.documentElement);
  const colour = (name: string) => style.getPropertyValue(`--${name}`).trim();
  const font = "12px system-ui, sans-serif";
  const axis = { stroke: colour("quiet"), font, grid: { stroke: colour("rule"), width: 1 }, ticks: { show: false } };
  return {
    width,
    height: props.height ?? 260,
    legend: { show: false },
    cursor: { drag: { x: false, y: false } },
    scales: { x: { time: false }, y: props.log ? { distr: 3 } : props.share ? { range: [0, 1] } : {} },
    axes: [
      { ...axis, label: props.x, labelFont: font, labelSize: 20, size: 34, space: 70 },
      { ...axis, size: 46 },
    ],
    series: [
      {},
      ...props.lines.map((line) => ({
        label: line.name,
        stroke: colour(`c${line.colour}`),
        width: 2,
        spanGaps: true,
        dash: line.dashed ? [5, 4] : undefined,
        points: { show: line.dots ?? line.points.length < 3, size: 5, fill: colour(`c${line.colour}`) },
      })),
    ],
  };
}

export function Curve(props: Props) {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const names = props.lines.map((line) => line.name).join("\n");
  useEffect(() => {
    const held = place.current;
    if (!held) return;
    const draw = () => {
      plot.current?.destroy();
      plot.current = new uPlot(options(props, Math.max(200, held.clientWidth)), aligned(props.lines), held);
    };
    draw();
    const theme = matchMedia(DARK);
    const sizes = new ResizeObserver(() =>
      plot.current?.setSize({ width: held.clientWidth, height: props.height ?? 260 }),
    );
    sizes.observe(held);
    theme.addEventListener("change", draw);
    return () => {
      sizes.disconnect();
      theme.removeEventListener("change", draw);
      plot.current?.destroy();
      plot.current = null;
    };
  }, [names, props.log]);
  useEffect(() => {
    plot.current?.setData(aligned(props.lines));
  }, [props.lines]);
  const last = props.lines.map((line) => ({ line, point: line.points.at(-1) }));
  const spoken = last.map(({ line, point }) => (point ? `${line.name} ${number(point[1])} at ${point[0]}` : ""));
  return (
    <figure class="curve">
      <figcaption>{props.title}</figcaption>
      <p class="keys">
        {last.map(({ line, point }) => (
          <span key={line.name}>
            <span class={`stroke c${line.colour}${line.dashed ? " dashed" : ""}`} aria-hidden="true" />
            {line.name} {point && <b>{number(point[1])}</b>}
          </span>
        ))}
      </p>
      <div ref={place} class="plot" role="img" aria-label={`${props.title}: ${spoken.filter(Boolean).join("; ")}`} />
    </figure>
  );
}
