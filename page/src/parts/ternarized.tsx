// What it cost a model to have weights -1, 0 and 1: its loss before, rounded only, and after training.
import { count, duration, number } from "../numbers.ts";
import type { Run } from "../types.ts";
import { Term } from "./term.tsx";
import { Empty, Fact } from "./words.tsx";

interface Facts {
  readonly loss_before?: number | null;
  readonly loss_rounded?: number | null;
  readonly loss?: number | null;
  readonly parameters?: number | null;
  readonly tokens?: number | null;
  readonly seconds?: number | null;
  readonly mb?: number | null;
}

export function Ternarized({ run }: { run: Run }) {
  const facts = run.document as Facts;
  if (typeof facts.loss !== "number") return <Empty>It has no result yet.</Empty>;
  return (
    <>
      <p>
        The <Term of="loss" /> on <Term of="held-out text" />, in <Term of="nat">nats</Term> for each token: of the
        model as it was, with its weights only rounded to -1, 0 and 1 (<Term of="ternary" />
        ), and after training with such weights.
      </p>
      <dl class="tiles">
        <Fact name="full precision">{number(facts.loss_before)}</Fact>
        <Fact name="rounded only">{number(facts.loss_rounded)}</Fact>
        <Fact name="trained">{number(facts.loss)}</Fact>
        <Fact name="weights">{count(facts.parameters)}</Fact>
        <Fact name="time" under={`${count(facts.tokens)} tokens read`}>
          {duration(facts.seconds)}
        </Fact>
      </dl>
    </>
  );
}
