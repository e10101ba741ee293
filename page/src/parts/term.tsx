// A word that the glossary explains when it is pointed at, focused or touched.
import type { ComponentChildren } from "preact";
import type glossary from "../glossary.json";

export function Term(props: { of: keyof typeof glossary; children?: ComponentChildren }) {
  return (
    <button type="button" class="term" data-term={props.of}>
      {props.children ?? props.of}
    </button>
  );
}

// The texts are loaded with the first word that is asked about.
export function explainTerms(): void {
  const explain = async ({ target }: Event) => {
    const word = (target as Element).closest?.<HTMLElement>(".term");
    if (word) (await import("../glossary.ts")).explain(word);
  };
  for (const kind of ["pointerover", "focusin", "click"]) addEventListener(kind, explain);
}
