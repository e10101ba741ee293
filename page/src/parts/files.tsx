// The choice of a file or folder: from the folder that the page was started in, dropped onto the page, or typed.
import { useSignal } from "@preact/signals";
import { api, told } from "../api.ts";
import { bytes } from "../numbers.ts";
import { info, useLoaded } from "../state.ts";
import type { FileKind } from "../types.ts";
import { dropping } from "./drop.ts";
import { Problem } from "./words.tsx";

interface Props {
  readonly label: string;
  readonly value: string;
  readonly kinds: readonly FileKind[]; // what can be chosen; folders can always be opened
  readonly upload?: boolean;
  readonly optional?: boolean;
  readonly set: (path: string) => void;
}

export function FileChoice(props: Props) {
  const problem = useSignal("");
  const busy = useSignal("");
  const over = useSignal(false);
  const id = `file-${props.label.replaceAll(/\W+/g, "-")}`;
  const send = async (file: File | undefined) => {
    if (!file) return;
    const most = info.value?.limits.upload_bytes;
    if (most && file.size > most) {
      problem.value = `${file.name} has ${bytes(file.size)}, and an upload may have ${bytes(most)}. Put it into the folder of the page and choose it there.`;
      return;
    }
    busy.value = `Uploading ${file.name} …`;
    try {
      props.set((await api.upload(file)).path);
      problem.value = "";
    } catch (error) {
      problem.value = told(error);
    }
    busy.value = "";
  };
  return (
    <div
      class={over.value ? "files over" : "files"}
      {...dropping(over, (file) => (props.upload ? send(file) : undefined))}
    >
      <label class="field" for={id}>
        <span>
          {props.label}
          {props.optional ? " (if there are any)" : ""}
        </span>
      </label>
      <div class="file-row">
        <input
          id={id}
          value={props.value}
          spellcheck={false}
          placeholder={props.upload ? "a path, or drop a file" : "a path in the folder"}
          onChange={(event) => props.set(event.currentTarget.value.trim())}
        />
        {props.upload && (
          <label class="button">
            Upload
            <input type="file" class="hidden" onChange={(event) => void send(event.currentTarget.files?.[0])} />
          </label>
        )}
      </div>
      <Problem text={problem.value} />
      {busy.value && <p class="under">{busy.value}</p>}
      <Browse kinds={props.kinds} set={props.set} name={props.label} />
    </div>
  );
}

function Browse({ kinds, set, name }: { kinds: readonly FileKind[]; set: (path: string) => void; name: string }) {
  const open = useSignal(false);
  return (
    <details onToggle={(event) => (open.value = event.currentTarget.open)}>
      <summary>Look in the folder</summary>
      {open.value && <Listing kinds={kinds} set={set} name={name} />}
    </details>
  );
}

function Listing({ kinds, set, name }: { kinds: readonly FileKind[]; set: (path: string) => void; name: string }) {
  const under = useSignal(".");
  const { value, problem } = useLoaded(under.value, () => api.files(under.value));
  const entries = value.value?.entries.filter((entry) => entry.kind === "folder" || kinds.includes(entry.kind)) ?? [];
  const up = under.value.includes("/") ? under.value.replace(/\/[^/]*$/, "") : ".";
  return (
    <div class="listing">
      <Problem text={problem.value} />
      <ul class="plain" aria-label={`Files for ${name}`}>
        {under.value !== "." && (
          <li>
            <button type="button" class="entry" onClick={() => (under.value = up)}>
              ← back
            </button>
          </li>
        )}
        {entries.map((entry) => (
          <li key={entry.path}>
            <button
              type="button"
              class="entry"
              onClick={() => {
                if (kinds.includes(entry.kind)) set(entry.path);
                else under.value = entry.path;
              }}
            >
              <span>{entry.kind === "folder" ? `${entry.name}/` : entry.name}</span>
              <span class="quiet">
                {entry.kind === "folder" ? "" : entry.kind} {entry.bytes ? bytes(entry.bytes) : ""}
              </span>
            </button>
            {kinds.includes(entry.kind) && entry.kind === "folder" && (
              <button type="button" class="small" onClick={() => (under.value = entry.path)}>
                Open
              </button>
            )}
          </li>
        ))}
      </ul>
      {value.value && entries.length === 0 && <p class="under">There is nothing to choose here.</p>}
    </div>
  );
}
