// Whether a part of the page has come into view: what is below is asked for when a reader gets there.
import { type Signal, useSignal } from "@preact/signals";
import type { RefObject } from "preact";
import { useEffect, useRef } from "preact/hooks";

const AHEAD = "300px"; // before it is in view

export function useSeen<Part extends Element>(): {
  readonly place: RefObject<Part | null>;
  readonly seen: Signal<boolean>;
} {
  const place = useRef<Part>(null);
  const seen = useSignal(false);
  useEffect(() => {
    if (!place.current) return;
    const watcher = new IntersectionObserver(
      (entries) => {
        if (!entries.some((entry) => entry.isIntersecting)) return;
        seen.value = true;
        watcher.disconnect();
      },
      { rootMargin: AHEAD },
    );
    watcher.observe(place.current);
    return () => watcher.disconnect();
  }, []);
  return { place, seen };
}
