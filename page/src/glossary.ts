// What words mean, shown beside the word that is pointed at, focused or touched. docs/glossary.md has the same texts.
import texts from "./glossary.json";

const GAP = 6; // pixels between a word and its text
const box = document.createElement("div");
box.id = "explained";
box.className = "explained";
box.setAttribute("role", "tooltip");
let shown: HTMLElement | null = null;

export function explain(word: HTMLElement): void {
  const text = texts[word.dataset.term as keyof typeof texts];
  if (!text || shown === word || !word.isConnected || !isAsked(word)) return;
  hide();
  shown = word;
  box.textContent = text;
  word.setAttribute("aria-describedby", box.id);
  (word.closest("main") ?? document.body).append(box); // a landmark, as all content
  place(word);
}

// The text was loaded meanwhile: it is shown if the word is still pointed at or focused.
function isAsked(word: HTMLElement): boolean {
  return word === document.activeElement || word.matches(":hover");
}

// Below the word, above it where there is no room, and within the window.
function place(word: HTMLElement): void {
  const at = word.getBoundingClientRect();
  const { width, height } = box.getBoundingClientRect();
  const most = document.documentElement.clientWidth - width - GAP;
  const below = at.bottom + GAP;
  box.style.left = `${Math.max(GAP, Math.min(at.left, most))}px`;
  box.style.top = `${below + height > innerHeight ? Math.max(GAP, at.top - GAP - height) : below}px`;
}

function hide(): void {
  shown?.removeAttribute("aria-describedby");
  shown = null;
  box.remove();
}

// The text itself may be pointed at, to read it at leisure.
addEventListener("pointerover", ({ target }) => {
  const inside = target instanceof Node && (box.contains(target) || shown?.contains(target));
  if (shown && !inside && shown !== document.activeElement) hide();
});
addEventListener("pointerdown", ({ target }) => {
  if (target instanceof Node && !box.contains(target) && !shown?.contains(target)) hide();
});
addEventListener("focusout", ({ target }) => {
  if (target === shown) hide();
});
addEventListener("keydown", ({ key }) => {
  if (key === "Escape") hide();
});
addEventListener("hashchange", hide);
addEventListener("scroll", () => shown && place(shown), { capture: true, passive: true });
