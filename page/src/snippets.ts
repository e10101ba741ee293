// The request of the page as a command or a program.
import { quoted } from "./state.ts";
import type { ChatRequest } from "./types.ts";

export function curl(request: ChatRequest): string {
  const body = JSON.stringify({ ...request, stream: true }, null, 1);
  return `curl -N ${location.origin}/v1/chat/completions \\\n  -H 'Content-Type: application/json' \\\n  -d ${quoted(body)}`;
}

// JSON of texts and numbers is Python too.
const literal = (value: unknown): string => JSON.stringify(value, null, 4);

export function python(request: ChatRequest): string {
  const { model, messages, ...rest } = request;
  const own = new Set(["top_k", "min_p", "repetition_penalty"]); // not OpenAI's
  const ours = Object.entries(rest).filter(([name]) => !own.has(name));
  const extra = Object.entries(rest).filter(([name]) => own.has(name));
  const more = [
    ...ours.map(([name, value]) => `, ${name}=${literal(value)}`),
    ...(extra.length ? [`, extra_body=${JSON.stringify(Object.fromEntries(extra))}`] : []),
  ];
  return `from openai import OpenAI

client = OpenAI(base_url="${location.origin}/v1", api_key="none")
messages = ${literal(messages)}
answer = client.chat.completions.create(model=${JSON.stringify(model)}, messages=messages${more.join("")})
print(answer.choices[0].message.content)`;
}

// `riyaz chat` with the same settings.
export function terminal(request: ChatRequest): string {
  const system = request.messages.find((message) => message.role === "system")?.content;
  const named = ["temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_tokens", "seed"];
  const options = named.flatMap((name) =>
    name in request ? [`--${name.replaceAll("_", "-")} ${String(request[name])}`] : [],
  );
  return ["riyaz chat", quoted(request.model), ...(system ? [`--system ${quoted(system)}`] : []), ...options].join(" ");
}
