// Typed questions about a text, or about every row of a file: bars, a table with what is unsure first, and labels.
import { useEffect } from "preact/hooks";
import { file, model, questions, text } from "../decide.ts";
import { Answers } from "../parts/answers.tsx";
import { ModelPicker, modelLine } from "../parts/picker.tsx";
import { Questions } from "../parts/questions.tsx";
import { FileRows } from "../parts/rows.tsx";
import { Term } from "../parts/term.tsx";
import { Command, Field, Head } from "../parts/words.tsx";
import { route } from "../route.ts";
import { quoted } from "../state.ts";

export function Decide() {
  const given = route.value.query;
  const [wanted, sentence] = [given.get("model"), given.get("text")];
  useEffect(() => {
    if (wanted) model.value = wanted;
    if (sentence) text.value = sentence;
  }, [wanted, sentence]);
  return (
    <>
      <Head title="Decide">
        Typed questions about a text: is it so, which of these, how much. The answer is a <Term of="probability" /> for
        every choice; nothing is written.
      </Head>
      <div class="fields">
        <ModelPicker label="Who answers" value={model.value} set={(id) => (model.value = id)} />
      </div>
      <p class="under">{modelLine(model.value)}</p>
      <Questions />
      <section>
        <h2>One text</h2>
        <Field label="Text" wide>
          <textarea
            class="large"
            rows={3}
            value={text.value}
            onInput={(event) => (text.value = event.currentTarget.value)}
          />
        </Field>
        {questions.value.length > 0 && <Answers />}
      </section>
      <FileRows />
      <Command
        text={`riyaz decide ${quoted(model.value || "MODEL")} ${quoted(file.value?.name ?? "FILE")} --questions questions.json --out answers.jsonl`}
      >
        The rows of a file from the command line, as many as there are
      </Command>
    </>
  );
}
