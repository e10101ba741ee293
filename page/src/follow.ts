// Follows a run: every event of its files from the first one, then the new ones, across closed connections, a
// restarted server and a hidden tab.
import { type Signal, useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { api, Refused, told } from "./api.ts";
import { key } from "./route.ts";

export interface RunEvent {
  readonly event?: string;
  readonly file?: string;
  readonly arm?: string | Readonly<Record<string, unknown>>;
  readonly method?: string;
  readonly phase?: string;
  readonly detail?: string;
  readonly done?: number;
  readonly total?: number;
  readonly unit?: string;
  readonly loss?: number | null;
  readonly seconds_left?: number | null;
  readonly memory_mb?: number | null;
  readonly text?: string;
  readonly reason?: string;
  readonly state?: string;
  readonly step?: number;
  readonly metrics?: Readonly<Record<string, number | null>> | null;
  readonly [name: string]: unknown;
}

export interface Followed {
  readonly events: Signal<readonly RunEvent[]>;
  readonly lost: Signal<string>; // why the page waits for the server
  readonly ended: Signal<boolean>;
}

const AGAIN = 1500; // milliseconds until a lost connection is tried again
const FIRST = 200; // milliseconds until the first events are drawn
const DRAWN = 1500; // milliseconds between two later drawings: training needs the CPU more

// Another `round` reads them anew: a run that had ended goes on.
export function useEvents(path: string, round: number): Followed {
  const events = useSignal<readonly RunEvent[]>([]);
  const lost = useSignal("");
  const ended = useSignal(false);
  useEffect(() => {
    events.value = [];
    lost.value = "";
    ended.value = false;
    return path ? followed(path, { events, lost, ended }) : undefined;
  }, [path, round, key.value]);
  return { events, lost, ended };
}

// Starts to follow; the function that it returns ends that.
function followed(path: string, { events, lost, ended }: Followed): () => void {
  let last = "";
  let stopper = new AbortController();
  let fresh: RunEvent[] = [];
  let waiting = 0;
  const show = () => {
    waiting = 0;
    events.value = [...events.value, ...fresh];
    fresh = [];
  };
  const read = async (signal: AbortSignal) => {
    for await (const sent of api.events(path, last, signal, () => (lost.value = ""))) {
      if (sent.data === "[DONE]") continue;
      last = sent.id || last;
      const event = JSON.parse(sent.data) as RunEvent;
      if (event.event === "end") ended.value = true;
      else fresh.push(event);
      if (!waiting) waiting = setTimeout(show, events.value.length ? DRAWN : FIRST);
    }
  };
  const keepOn = async (signal: AbortSignal) => {
    while (!signal.aborted && !ended.value) {
      try {
        await read(signal);
      } catch (error) {
        if (signal.aborted) return;
        lost.value = told(error);
        if (error instanceof Refused && [400, 401, 403].includes(error.status)) return; // only another token will help
        lost.value += " The page goes on by itself.";
      }
      await new Promise((done) => setTimeout(done, AGAIN));
    }
  };
  // A hidden page asks for nothing; it reads on where it was when it is seen again.
  const seen = () => {
    stopper.abort();
    stopper = new AbortController();
    if (!document.hidden) void keepOn(stopper.signal);
  };
  document.addEventListener("visibilitychange", seen);
  seen();
  return () => {
    stopper.abort();
    clearTimeout(waiting);
    document.removeEventListener("visibilitychange", seen);
  };
}
