// Pure functions over probabilities and numbers, and numbers in words.

export interface Candidate {
  readonly id?: number;
  readonly text: string;
  readonly logprob: number;
}

export interface Shown extends Candidate {
  readonly p: number; // after temperature and top-p
  readonly kept: boolean; // false: top-p cut it off
}

// ln of the sum over the vocabulary of exp(logprob / T). The tokens that were not sent share the rest evenly, which is
// the most that the sum can be above a temperature of 1.
export function logSum(candidates: readonly Candidate[], temperature: number, vocabulary: number): number {
  const scaled = candidates.map((each) => each.logprob / temperature);
  const rest = Math.max(0, 1 - candidates.reduce((sum, each) => sum + Math.exp(each.logprob), 0));
  const unseen = vocabulary - candidates.length;
  if (rest > 1e-9 && unseen > 0) scaled.push(Math.log(unseen) + Math.log(rest / unseen) / temperature);
  const most = Math.max(...scaled);
  return most + Math.log(scaled.reduce((sum, each) => sum + Math.exp(each - most), 0));
}

// Probabilities at a temperature and top-p, as the engine draws: temperature first, then the fewest of the likeliest
// tokens whose probabilities reach top-p, renormalised. At temperature 0 the likeliest token is certain.
export function shape(
  candidates: readonly Candidate[],
  temperature: number,
  topP: number,
  vocabulary: number,
  normalizer?: number,
): Shown[] {
  if (temperature === 0) return candidates.map((each, place) => ({ ...each, p: place ? 0 : 1, kept: place === 0 }));
  const total = normalizer ?? logSum(candidates, temperature, vocabulary);
  const p = candidates.map((each) => Math.exp(each.logprob / temperature - total));
  let before = 0;
  const kept = p.map((each, place) => {
    const keep = place === 0 || topP >= 1 || before < topP;
    before += each;
    return keep;
  });
  const mass = topP >= 1 ? 1 : p.reduce((sum, each, place) => sum + (kept[place] ? each : 0), 0);
  const whole = kept.every(Boolean) ? 1 : mass; // all that was sent is kept: the cut lies further down
  return candidates.map((each, place) => ({
    ...each,
    p: kept[place] ? (p[place] ?? 0) / whole : 0,
    kept: kept[place] ?? false,
  }));
}

// The token that a uniform number in [0, 1) draws; the likeliest where the tail that was not sent was hit.
export function drawn(shown: readonly Shown[], uniform: number): Shown | undefined {
  let left = uniform;
  for (const each of shown) {
    left -= each.p;
    if (left < 0) return each;
  }
  return shown[0];
}

// 0 (sure) to 5 (a surprise): the shade of a token by its probability.
export function surprise(logprob: number): number {
  const p = Math.exp(logprob);
  return p >= 0.9 ? 0 : p >= 0.6 ? 1 : p >= 0.35 ? 2 : p >= 0.15 ? 3 : p >= 0.04 ? 4 : 5;
}

export function percent(p: number): string {
  if (p > 0 && p < 0.0005) return "< 0.1 %";
  return `${(100 * p).toFixed(p >= 0.9995 || p === 0 ? 0 : 1)} %`;
}

export function count(value: number | null | undefined): string {
  return value === null || value === undefined ? "–" : Math.round(value).toLocaleString("en");
}

export function number(value: number | null | undefined, digits = 3): string {
  return value === null || value === undefined || !Number.isFinite(value) ? "–" : value.toFixed(digits);
}

// Tokens a second: a decimal where it says something.
export function rate(value: number): string {
  return value < 100 ? number(value, 1) : count(value);
}

export function many(value: number, one: string, more = `${one}s`): string {
  return `${count(value)} ${value === 1 ? one : more}`;
}

export function duration(seconds: number | null | undefined): string {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "–";
  if (seconds === 0) return "none";
  if (seconds < 0.001) return "< 1 ms";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  const minutes = Math.round(seconds / 60);
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export function bytes(value: number | null | undefined): string {
  if (value === null || value === undefined) return "–";
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let size = value;
  let unit = 0;
  while (size >= 1000 && unit < units.length - 1) {
    size /= 1000;
    unit += 1;
  }
  return `${size >= 100 || unit === 0 ? Math.round(size).toLocaleString("en") : size.toFixed(1)} ${units[unit]}`;
}

export function megabytes(value: number | null | undefined): string {
  return value === null || value === undefined ? "–" : bytes(value * 1e6);
}

export function big(value: number | null | undefined): string {
  if (value === null || value === undefined) return "–";
  if (value >= 1e9) return `${(value / 1e9).toFixed(1)} thousand million`;
  return value >= 1e6 ? `${(value / 1e6).toFixed(1)} million` : count(value);
}

// A token's text with what cannot be seen made visible.
export function visible(text: string): string {
  if (text === "") return "(end)";
  const shown = text
    .replaceAll("\n", "⏎")
    .replaceAll("\t", "⇥")
    .replace(/^ +| +$/g, (spaces) => "·".repeat(spaces.length));
  if (/[\p{L}\p{N}\p{P}\p{S}]/u.test(shown)) return shown;
  return [...text]
    .map((letter) => `U+${(letter.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0")}`)
    .join(" ");
}
