// Inside: what a model computes between a text and its next token, part by part, with the model's own numbers.
import { useEffect } from "preact/hooks";
import { before, model, SAMPLES, text, useReading, write } from "../inside.ts";
import { count, many } from "../numbers.ts";
import { Heads } from "../parts/attention.tsx";
import { Changed } from "../parts/changed.tsx";
import { Coded } from "../parts/coded.tsx";
import { Drawing } from "../parts/drawing.tsx";
import { Layers } from "../parts/layers.tsx";
import { ModelPicker } from "../parts/picker.tsx";
import { Chooser, Pieces } from "../parts/pieces.tsx";
import { ByHand } from "../parts/product.tsx";
import { Command, Empty, Field, Head, Problem, Waiting } from "../parts/words.tsx";
import { route } from "../route.ts";
import { models, quoted } from "../state.ts";

export function InsideScreen() {
  const address = route.value.query;
  const [wanted, other, sentence] = [address.get("model"), address.get("before"), address.get("text")];
  useEffect(() => {
    if (wanted) model.value = wanted;
    if (other) before.value = other;
    if (sentence) write(sentence);
  }, [wanted, other, sentence]);
  const { read, problem } = useReading();
  return (
    <>
      <Head title="Inside">
        From words to numbers, through the layers, to the next word: every number below is what this model computes for
        this text.
      </Head>
      <Field label="Text" wide>
        <textarea
          class="large"
          rows={2}
          value={text.value}
          onInput={(event) => write(event.currentTarget.value, true)}
        />
      </Field>
      <Samples />
      <div class="fields">
        <ModelPicker label="Model" value={model.value} set={(id) => (model.value = id)} />
        <ModelPicker
          label="Compared with"
          value={before.value}
          none="no other model"
          set={(id) => (before.value = id)}
        />
      </div>
      <Problem text={problem} />
      {!text.value && (
        <Empty>
          Nothing to look into yet. Write a text, or take one of the three above: each is cut into other tokens.
        </Empty>
      )}
      {text.value && !read && !problem && models.value.length > 0 && <Waiting />}
      {read && (
        <div class="inside">
          <p class="under" role="status">
            {many(read.tokens.length, "token")} through {read.model.layers} layers
            {read.left_out > 0 &&
              `; the text is longer, so the last ${count(read.tokens.length)} tokens are read and ${count(read.left_out)} before them are left out`}
            . First numbers after {Math.round(read.milliseconds)} ms.
          </p>
          <Chooser read={read} />
          <p class="under">Choose the token that is looked at: by pointer, or with the arrow keys.</p>
          <Pieces read={read} />
          <Layers read={read} />
          <Heads read={read} />
          <ByHand read={read} />
          <Drawing read={read} />
          <Coded read={read} />
          {before.value && before.value !== read.of.model && <Changed read={read} />}
        </div>
      )}
      <Command text={command()} />
    </>
  );
}

function command(): string {
  const besides = before.value ? ` --before ${quoted(before.value)}` : "";
  return `riyaz inside ${quoted(model.value || "MODEL")} ${quoted(text.value)}${besides}`;
}

function Samples() {
  return (
    <div class="actions">
      {SAMPLES.map((sample) => (
        <button key={sample.code} type="button" class="small" onClick={() => write(sample.text)}>
          {sample.language}: <span lang={sample.code}>{sample.text}</span>
        </button>
      ))}
    </div>
  );
}
