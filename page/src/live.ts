// From a run's events to what the screens show: pure functions.

import type { RunEvent } from "./follow.ts";
import type { Line } from "./parts/curve.tsx";
import { colourOf, named } from "./parts/methods.tsx";
import type { About, Arm } from "./types.ts";

export interface Live {
  readonly arms: readonly LiveArm[];
  readonly phase: string; // of the command itself
  readonly notes: readonly string[];
  readonly finished: readonly Arm[];
  readonly failed: string;
  readonly estimate: { seconds?: number; peak_rss_mb?: number; disk_mb?: number } | null;
}

export interface LiveArm {
  readonly method: string;
  readonly about?: About | null;
  phase: string;
  share: number | null;
  done: string;
  left: number | null; // seconds
  memory: number | null; // peak of its process so far, MB
  planned: number | null;
  readonly loss: [number, number][];
  readonly valid: [number, number][];
}

const methodOf = (event: RunEvent): string => event.method || (typeof event.arm === "string" ? event.arm : "");

export function live(events: readonly RunEvent[]): Live {
  const arms = new Map<string, LiveArm>();
  const notes: string[] = [];
  const finished = new Map<string, Arm>();
  let phase = "";
  let failed = "";
  let estimate: Live["estimate"] = null;
  const armOf = (method: string): LiveArm => {
    const found = arms.get(method) ?? {
      method,
      phase: "waiting",
      share: null,
      done: "",
      left: null,
      memory: null,
      planned: null,
      loss: [],
      valid: [],
    };
    arms.set(method, found);
    return found;
  };
  for (const event of events) {
    const method = methodOf(event);
    if (event.event === "phase" && finished.get(method)?.status === "skipped") finished.delete(method); // there is time after all
    if (method && event.memory_mb) armOf(method).memory = event.memory_mb;
    if (event.event === "estimate") {
      estimate = event as Live["estimate"];
      for (const each of (event.arms as { method: string; seconds: number }[] | undefined) ?? [])
        armOf(each.method).planned = each.seconds;
    } else if (event.event === "phase") {
      if (method) Object.assign(armOf(method), { phase: inWords(event), share: null, done: "", left: null });
      else phase = inWords(event);
    } else if (event.event === "progress") progress(method ? armOf(method) : null, event);
    else if (event.event === "note" && event.text) notes.push(event.text);
    else if (event.event === "failed") failed = event.reason ?? "";
    else if (event.event === "arm" && event.arm && typeof event.arm === "object") {
      const arm = named(event.arm as unknown as Arm);
      finished.set(arm.method, arm);
      Object.assign(armOf(arm.method), { phase: arm.status ?? "done", share: 1, left: null, memory: null, done: "" });
    } else if (event.file === "metrics" && method) point(armOf(method), event);
  }
  return { arms: [...arms.values()], phase, notes, finished: [...finished.values()], failed, estimate };
}

function progress(arm: LiveArm | null, event: RunEvent): void {
  if (!arm) return;
  const { done = 0, total = 0 } = event;
  arm.phase = inWords(event);
  arm.share = total > 0 ? done / total : null;
  arm.done = total > 0 ? `${Math.round(done)} of ${Math.round(total)} ${event.unit ?? ""}`.trim() : "";
  arm.left = event.seconds_left ?? null;
  if (event.phase === "train") point(arm, { step: done, loss: event.loss, ...event.metrics });
}

function point(arm: LiveArm, metrics: RunEvent | Readonly<Record<string, unknown>>): void {
  const { step, loss, valid_loss } = metrics as { step?: number; loss?: number | null; valid_loss?: number | null };
  if (step === undefined) return;
  if (arm.loss.length && step <= (arm.loss.at(-1)?.[0] ?? 0)) {
    arm.loss.splice(arm.loss.findIndex(([at]) => at >= step)); // another training of the same arm begins again
    const place = arm.valid.findIndex(([at]) => at >= step);
    if (place >= 0) arm.valid.splice(place);
  }
  if (typeof loss === "number") arm.loss.push([step, loss]);
  if (typeof valid_loss === "number") arm.valid.push([step, valid_loss]);
}

const PHASES: Readonly<Record<string, string>> = {
  start: "starting",
  load: "loading the model",
  fit: "fitting",
  search: "searching a learning rate",
  train: "training",
  evaluate: "answering the test rows",
  measure: "measuring time and memory",
  plan: "planning",
  limits: "measuring limits",
};

function inWords(event: RunEvent): string {
  const name = PHASES[event.phase ?? ""] ?? event.phase ?? "";
  return event.detail ? `${name}: ${event.detail}` : name;
}

export function lossLines(arms: readonly LiveArm[]): Line[] {
  return arms.flatMap((arm) => {
    const colour = colourOf(arm);
    const trained: Line[] = arm.loss.length ? [{ name: arm.method, colour, points: arm.loss }] : [];
    const held: Line[] = arm.valid.length
      ? [{ name: `${arm.method}, validation`, colour, points: arm.valid, dashed: true, dots: true }]
      : [];
    return [...trained, ...held];
  });
}

// The curves that a finished comparison keeps with its arms.
export function keptLines(arms: readonly Arm[]): Line[] {
  const fits = (value: number | null | undefined): value is number => typeof value === "number";
  return lossLines(
    arms.map((arm) => ({
      method: arm.method,
      about: arm.about,
      phase: "",
      share: null,
      done: "",
      left: null,
      memory: null,
      planned: null,
      loss: (arm.curve ?? []).flatMap(({ step, loss }): [number, number][] => (fits(loss) ? [[step, loss]] : [])),
      valid: (arm.curve ?? []).flatMap(({ step, valid_loss }): [number, number][] =>
        fits(valid_loss) ? [[step, valid_loss]] : [],
      ),
    })),
  );
}
