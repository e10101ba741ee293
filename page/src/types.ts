// What the server answers: docs/serving.md, and the routes below /page/.
import type { Candidate } from "./numbers.ts";
import type { Citation } from "./tree.ts";

export interface Model {
  readonly id: string;
  readonly parent: string | null;
  readonly max_model_len: number | null;
  readonly meta: {
    readonly answers?: string;
    readonly served_as?: string;
    readonly architecture?: string;
    readonly n_params?: number;
    readonly vocab_size?: number;
  };
}

// A method for readers, as its file says it (src/riyaz/methods); a comparison keeps it with each arm.
export interface About {
  readonly what: string;
  readonly colour: number; // --c0 to --c10
}

export interface Info {
  readonly version: string;
  readonly folder: string;
  readonly command: string;
  readonly default_model?: string | null;
  readonly methods?: Readonly<Record<string, About>>; // those that a comparison can run, in the order of its table
  readonly models: readonly {
    id: string;
    base?: string | null;
    kind?: string;
    method?: string | null;
    trained_length?: number | null;
    sample?: boolean; // it comes with Riyaz
  }[];
  readonly limits: { readonly upload_bytes: number };
  readonly resources: { readonly memory_free?: number; readonly disk_free?: number; readonly threads?: number };
}

export interface Message {
  readonly role: string;
  readonly content: string;
}

export interface ChatRequest {
  readonly model: string;
  readonly messages: readonly Message[];
  readonly [field: string]: unknown;
}

export interface Chunk {
  readonly choices: readonly {
    readonly delta: { readonly content?: string | null; readonly citations?: readonly Citation[] };
    readonly finish_reason: string | null;
    readonly logprobs?: {
      readonly content: readonly {
        token: string;
        logprob: number;
        top_logprobs: readonly { token: string; logprob: number }[];
      }[];
    } | null;
  }[];
  readonly usage?: { readonly prompt_tokens: number; readonly completion_tokens: number } | null;
  readonly timings?: { readonly predicted_per_second?: number } | null;
}

export interface Next {
  readonly tokens: readonly { id: number; text: string }[];
  readonly candidates: readonly Candidate[];
  readonly entropy: number; // in nats
  readonly layers: number;
  readonly width: number;
  readonly vocabulary: number;
  readonly parameters: number;
  readonly sums?: readonly { temperature: number; sum: number }[]; // ln of the sum of exp(logprob / T)
}

export type FileKind = "folder" | "run" | "artifact" | "model" | "data" | "documents" | "text" | "collection" | "other";

export interface Folder {
  readonly folder: string;
  readonly entries: readonly { name: string; path: string; kind: FileKind; bytes?: number | null }[];
  readonly more?: number;
}

export interface Named {
  readonly name: string;
  readonly count: number;
}

// What `riyaz data --json` says, with some of the rows.
export interface DataFound {
  readonly format: string;
  readonly columns: readonly string[];
  readonly unused_columns?: readonly string[];
  readonly rows: number;
  readonly task: { readonly kind: string; readonly instruction?: string | null; readonly why?: string | null };
  readonly model: string | null;
  readonly examples: readonly { where: string; prompt: string; answers: readonly string[]; slice?: string | null }[];
  // as the model sees them: the loss counts the answer
  readonly rendered?: readonly { where: string; prompt: string; answer: string }[] | null;
  readonly tokens?: Readonly<Record<"prompt" | "answer", { median: number; p95: number; longest: number }>> | null;
  readonly histogram?: Readonly<
    Record<"prompt" | "answer", { edges: readonly number[]; counts: readonly number[] }>
  > | null;
  readonly checks?: Readonly<Record<string, { ok: boolean; rows?: number; failed?: number }>>;
  readonly report: {
    readonly rows: Readonly<Record<string, number>>;
    readonly duplicates: number | null;
    readonly conflicts: number | null;
    readonly leakage: { test_rows?: number | null; dropped?: number | null } | null;
    readonly labels: Readonly<Record<string, Readonly<Record<string, number>>>>;
    readonly unseen_labels: readonly string[];
    readonly slices: Readonly<Record<string, number>>;
    readonly notes: readonly string[];
  };
}

export interface RunEntry {
  readonly path: string;
  readonly kind: string;
  readonly state: string;
  readonly started?: number | null; // seconds since 1970
  readonly changed?: number | null;
  readonly pick?: string | null;
  readonly score?: number | null; // bits per byte of pretraining
  readonly command?: string | null;
  readonly problem?: string | null;
  readonly sample?: boolean; // it comes with Riyaz
}

export interface Listing {
  readonly runs: readonly RunEntry[];
  readonly samples: readonly RunEntry[];
}

// The answers of two models to the same prompts.
export interface Sides {
  readonly command: string;
  readonly prompts: readonly {
    readonly prompt: string;
    readonly answers: readonly { readonly model: string; readonly text: string }[];
  }[];
}

export interface SampleFiles {
  readonly texts: readonly { readonly name: string; readonly bytes: number }[];
  readonly sides: Sides;
}

export interface Arm {
  readonly method: string;
  readonly base?: string | null; // where a comparison has several
  readonly status?: string;
  readonly phase?: string;
  readonly metric?: string | null;
  readonly score?: number | null;
  readonly ci_low?: number | null;
  readonly ci_high?: number | null;
  readonly n_test?: number;
  readonly ms_per_answer?: number | null;
  readonly prompt_tokens?: number | null;
  readonly peak_rss_mb?: number | null;
  readonly artifact_mb?: number | null;
  readonly trainable_params?: number;
  readonly train_seconds?: number;
  readonly search_seconds?: number;
  readonly eval_seconds?: number;
  readonly forgetting_nats?: number | null;
  readonly curve?: readonly { step: number; loss?: number | null; valid_loss?: number | null }[];
  readonly reason?: string;
  readonly about?: About | null; // null: written by an older riyaz
}

// A run as the server tells it: its entry in the list, what its events add up to, and its result file.
export interface Run extends RunEntry {
  readonly document: RunDocument | null;
  readonly arms?: readonly { readonly method: string; readonly row?: Arm }[];
  readonly notes?: readonly string[];
  readonly problems?: readonly string[];
  readonly commands?: readonly { readonly title: string; readonly command: string }[];
  readonly report?: string | null;
  readonly learned?: readonly string[]; // arms that recorded what they learned
}

export interface RunDocument {
  readonly arms?: readonly Arm[];
  readonly pick?: string | null;
  readonly decision?: string;
  readonly reason?: string;
  readonly [name: string]: unknown;
}

// An answer to a test row: its text, its score, and the passages it cites.
export type Answered = readonly [string, number | null, readonly Citation[]];

export interface Rows {
  readonly methods: readonly { readonly name: string; readonly colour: number }[];
  readonly pick: number | null; // its place among the methods
  readonly right: number; // an answer with this score is right
  readonly rows: readonly {
    readonly where: string;
    readonly prompt: string;
    readonly answers: readonly string[];
    readonly slice?: string | null;
    readonly said: readonly (Answered | null)[];
  }[];
  readonly total: number;
}

export interface Difference {
  readonly differences: readonly { readonly name: string; readonly a: unknown; readonly b: unknown }[];
}

export interface Start {
  readonly verb?: string;
  readonly [field: string]: unknown;
}

export interface Plan {
  readonly path: string;
  readonly command: string;
  readonly plan: {
    readonly estimate: { readonly seconds: number; readonly peak_rss_mb: number; readonly disk_mb: number };
    readonly plan: { readonly arms: readonly PlannedArm[] };
    readonly data: { readonly rows: Readonly<Record<string, number>>; readonly notes?: readonly string[] };
    readonly task: string | null;
  };
}

export interface PlannedArm {
  readonly method: string;
  readonly base?: string | null;
  readonly seconds: Readonly<Record<string, number>>; // by phase
  readonly steps: number;
  readonly skipped: string;
}

export interface Started {
  readonly path: string;
  readonly command: string;
  readonly pid?: number;
}

export interface Collection {
  readonly path: string;
  readonly documents: readonly { id: string; title?: string | null; characters?: number }[];
  readonly passages: number;
  readonly embedder?: string | null;
  readonly problem?: string | null;
}

export interface Added {
  readonly path: string;
  readonly command: string;
  readonly added: {
    readonly added: number;
    readonly replaced: number;
    readonly unchanged: number;
    readonly notes?: readonly string[];
  };
}

export interface Passage {
  readonly doc_id: string;
  readonly title?: string | null;
  readonly heading?: string | null;
  readonly page?: number | null;
  readonly start: number;
  readonly end: number;
  readonly score?: number | null;
  readonly relevance?: number | null;
  readonly relevant?: boolean | null;
  readonly also?: readonly string[];
  readonly text: string;
}

// A passage where it stands, with the text around it.
export interface Place {
  readonly title?: string | null;
  readonly before: string;
  readonly passage: string;
  readonly after: string;
}

export interface Figure {
  readonly name: string;
  readonly value: number | null;
  readonly low?: number | null;
  readonly high?: number | null;
  readonly n?: number | null;
  readonly unit?: string;
  readonly group?: string;
  readonly even?: number | null; // the value where nothing is found
  readonly p_value?: number | null;
}

export interface LimitsPart {
  readonly name: string;
  readonly source: string;
  readonly what: string;
  readonly blind: string;
  readonly notes?: readonly string[];
  readonly figures: readonly Figure[];
  readonly curves?: readonly {
    name: string;
    x: string;
    y: string;
    unit?: string;
    points: readonly [number, number][];
  }[];
}

// limits.json
export interface Limits {
  readonly target: string;
  readonly date?: string | null;
  readonly command?: string;
  readonly suites: readonly {
    name: string;
    left_out?: readonly string[];
    parts: readonly LimitsPart[];
  }[];
}

export interface Vote {
  readonly prompt: string;
  readonly a: { readonly model: string; readonly text: string };
  readonly b: { readonly model: string; readonly text: string };
  readonly choice: "a" | "b" | "tie" | "bad";
}

export interface Board {
  readonly path: string;
  readonly votes: number;
  // the votes that prefer one of two different answers, their prompts, how many of these training needs, and the methods
  readonly training: {
    readonly votes: number;
    readonly prompts: number;
    readonly least: number;
    readonly methods: readonly string[];
  };
  readonly models: readonly {
    model: string;
    wins: number;
    losses: number;
    undecided: number;
    share: number | null;
    low: number | null;
    high: number | null;
  }[];
}
