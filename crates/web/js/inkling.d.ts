// The contract between the page (crates/ui) and the engine for JavaScript (crates/web). It becomes crates/web/js/inkling.d.ts.
// Everything that crosses is a plain object as `protocol` defines it (snake_case keys, as in JSON over HTTP).

/** What this host can do. */
export interface Capabilities {
  simd: boolean; relaxed_simd: boolean; workers: boolean;
  opfs: boolean; cache_api: boolean; persisted: boolean;
  cores: number; memory_gib?: number;
}
export function capabilities(): Promise<Capabilities>;

/** A file's bytes: at an address, or here already. */
export type Content = string | URL | Blob | Response | ArrayBuffer | Uint8Array;

/** Where a model comes from. */
export type ModelSource =
  | { demo: "writer" | "writer-distilled" | "critic" }                 // shipped with the page, relative to the module's own URL
  | { hub: string; revision?: string; endpoint?: string }             // endpoint: default https://huggingface.co
  | { url: string; sha256?: string }                                   // one .gguf file, with tokenizer.json beside it
  | { files: Record<string, Content> | Iterable<File>; name?: string };// a folder of the visitor's, files dropped, bytes

export interface ModelFile { name: string; size_bytes?: number; sha256?: string }
/** What loading would take; asks the hub for sizes, downloads no weights. */
export interface Description {
  name: string; files: ModelFile[];
  download_bytes: number;      // still to come over the network; 0 when cached or local
  memory_bytes: number;        // estimate of the model in memory at its dtype
  cached: boolean;
}
export function describe(source: ModelSource, options?: { dtype?: "q8" | "f32" }): Promise<Description>;

export type NodeState =
  | { state: "waiting" }
  | { state: "loading"; file: string; bytes: number; total_bytes?: number; ms_left?: number; from: "network" | "cache" | "file" }
  | { state: "ready"; load_ms: number; memory_bytes: number; model: string; model_sha256?: string; task: "generate" | "classify"; isa: string;
      notice?: string /* e.g. "The disk is full: the model runs, but will be downloaded again next time." */ }
  | { state: "failed"; error: string; kind: "network" | "hash" | "missing" | "storage" | "memory" | "format" | "internal"; can_retry: boolean }
  | { state: "closed" };

/** Events are the protocol's, each with `at_ms` since the run began. */
export type Event = { at_ms: number; event: "started" | "progress" | "token" | "done" | "score" | "failed"; node: string; [key: string]: unknown };
export interface Request { sentence?: string; seed?: number | bigint; max_length?: number; /* ... every parameter of protocol::Parameters */ [key: string]: unknown }
export interface Answer { graph: string; sentence: string; seed: number; rows: object[]; nodes: object[]; total_ms: number }

/** A graph whose every model lives in a worker of its own. `open` returns at once; models load in the background. */
export class Graph {
  static open(options?: {
    graph?: string;                                   // TOML; default: the engine's default graph (gpt2, distilgpt2, bert)
    models?: Record<string, ModelSource>;             // by node name; default: each node's demo model
    dtype?: "q8" | "f32";
    cache?: boolean;                                  // keep models in this browser; default true
    workers?: boolean;                                // default: true where Worker exists; false runs everything here (Node, edge isolates)
    onstate?: (node: string, state: NodeState) => void;
    base?: string | URL;                              // where inkling's own files lie; default: import.meta.url
  }): Graph;
  readonly nodes: { name: string; task: "generate" | "classify"; inputs: string[]; model: string }[];
  state(node: string): NodeState;
  readonly ready: Promise<void>;                      // rejects with the first node's error
  retry(node: string): void;                          // load again after `failed`
  stopLoading(node: string): void;                    // what came is kept, and the next load goes on from there
  /** Runs; may be called while models load (then `progress` events come first). Abort ends it before the next token: texts so far are `done` with `stopped`. Returns the answer. */
  run(request: Request, options?: { signal?: AbortSignal; timeout_ms?: number }): AsyncGenerator<Event, Answer>;
  /** The whole answer. */
  complete(request: Request, options?: { signal?: AbortSignal; timeout_ms?: number }): Promise<Answer>;
  close(): void;                                      // ends the workers
}
/** One model by itself. */
export class Model {
  static load(source: ModelSource, options?: { dtype?: "q8" | "f32"; cache?: boolean; workers?: boolean; signal?: AbortSignal; onprogress?: (p: NodeState) => void; untrained_head_seed?: number; base?: string | URL }): Promise<Model>;
  readonly name: string; readonly task: "generate" | "classify"; readonly sha256?: string; readonly memory_bytes: number; readonly load_ms: number;
  generate(prompt: string, options?: Request & { signal?: AbortSignal }): AsyncGenerator<Event, { text: string; finish_reason: string }[]>;
  classify(text: string, options?: { signal?: AbortSignal }): Promise<{ label: string; score: number; scores: object[]; logits: number[]; truncated: boolean }>;
  close(): void;
}
/** What is kept in this browser. */
export const storage: {
  list(): Promise<{ id: string; name: string; size_bytes: number; complete: boolean; last_used?: number }[]>;
  remove(id: string): Promise<void>;
  clear(): Promise<void>;
  estimate(): Promise<{ usage_bytes?: number; quota_bytes?: number; persisted: boolean }>;
  persist(): Promise<boolean>;
};
/** Every rejection of this module. */
export class InklingError extends Error { kind: string; can_retry: boolean }
