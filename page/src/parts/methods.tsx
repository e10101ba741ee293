// The arms of a comparison in words and colours, as report.html shows them (src/riyaz/report/comparison/arms.py).
const COLOURS: Readonly<Record<string, number>> = {
  nearest: 0,
  zero_shot: 1,
  few_shot: 2,
  rag: 3,
  prompt_tuning: 4,
  lora: 5,
  full: 6,
  rag_lora: 7,
};

export const WHAT: Readonly<Record<string, string>> = {
  nearest: "Copies the answer of the most similar training question; no language model runs.",
  zero_shot: "The base model with an instruction, without examples or training.",
  few_shot: "The base model with some training examples written into the prompt.",
  rag: "The base model with passages in the prompt, retrieved from documents for each question.",
  prompt_tuning: "A few trained vectors are put before the prompt; the model’s weights are unchanged.",
  lora: "Small matrices are trained beside the frozen weights and can be merged into them.",
  full: "Every weight of the model is trained.",
  rag_lora: "Retrieved passages in the prompt, and a LoRA trained to read them.",
};

export function colourOf(method: string): number {
  const known = COLOURS[method];
  if (known !== undefined) return known;
  const sum = new TextEncoder().encode(method).reduce((total, byte) => total + byte, 0);
  return sum % 2 ? 9 : 8;
}

export function Method(props: { name: string; role?: string; colour?: number }) {
  return (
    <span class="method">
      <span class={`dot c${props.colour ?? colourOf(props.name)}`} aria-hidden="true" />
      {props.name}
      {props.role && <span class="badge sure">{props.role}</span>}
    </span>
  );
}
