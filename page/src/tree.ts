// A conversation as a tree: an edited question or another answer is a sibling, and each node knows which of its
// children is shown.

export interface Top {
  readonly token: string;
  readonly logprob: number;
}

export interface Token extends Top {
  readonly top: readonly Top[];
}

export interface Citation {
  readonly document?: string;
  readonly doc_id?: string;
  readonly title?: string;
  readonly page?: number | null;
  readonly start?: number;
  readonly end?: number;
  readonly text?: string;
  readonly also?: readonly string[]; // other documents that say the same
  readonly relevant?: boolean;
}

export interface Turn {
  readonly id: number;
  readonly parent: number | null;
  readonly role: "user" | "assistant";
  text: string;
  model: string;
  tokens: Token[];
  state: "running" | "done" | "stopped" | "failed";
  note: string;
  citations: Citation[];
  used: number; // tokens of prompt and answer
  rate: number; // tokens per second
}

export interface Tree {
  turns: Turn[]; // a turn's id is its place
  chosen: Record<string, number>; // parent (or "root") to the child that is shown
}

export function empty(): Tree {
  return { turns: [], chosen: {} };
}

const key = (parent: number | null): string => (parent === null ? "root" : String(parent));

export function add(tree: Tree, parent: number | null, role: Turn["role"], text: string, model = ""): Turn {
  const turn: Turn = {
    id: tree.turns.length, parent, role, text, model, tokens: [], state: "done", note: "", citations: [], used: 0, rate: 0,
  }; // biome-ignore format: one line of defaults
  tree.turns.push(turn);
  tree.chosen[key(parent)] = turn.id;
  return turn;
}

// The turns that are shown, first to last.
export function path(tree: Tree): Turn[] {
  const shown: Turn[] = [];
  let next = tree.chosen.root;
  while (next !== undefined) {
    const turn = tree.turns[next];
    if (turn === undefined) break;
    shown.push(turn);
    next = tree.chosen[key(turn.id)];
  }
  return shown;
}

// The turns from the first to this one.
export function upTo(tree: Tree, id: number): Turn[] {
  const turns: Turn[] = [];
  for (let at = tree.turns[id]; at !== undefined; at = at.parent === null ? undefined : tree.turns[at.parent])
    turns.unshift(at);
  return turns;
}

export function siblings(tree: Tree, turn: Turn): Turn[] {
  return tree.turns.filter((other) => other.parent === turn.parent);
}

// Shows the next or previous sibling.
export function step(tree: Tree, turn: Turn, by: number): void {
  const all = siblings(tree, turn);
  const at = all.findIndex((other) => other.id === turn.id) + by;
  const other = all[Math.max(0, Math.min(all.length - 1, at))];
  if (other !== undefined) tree.chosen[key(turn.parent)] = other.id;
}

// An answer that begins as `turn` does up to a token and goes on with another candidate for it.
export function branch(tree: Tree, turn: Turn, place: number, candidate: Top): Turn {
  const made = add(tree, turn.parent, "assistant", "", turn.model);
  const top = turn.tokens[place]?.top ?? [];
  made.tokens = [...turn.tokens.slice(0, place), { ...candidate, top }];
  made.text = made.tokens.map((token) => token.token).join("");
  return made;
}
