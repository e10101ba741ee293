// Every screen has an address after the hash: #/run?path=workshop. The token that `riyaz ui` puts there is taken out.
import { signal } from "@preact/signals";

export interface Route {
  readonly screen: string;
  readonly query: URLSearchParams;
}

const KEPT = "riyaz.token";
export const key = signal(sessionStorage.getItem(KEPT) ?? ""); // the token; what it opened is asked for again with a new one
const others = new BroadcastChannel("riyaz"); // this page in other tabs: a server that started again has a new token

export function parse(hash: string): Route {
  const [name = "", query = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  if (name.startsWith("token=")) return { screen: "", query: new URLSearchParams(name) };
  return { screen: name, query: new URLSearchParams(query) };
}

export function link(screen: string, query: Record<string, string> = {}): string {
  const written = new URLSearchParams(query).toString();
  return `#/${screen}${written ? `?${written}` : ""}`;
}

function read(): Route {
  const found = parse(location.hash);
  const given = found.query.get("token");
  if (given === null) return found;
  take(given);
  found.query.delete("token");
  history.replaceState(null, "", link(found.screen || "chat", Object.fromEntries(found.query)));
  return { screen: found.screen || "chat", query: found.query };
}

export const route = signal<Route>({ screen: "", query: new URLSearchParams() });

export function follow(): void {
  route.value = read();
  addEventListener("hashchange", () => {
    route.value = read();
  });
}

export function go(screen: string, query: Record<string, string> = {}): void {
  location.hash = link(screen, query);
}

function take(given: string): void {
  sessionStorage.setItem(KEPT, given);
  key.value = given;
}

others.onmessage = ({ data }) => {
  if (typeof data === "string" && data) take(data);
};

// Gives the token, with which the server has answered, to the other tabs.
export function share(): void {
  others.postMessage(key.peek());
}

const SAMPLE = "sample:"; // begins the names of what comes with Riyaz

// The name of a run for readers.
export function bare(path: string): string {
  return path.startsWith(SAMPLE) ? path.slice(SAMPLE.length) : path;
}

// The same in a sentence, in which it must be said that it is none of the user's.
export function sourced(path: string): string {
  return path.startsWith(SAMPLE) ? `${bare(path)} (a sample that comes with Riyaz)` : path;
}
