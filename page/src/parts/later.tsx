// Parts whose code is a file of its own, which the browser loads when one of them is shown first.
import { signal, useSignal } from "@preact/signals";
import type { ComponentType } from "preact";
import { useEffect } from "preact/hooks";
import type { Run } from "../types.ts";
import type { ArmsProps, LearnedProps } from "./learned.tsx";
import { Problem, Waiting } from "./words.tsx";

export function later<Props extends object>(load: () => Promise<ComponentType<Props>>): ComponentType<Props> {
  const part = signal<ComponentType<Props> | null>(null);
  return (props: Props) => {
    const failed = useSignal("");
    useEffect(() => {
      load().then(
        (loaded) => {
          part.value = loaded;
        },
        () => {
          failed.value = "This part could not be loaded. Start the server again, then reload the page.";
        },
      );
    }, []);
    const Shown = part.value;
    if (Shown) return <Shown {...props} />;
    return failed.value ? <Problem text={failed.value} /> : <Waiting />;
  };
}

export const Ternarized = later<{ run: Run }>(async () => (await import("./samples.tsx")).Ternarized);

export const Learned = later<LearnedProps>(async () => (await import("./learned.tsx")).Learned);

export const LearnedArms = later<ArmsProps>(async () => (await import("./learned.tsx")).LearnedArms);

export const Samples = later<{ of: "runs" | "learn" | "limits" | "side" | "models" }>(
  async () => (await import("./samples.tsx")).Samples,
);
