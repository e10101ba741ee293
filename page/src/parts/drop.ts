// What an element needs so that a file can be dropped on it; `over` is true while one is held above it.
import type { Signal } from "@preact/signals";

export function dropping(over: Signal<boolean>, take: (file: File | undefined) => unknown) {
  return {
    onDragOver: (event: DragEvent) => {
      event.preventDefault();
      over.value = true;
    },
    onDragLeave: () => {
      over.value = false;
    },
    onDrop: (event: DragEvent) => {
      event.preventDefault();
      over.value = false;
      void take(event.dataTransfer?.files[0]);
    },
  };
}
