// The choice of a model, an adapter or an artifact among those that the server answers as.
import { big } from "../numbers.ts";
import { models, refresh } from "../state.ts";
import { Field } from "./words.tsx";

export function ModelPicker(props: { label: string; value: string; none?: string; set: (id: string) => void }) {
  const bases = models.value.filter((model) => model.parent === null);
  const lonely = models.value.filter(
    (model) => model.parent !== null && !bases.some((base) => base.id === model.parent),
  );
  const under = (id: string) => models.value.filter((model) => model.parent === id);
  const gone = props.value !== "" && !models.value.some((model) => model.id === props.value);
  return (
    <Field label={props.label}>
      <select
        value={props.value}
        onFocus={() => void refresh()}
        onChange={(event) => props.set(event.currentTarget.value)}
      >
        {props.none !== undefined && <option value="">{props.none}</option>}
        {gone && <option value={props.value}>{props.value} (no longer there)</option>}
        {[...bases, ...lonely].flatMap((base) => [
          <option key={base.id} value={base.id}>
            {base.id}
          </option>,
          ...under(base.id).map((model) => (
            <option key={model.id} value={model.id}>
              {`\u2003${model.id}`}
            </option>
          )),
        ])}
      </select>
    </Field>
  );
}

// A model in one line: what it is, how large, and how it answers.
export function modelLine(id: string): string {
  const model = models.value.find((each) => each.id === id);
  if (!model) return "";
  const parts = [
    model.parent ? `on ${model.parent}` : (model.meta.architecture ?? ""),
    model.meta.n_params ? `${big(model.meta.n_params)} parameters` : "",
    model.meta.served_as ? `weights in ${model.meta.served_as.replace(" as stored", ", as in its file")}` : "",
    model.meta.answers && model.meta.answers !== "generated" ? `answers are ${model.meta.answers}` : "",
  ];
  return parts.filter(Boolean).join(" · ");
}
