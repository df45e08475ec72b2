/**
 * Inkling's engine for JavaScript: a graph of small language models in the page, in Node, or at the edge.
 *
 * ```js
 * import { Graph } from "inkling-graph";
 *
 * const graph = Graph.open();                       // two writers and a critic, which come with the package
 * const { rows } = await graph.complete({ sentence: "I have an idea!", seed: 2 });
 * for (const { generated, label, score } of rows) console.log(label, score, generated);
 * graph.close();
 * ```
 *
 * What crosses is plain data in the protocol's own words (snake_case, as in the HTTP API). Times are milliseconds, sizes
 * bytes. Every rejection is an {@link InklingError}.
 */

/** What this host can do. */
export interface Capabilities {
  /** WebAssembly SIMD: without it nothing runs. */
  simd: boolean;
  /** Relaxed SIMD. The build with it is used where the processor has one instruction for its dot product. */
  relaxed_simd: boolean;
  workers: boolean;
  /** The origin's private file system, where models are kept. */
  opfs: boolean;
  /** The Cache API, where models are kept if there is no private file system. */
  cache_api: boolean;
  /** Whether the browser has promised not to clear what is kept. */
  persisted: boolean;
  cores: number;
  /** The device's memory in GiB, rounded, where the browser tells. */
  memory_gib?: number;
}
export function capabilities(): Promise<Capabilities>;

/**
 * Compiles the engine, once. Everything else does it by itself; call it to do it early, or to give a module that was
 * compiled before, as edge runtimes want it:
 *
 * ```js
 * import module from "inkling-graph/engine/inkling_web.relaxed.wasm";
 * await init({ module });
 * ```
 */
export function init(options?: { module?: WebAssembly.Module; base?: string | URL }): Promise<WebAssembly.Module>;

/** A file's bytes: at an address, or here already. A `Response` is read once. */
export type Content = string | URL | Blob | Response | ArrayBuffer | Uint8Array;

/** Where a model comes from. */
export type ModelSource =
  /** One that comes with the package. */
  | { demo: "writer" | "writer-distilled" | "critic" }
  /** A repository of the Hugging Face hub, or of a mirror at `endpoint`. `revision` is a branch or commit; default `main`. */
  | { hub: string; revision?: string; endpoint?: string }
  /** A `.gguf` file, with `tokenizer.json` beside it. `sha256` in hexadecimal, checked if given. */
  | { url: string; sha256?: string }
  /** Files by name, as a folder of the hub has them; or `File`s that a visitor chose or dropped. */
  /** With `keep`, a name of your choice, the loaded model is kept in this browser under it. */
  | { files: Record<string, Content> | Iterable<File>; name?: string; keep?: string }
  /** What an earlier visit kept under this name; rejected with `missing` where it is gone. */
  | { keep: string; name?: string };

export interface ModelFile {
  name: string;
  size_bytes?: number;
  /** In hexadecimal, where the source names one. */
  sha256?: string;
}

/** What loading a model would take. */
export interface Description {
  name: string;
  files: ModelFile[];
  /** Still to come over the network; 0 if it is kept here, or local. */
  download_bytes: number;
  /** The weights in memory, about. */
  memory_bytes: number;
  /** Whether it is kept in this browser as a whole. */
  cached: boolean;
}
/** Asks for names, sizes and the config; downloads no weights. */
export function describe(source: ModelSource, options?: { dtype?: "q8" | "q4" | "f32"; cache?: boolean; base?: string | URL }): Promise<Description>;

/** How a node is. */
export type NodeState =
  /** Nothing has come yet. */
  | { state: "waiting" }
  /**
   * `file` is arriving: `bytes` of `total_bytes` so far, at most ten reports a second. `ms_left` is for this file, at the
   * rate of the last seconds.
   */
  | { state: "loading"; file: string; bytes: number; total_bytes?: number; ms_left?: number; from: "network" | "cache" | "file" }
  /**
   * It takes jobs. `memory_bytes` is what its worker holds, `isa` the instruction set of its kernels. `notice` says what
   * did not go as it should without keeping it from running, such as a full disk.
   */
  | {
      state: "ready";
      load_ms: number;
      memory_bytes: number;
      model: string;
      /** Of `config.json`, if there is one, and then the weights' files, in hexadecimal. */
      model_sha256?: string;
      task: "generate" | "classify";
      isa: string;
      notice?: string;
    }
  /** It could not be loaded, for this reason. With `can_retry`, {@link Graph.retry} may help. */
  | { state: "failed"; error: string; kind: ErrorKind; can_retry: boolean }
  | { state: "closed" };

/** What a person can do about it depends on the kind. */
export type ErrorKind =
  /** A server could not be reached, refused, or broke off. What came is kept, and a retry goes on there. */
  | "network"
  /** The bytes are not those that were announced; nothing of them was kept. */
  | "hash"
  /** A file, a repository or a local file is not there. */
  | "missing"
  | "storage"
  | "memory"
  /** A file is not what a model's file should be. */
  | "format"
  /** The request or the graph file is wrong. */
  | "invalid"
  /** Loading was stopped. What came is kept. */
  | "stopped"
  /** This host cannot run the engine. */
  | "unsupported"
  /** The graph or model was closed. */
  | "closed"
  /** A job failed because its node's model is not there, or past its deadline. */
  | "unavailable" | "deadline"
  | "internal";

/** An event of a run. `at_ms` counts from its beginning. */
export type Event = { at_ms: number; node: string } & (
  | { event: "started"; model: string; model_sha256?: string; input_tokens: number }
  | { event: "progress"; file: string; bytes: number; total_bytes: number | null }
  | { event: "token"; sequence: number; id: number; text: string; log_prob: number; alternatives?: { id: number; text: string; log_prob: number }[] }
  | { event: "done"; sequence: number; prompt: string; completion: string; new_tokens: number; finish_reason: FinishReason }
  | ({ event: "score"; source: TextId | null } & Classification)
  | { event: "failed"; text: TextId | null; kind: string; error: string }
);
export type FinishReason = "length" | "context" | "end_of_text" | "stop_string" | "stopped";
/** One text of a run: the node that wrote it, and which of its continuations. */
export interface TextId { node: string; sequence: number }
export interface Classification {
  label: string;
  /** The label's probability. */
  score: number;
  scores: { label: string; score: number }[];
  logits: number[];
  /** Whether the text was cut to what the model takes. */
  truncated: boolean;
}

/** How to decode. What a request leaves out the graph, the model or the built-in value decides. */
export interface Parameters {
  /** Most tokens of prompt and continuation together. Built in: 128. */
  max_length?: number;
  /** Most new tokens; decides alone where it is given. */
  max_new_tokens?: number;
  /** Draw (true) or always take the likeliest token. Built in: true. */
  do_sample?: boolean;
  /** Above 0, at most 100. Built in: 1. */
  temperature?: number;
  /** Draw from so many likeliest tokens; 0 means all. Built in: 50. */
  top_k?: number;
  /** In (0, 1]. Built in: 1. */
  top_p?: number;
  /** In [0, 1]. Built in: 0. */
  min_p?: number;
  /** Above 0. Built in: 1. */
  repetition_penalty?: number;
  no_repeat_ngram_size?: number;
  /** 1 to 16. Built in: 1. */
  num_return_sequences?: number;
  /** The same seed gives the same text in every home. Up to 64 bits, as a bigint above 2^53. Drawn if not given. */
  seed?: number | bigint;
  /** The text ends before the first of these. */
  stop?: string[];
  /** Likeliest tokens that each token event carries, 0 to 20. Built in: 0. */
  alternatives?: number;
}
export interface Request extends Parameters {
  /** Built in: `I have an idea!` */
  sentence?: string;
}

/** One text and what the critics say of it. */
export interface Row {
  text: TextId | null;
  /** Prompt and continuation; null if its node failed. */
  generated: string | null;
  score: number | null;
  label: string | null;
  judgements: ({ node: string } & Classification)[];
  new_tokens: number;
  finish_reason: FinishReason | null;
  error?: { node: string; kind: string; message: string };
}
export interface NodeReport {
  node: string;
  model: string | null;
  model_sha256: string | null;
  started_ms: number | null;
  first_token_ms: number | null;
  ended_ms: number | null;
  tokens: number;
  tokens_per_second: number | null;
}
export interface Answer {
  graph: string;
  sentence: string;
  seed: number | bigint;
  rows: Row[];
  nodes: NodeReport[];
  total_ms: number;
}

export interface RunOptions {
  /** Ends the run before its next token. Texts so far are done, with `finish_reason: "stopped"`. */
  signal?: AbortSignal;
  /** After so many milliseconds what is not done fails, with kind `deadline`. */
  timeout_ms?: number;
}

export interface GraphOptions {
  /** A graph file (TOML). Default: two writers and a critic. */
  graph?: string;
  /** Models by the nodes' names. Default: each node's demo model. */
  models?: Record<string, ModelSource>;
  /** How matrices are kept: 8 bits a weight (default), 4 bits (half the memory, faster, less exact), or exact. */
  dtype?: "q8" | "q4" | "f32";
  /** Keep models from the hub and from addresses in this browser. Default: true. */
  cache?: boolean;
  /** A worker a model (default where there are workers), or all in the calling thread: Node, edge isolates. */
  workers?: boolean;
  onstate?: (node: string, state: NodeState) => void;
  /** Where the engine's files lie. Default: beside this module. */
  base?: string | URL;
  /** The engine, compiled before: see {@link init}. */
  module?: WebAssembly.Module;
}

/** A graph of models. */
export class Graph {
  /** Returns at once; the models load in the background. */
  static open(options?: GraphOptions): Graph;
  /** The nodes in the order of the file; empty until `opened`. `model` is the demo model's name, `hub` its big sister's. */
  readonly nodes: { name: string; task: "generate" | "classify"; inputs: string[]; model: string; hub: string | null }[];
  /** The engine is compiled and the graph file read. Rejects if either cannot be. */
  readonly opened: Promise<void>;
  /** Every model is loaded. Rejects with the first one's error. */
  readonly ready: Promise<void>;
  state(node: string): NodeState;
  /** Loads again after `failed`. */
  retry(node: string): void;
  /** What came is kept, and the next load goes on from there. */
  stopLoading(node: string): void;
  /**
   * Runs the graph. May begin while models load: `progress` comes first then. A reader that leaves the loop stops the run.
   *
   * ```js
   * for await (const event of graph.run({ sentence: "Once" })) if (event.event === "token") process.stdout.write(event.text);
   * ```
   */
  run(request?: Request, options?: RunOptions): AsyncGenerator<Event, Answer, void>;
  /** {@link Graph.run} to its end. */
  complete(request?: Request, options?: RunOptions): Promise<Answer>;
  /** Ends the workers and frees all memory. */
  close(): void;
}

/** One model by itself. */
export class Model {
  static load(
    source: ModelSource,
    options?: {
      dtype?: "q8" | "q4" | "f32";
      cache?: boolean;
      workers?: boolean;
      /** Stops loading. */
      signal?: AbortSignal;
      onprogress?: (state: NodeState) => void;
      /** Fills a missing classification head with draws from this seed, instead of refusing the model. */
      untrained_head_seed?: number;
      base?: string | URL;
    },
  ): Promise<Model>;
  readonly name: string;
  readonly task: "generate" | "classify";
  readonly sha256?: string;
  readonly memory_bytes: number;
  readonly load_ms: number;
  /** Tokens as they come; at the end one entry for each continuation, `text` with the prompt, `completion` without. */
  generate(
    prompt: string,
    options?: Parameters & { signal?: AbortSignal },
  ): AsyncGenerator<Event, { text: string; completion: string; finish_reason: FinishReason }[], void>;
  classify(text: string, options?: { signal?: AbortSignal }): Promise<Classification>;
  close(): void;
}

/** What is kept in this browser. */
export const storage: {
  /**
   * A model may be kept once at each dtype. `complete` is false for a download that is to go on. `last_used` in
   * milliseconds since 1970.
   */
  list(): Promise<
    { id: string; name: string; dtype?: "q8" | "q4" | "f32"; size_bytes: number; complete: boolean; last_used?: number }[]
  >;
  remove(id: string): Promise<void>;
  clear(): Promise<void>;
  estimate(): Promise<{ usage_bytes?: number; quota_bytes?: number; persisted: boolean }>;
  /** Asks the browser not to clear it; loading from the hub asks once by itself. */
  persist(): Promise<boolean>;
};

/** Every rejection of this module: `message` is one sentence for people. */
export class InklingError extends Error {
  kind: ErrorKind;
  can_retry: boolean;
}
