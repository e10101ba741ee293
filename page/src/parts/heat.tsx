// Numbers as a picture of coloured fields: a strip of a vector, or what every token looks at.
import { signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";

const themes = signal(0); // grows with every change of the theme
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  themes.value += 1;
});

type Colour = readonly [number, number, number];

function colourOf(name: string): Colour {
  const written = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const parts = [1, 3, 5].map((place) => Number.parseInt(written.slice(place, place + 2), 16));
  return [parts[0] ?? 0, parts[1] ?? 0, parts[2] ?? 0];
}

interface Props {
  readonly label: string; // empty: what stands beside the picture says it
  readonly columns: number;
  readonly rows: number;
  readonly shades: ArrayLike<number>; // row by row, from -1 to 1; those below 0 have the other colour
  readonly class?: string;
}

// One point of the picture is one number; the styles make it larger.
export function Heat({ label, columns, rows, shades, class: name }: Props) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const theme = themes.value;
  useEffect(() => {
    const context = canvas.current?.getContext("2d");
    if (!context || !columns || !rows) return;
    const [above, below] = [colourOf("--c2"), colourOf("--c6")];
    const image = context.createImageData(columns, rows);
    for (let place = 0; place < columns * rows; place += 1) {
      const shade = shades[place] ?? 0;
      const [red, green, blue] = shade < 0 ? below : above;
      image.data.set([red, green, blue, Math.round(255 * Math.min(1, Math.abs(shade)))], 4 * place);
    }
    context.putImageData(image, 0, 0);
  }, [shades, columns, rows, theme]);
  return (
    <canvas
      ref={canvas}
      width={columns}
      height={rows}
      class={name ? `heat ${name}` : "heat"}
      role={label ? "img" : undefined}
      aria-label={label || undefined}
      aria-hidden={!label}
    />
  );
}

// A vector's numbers relative to the largest.
export function scaled(numbers: readonly number[]): number[] {
  const most = Math.max(1e-30, ...numbers.map(Math.abs));
  return numbers.map((each) => each / most);
}
