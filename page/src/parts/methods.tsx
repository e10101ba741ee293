// The methods of a comparison in words and colours: what its own files say of one, else what this server knows.
import { info } from "../state.ts";
import type { About } from "../types.ts";

export const methods = (): Readonly<Record<string, About>> => info.value?.methods ?? {};

interface OfMethod {
  readonly method: string; // METHOD@BASE of an arm beside those on other bases
  readonly about?: About | null;
}

export const aboutOf = (arm: OfMethod): About | undefined => arm.about ?? methods()[arm.method.split("@")[0] ?? ""];

// An arm whose base, where it has one, is in its name.
export const named = <T extends { readonly method: string; readonly base?: string | null }>(arm: T): T =>
  arm.base ? { ...arm, method: `${arm.method}@${arm.base}`, base: null } : arm;

export function colourOf(arm: OfMethod): number {
  const known = aboutOf(arm);
  if (known) return known.colour;
  const sum = new TextEncoder().encode(arm.method).reduce((total, byte) => total + byte, 0);
  return sum % 2 ? 9 : 8;
}

export function Method(props: { name: string; role?: string; colour?: number }) {
  return (
    <span class="method">
      <span class={`dot c${props.colour ?? colourOf({ method: props.name })}`} aria-hidden="true" />
      {props.name}
      {props.role && <span class="badge sure">{props.role}</span>}
    </span>
  );
}
