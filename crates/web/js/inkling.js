// Inkling's engine for JavaScript. `inkling.d.ts` documents what is exported here.
//
// What a run is, how a model loads and what a node says is decided in Rust (`../src`); this file is what only
// JavaScript can be: the owner of workers, of AbortSignals and of async generators.
import { Course, GraphSpec, Node, describe as describeSource, forget, initSync, stored } from "./inkling_web.js";

/** Where this file and its neighbours lie, with a slash at the end. */
const OWN_FOLDER = new URL(".", import.meta.url).href;

/** Every rejection of this module. */
export class InklingError extends Error {
  constructor({ error, kind = "internal", can_retry = false }) {
    super(error);
    this.name = "InklingError";
    this.kind = kind;
    this.can_retry = can_retry;
  }

  /** What Rust throws is a plain object. */
  static from(thrown) {
    if (thrown instanceof Error) return thrown;
    return new InklingError(typeof thrown === "object" && thrown !== null ? thrown : { error: String(thrown) });
  }
}

// ---- The module: compiled once, on the thread of the API ----

/** Smallest modules that use what they ask for: `i32x4.splat` and `i32x4.relaxed_dot_i8x16_i7x16_add_s`. */
const SIMD = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 8, 1, 6, 0, 65, 0, 253, 17, 11];
const RELAXED_SIMD = [
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 19, 1, 17, 0, 65, 0, 253, 15, 65, 0, 253, 15, 65, 0,
  253, 15, 253, 147, 2, 11,
];

const has = (feature) => WebAssembly.validate(new Uint8Array(feature));

let started;

/**
 * Compiles the engine. Called by everything that needs it; call it yourself to give a module that was compiled before,
 * as edge runtimes ask for.
 */
export function init({ module, base } = {}) {
  started ??= start(module, base).catch((error) => {
    started = undefined;
    throw InklingError.from(error);
  });
  return started;
}

async function start(module, base) {
  if (!has(SIMD)) {
    const error = "This browser has no WebAssembly SIMD, which Inkling needs; any browser from 2023 on has it.";
    throw new InklingError({ error, kind: "unsupported" });
  }
  const compiled = (build) => compile(new URL(`inkling_web.${build}.wasm`, base ?? OWN_FOLDER));
  if (!module && has(RELAXED_SIMD)) {
    // A browser that has learnt it since the page was kept has only the other build without a network.
    module = await compiled("relaxed").catch((error) => compiled("simd128").catch(() => { throw error; }));
  }
  module ??= await compiled("simd128");
  initSync({ module });
  return module;
}

async function compile(url) {
  if (url.protocol === "file:") {
    const { readFile } = await import("node:fs/promises");
    return WebAssembly.compile(await readFile(url));
  }
  const failed = (why) =>
    new InklingError({ error: `The engine could not be loaded from ${url.host}: ${why}.`, kind: "network", can_retry: true });
  const response = await fetch(url).catch((error) => {
    throw failed(error.message);
  });
  if (!response.ok) throw failed(`status ${response.status}`);
  // A server that does not know the type of wasm files must not keep the engine from running.
  return response.headers.get("content-type")?.startsWith("application/wasm")
    ? WebAssembly.compileStreaming(response)
    : WebAssembly.compile(await response.arrayBuffer());
}

// ---- Links: a node's model, in a worker or here ----

/** Workers that a graph starts before the engine is compiled: as many as the built-in one has nodes. */
const EARLY_WORKERS = 3;

/** A link calls the node's methods and hands its messages to `onmessage`; `ondeath` is called at most once. */
class WorkerLink {
  #worker;
  #gone = new AbortController();
  #tell;
  /** Why it died, which it may do before anyone listens. */
  #death = new Promise((tell) => (this.#tell = tell));

  constructor(base) {
    this.#worker = new Worker(new URL("worker.js", base), { type: "module", name: "inkling" });
    this.#worker.onerror = (event) => {
      event.preventDefault();
      this.#died(event.message ? `it broke (${event.message})` : "it could not be started");
    };
    this.#worker.onmessageerror = () => this.#died("a message of it could not be read");
  }

  start(module, { onmessage, ondeath }) {
    // Not `randomUUID`, which pages that came by plain http from another machine do not have.
    const lock = `inkling-worker-${crypto.getRandomValues(new Uint32Array(4)).join("-")}`;
    this.#death.then(ondeath);
    this.#worker.onmessage = ({ data }) => {
      if (data.type === "alive") {
        // Granted when the worker is gone, however it went.
        const { signal } = this.#gone;
        navigator.locks?.request(lock, { signal }, () => this.#died("it was ended from outside")).catch(() => {});
      } else if (data.type === "died") {
        this.#died(data.error);
      } else if (!this.#gone.signal.aborted) {
        onmessage(data);
      }
    };
    this.call("start", module, lock);
    return this;
  }

  #died(why) {
    if (this.#gone.signal.aborted) return;
    this.close();
    this.#tell(why);
  }

  call(...message) {
    this.#worker.postMessage(message, message.flatMap(transferable));
  }

  close() {
    this.#gone.abort();
    this.#worker.terminate();
  }
}

/** Response bodies are handed over; everything else is copied or, as a Blob, shared. */
function transferable(value) {
  const streams = value?.files?.map(([, content]) => content?.stream) ?? [];
  // A Blob has a method of that name.
  return streams.filter((stream) => stream instanceof ReadableStream);
}

class LocalLink {
  #node;

  constructor({ onmessage, ondeath }) {
    this.#node = new Node((message) => {
      // As from a worker: never while the caller is still at work.
      queueMicrotask(() => {
        if (!this.#node) return;
        if (message.type === "died") ondeath(message.error);
        else onmessage(message);
      });
    });
  }

  call(method, ...args) {
    this.#node?.[method](...args);
  }

  close() {
    this.#node?.close();
    this.#node?.free();
    this.#node = undefined;
  }
}

/** How nodes are reached: in workers, the `early` ones first, or here. */
const linking = (workers, base, early = []) => (module, handlers) =>
  workers ? (early.pop() ?? new WorkerLink(base)).start(module, handlers) : new LocalLink(handlers);

// ---- Seats: a node of the graph, its link, its state and the jobs that wait for it ----

class Seat {
  state = { state: "waiting" };
  #name;
  #source;
  #options;
  #connect;
  #onstate;
  #link;
  /** `{id, job, run}` in order; the first one is running if `#running`. */
  #queue = [];
  #running = false;
  #deaths = 0;
  /** Why the last one died, until another has its place. */
  #epitaph;
  #settle;

  constructor(name, source, options, connect, onstate) {
    this.#name = name;
    this.#source = source;
    this.#options = options;
    this.#connect = connect;
    this.#onstate = onstate;
    this.#expect();
  }

  /** Settles when the model is loaded, or cannot be. */
  #expect() {
    this.ready = new Promise((resolve, reject) => (this.#settle = { resolve, reject }));
    this.ready.catch(() => {});
  }

  async load() {
    if (this.state.state === "closed") return;
    try {
      const [module, source] = await Promise.all([init({ base: this.#options.base }), crossing(this.#source, this.#options.base)]);
      if (this.state.state === "closed") return;
      this.#link ??= this.#connect(module, {
        onmessage: (message) => this.#take(message),
        ondeath: (error) => this.#died(error),
      });
      askToPersist(source, this.#options);
      this.#link.call("load", source, this.#options);
    } catch (thrown) {
      const { message, kind = "internal", can_retry = false } = InklingError.from(thrown);
      this.#set({ state: "failed", error: message, kind, can_retry });
    }
  }

  retry() {
    if (this.state.state !== "failed") return;
    this.#expect();
    this.#set({ state: "waiting" });
    this.load();
  }

  stopLoading() {
    this.#link?.call("stop_loading");
  }

  /** Hands a job over, or lets it wait; a node that cannot do it says so at once. */
  submit(id, job, run) {
    const { state, error } = this.state;
    if (state === "failed" || state === "closed") {
      run.fail(id, "unavailable", error ?? "the graph was closed");
      return;
    }
    this.#queue.push({ id, job, run });
    if (state === "loading") run.progress(this.#name, this.state);
    this.#next();
  }

  /** Ends every job of a run: at once where it waits, before its next token where it runs. */
  stop(run, kind, error) {
    const isRunning = (entry) => this.#running && entry === this.#queue[0];
    for (const entry of this.#queue.filter((entry) => entry.run === run)) {
      if (isRunning(entry)) this.#link.call("stop", this.#ticket, kind);
      else entry.run.fail(entry.id, kind, error);
    }
    this.#queue = this.#queue.filter((entry) => entry.run !== run || isRunning(entry));
  }

  close() {
    this.#link?.close();
    this.#set({ state: "closed" });
  }

  /** Numbers the jobs of all runs. */
  #ticket = 0;

  #next() {
    if (this.#running || this.state.state !== "ready" || this.#queue.length === 0) return;
    this.#running = true;
    this.#link.call("job", ++this.#ticket, this.#queue[0].job);
  }

  #take({ type, state, job, events }) {
    if (type === "state") {
      this.#set(state);
    } else if (this.#running && job === this.#ticket) {
      const entry = this.#queue[0];
      if (type === "events") {
        entry.run.accept(entry.id, events);
      } else {
        this.#queue.shift();
        this.#running = false;
        entry.run.ended(entry.id);
        this.#next();
      }
    }
  }

  #set(state) {
    if (this.state.state === "closed") return;
    if (state.state === "ready" && this.#epitaph) {
      state = { notice: `The worker of ${this.#name} ended and was replaced: ${this.#epitaph}.`, ...state };
      this.#epitaph = undefined;
    }
    this.state = state;
    const { error } = state;
    if (state.state === "ready") {
      this.#deaths = 0;
      this.#settle.resolve();
      this.#next();
    } else if (state.state === "failed" || state.state === "closed") {
      this.#settle.reject(new InklingError(error ? state : { error: "The graph was closed.", kind: "closed" }));
      const queue = this.#queue;
      this.#queue = [];
      this.#running = false;
      for (const entry of queue) entry.run.fail(entry.id, "unavailable", error ?? "the graph was closed");
    } else if (state.state === "loading") {
      for (const run of new Set(this.#queue.map((entry) => entry.run))) run.progress(this.#name, state);
    }
    this.#onstate(state);
  }

  /** A worker that died takes its job with it, and is replaced; one that dies again and again is not. */
  #died(why) {
    const reason = `The model's worker ended: ${why}.`;
    this.#epitaph = why;
    this.#link?.close();
    this.#link = undefined;
    if (this.#running) {
      const entry = this.#queue.shift();
      this.#running = false;
      entry.run.fail(entry.id, "internal", reason);
    }
    this.#deaths += 1;
    if (this.state.state === "failed") return;
    if (this.#deaths > 2 || !this.#options.workers) {
      this.#set({ state: "failed", error: reason, kind: /memory/.test(why) ? "memory" : "internal", can_retry: true });
    } else {
      if (this.state.state === "ready") this.#expect();
      this.#set({ state: "waiting" });
      this.load();
    }
  }
}

/** A source in the form that crosses to a worker: no URL and no Response objects, files as pairs. */
async function crossing(source, base) {
  if (source.demo && base.startsWith("file:")) {
    const folder = new URL(`../models/demo/${source.demo}/`, base);
    const { readdir } = await import("node:fs/promises");
    const names = await readdir(folder).catch(() => {
      throw new InklingError({ error: `There is no demo model \`${source.demo}\`.`, kind: "missing" });
    });
    source = { name: source.demo, files: Object.fromEntries(names.map((name) => [name, new URL(name, folder)])) };
  }
  if (source.url) return { ...source, url: String(new URL(source.url, base)) };
  if (!source.files) return source;
  const isRecord = !(Symbol.iterator in source.files);
  const pairs = isRecord ? Object.entries(source.files) : Array.from(source.files, (file) => [file.name, file]);
  const files = await Promise.all(pairs.map(async ([name, content]) => [name, await crossingContent(content, base)]));
  return { name: source.name ?? folderOf(pairs), files, keep: source.keep };
}

/** The name of the folder that files were chosen from, as directory pickers tell it. */
function folderOf(pairs) {
  const path = pairs.map(([, content]) => content?.webkitRelativePath).find(Boolean);
  return path?.split("/").at(-2) ?? "files";
}

async function crossingContent(content, base) {
  if (typeof content === "string" || content instanceof URL) {
    const url = new URL(content, base);
    if (url.protocol !== "file:") return url.href;
    const { openAsBlob } = await import("node:fs");
    return openAsBlob(url);
  }
  if (typeof Response !== "undefined" && content instanceof Response) {
    if (!content.ok) {
      const error = `The response for ${content.url || "a file"} has status ${content.status}.`;
      throw new InklingError({ error, kind: "network", can_retry: true });
    }
    const encoded = content.headers.get("content-encoding");
    const length = content.headers.get("content-length");
    return { stream: content.body, size: length && !encoded ? Number(length) : undefined };
  }
  return content;
}

// ---- A run: events as they come, and the answer ----

class Run {
  #began = performance.now();
  #course;
  #submit;
  /** Events that nobody has taken yet, and the reader that waits for the next. */
  #events = [];
  #wake;

  constructor(course, submit) {
    this.#course = course;
    this.#submit = submit;
    this.dispatch();
  }

  get over() {
    return this.#course.is_over();
  }

  #now() {
    return performance.now() - this.#began;
  }

  #push(events) {
    this.#events.push(...events);
    this.#wake?.();
  }

  dispatch() {
    for (const { id, node, job } of this.#course.take_jobs()) this.#submit(node, id, job, this);
  }

  accept(id, events) {
    if (!this.#course) return;
    const at_ms = this.#now();
    for (const event of events) {
      this.#course.accept(id, event, at_ms);
      event.at_ms = at_ms;
    }
    this.#push(events);
    this.dispatch();
  }

  fail(id, kind, error) {
    if (!this.#course) return;
    const at_ms = this.#now();
    this.#push(this.#course.fail(id, kind, error, at_ms).map((event) => ({ ...event, at_ms })));
  }

  /** The node is done with a job. What it left open, which would be a fault of the engine, must not keep a run from ending. */
  ended(id) {
    this.fail(id, "internal", "the node ended without a result");
  }

  progress(node, { file, bytes, total_bytes = null }) {
    if (!this.#course) return;
    this.#push([{ event: "progress", node, file, bytes, total_bytes, at_ms: this.#now() }]);
  }

  stop() {
    this.#course?.stop();
  }

  /** The events in order, until every job has ended. */
  async *events() {
    for (;;) {
      while (this.#events.length > 0) yield this.#events.shift();
      if (this.over) return;
      await new Promise((resolve) => (this.#wake = resolve));
      this.#wake = undefined;
    }
  }

  answer() {
    return this.#course.answer();
  }

  free() {
    this.#course?.free();
    this.#course = undefined;
  }
}

/** The events of a run and its answer; a signal, a deadline or a reader that goes away ends it before its next token. */
async function* ending(run, seats, { signal, timeout_ms }) {
  const end = (kind, error) => {
    run.stop();
    for (const seat of seats) seat.stop(run, kind, error);
  };
  const abort = () => end("stopped", "stopped before the job was done");
  signal?.addEventListener("abort", abort);
  if (signal?.aborted) abort();
  const late = () => end("deadline", "the deadline passed before the job was done");
  const deadline = timeout_ms && setTimeout(late, timeout_ms);
  try {
    yield* run.events();
    return run.answer();
  } finally {
    clearTimeout(deadline);
    signal?.removeEventListener("abort", abort);
    if (!run.over) abort();
    run.free();
  }
}

/** Below 2^53, so that a JavaScript number holds it. */
const drawSeed = () => Math.floor(Math.random() * Number.MAX_SAFE_INTEGER);

/** A graph whose every model lives in a worker of its own. */
export class Graph {
  nodes = [];
  #seats = new Map();
  #spec;
  /** Workers that no node has yet. */
  #early;
  #closed = false;

  static open(options = {}) {
    return new Graph(options);
  }

  constructor({ graph, models = {}, dtype, cache, workers, onstate, base, module } = {}) {
    base = folder(base);
    workers ??= hasWorkers();
    this.#early = Array.from({ length: workers ? EARLY_WORKERS : 0 }, () => new WorkerLink(base));
    const connect = linking(workers, base, this.#early);
    this.opened = init({ module, base }).then(() => {
      this.#spec = thrownAsError(() => new GraphSpec(graph));
      this.nodes = this.#spec.nodes();
      for (const { name, task, model } of this.nodes) {
        const tell = (state) => onstate?.(name, state);
        this.#seats.set(name, new Seat(name, models[name] ?? { demo: model }, { dtype, cache, base, workers, task }, connect, tell));
      }
      this.#dismiss(this.nodes.length);
      if (this.#closed) this.close();
      else for (const seat of this.#seats.values()) seat.load();
    });
    this.ready = this.opened.then(() => Promise.all([...this.#seats.values()].map((seat) => seat.ready))).then(() => {});
    // Whoever does not wait for it sees the failure in the states. Without an engine nobody takes the early workers.
    this.ready.catch(() => this.#dismiss());
  }

  state(node) {
    return this.#seats.get(node)?.state ?? { state: "waiting" };
  }

  retry(node) {
    this.#seats.get(node)?.retry();
  }

  stopLoading(node) {
    this.#seats.get(node)?.stopLoading();
  }

  async *run(request = {}, { signal, timeout_ms } = {}) {
    await this.opened;
    if (this.#closed) throw new InklingError({ error: "The graph was closed.", kind: "closed" });
    const course = thrownAsError(() => new Course(this.#spec, request, drawSeed()));
    const run = new Run(course, (node, id, job, run) => this.#seats.get(node).submit(id, job, run));
    return yield* ending(run, [...this.#seats.values()], { signal, timeout_ms });
  }

  async complete(request, options) {
    const events = this.run(request, options);
    for (;;) {
      const { done, value } = await events.next();
      if (done) return value;
    }
  }

  /** Ends early workers, but for so many. */
  #dismiss(but = 0) {
    for (const link of this.#early.splice(but)) link.close();
  }

  close() {
    this.#closed = true;
    this.#dismiss();
    for (const seat of this.#seats.values()) seat.close();
    this.#spec?.free();
    this.#spec = undefined;
  }
}

/** One model by itself: a graph of one node, whose task the model decides. */
export class Model {
  #seat;
  #spec;

  static async load(source, { dtype, cache, workers = hasWorkers(), signal, onprogress, untrained_head_seed, base } = {}) {
    base = folder(base);
    await init({ base });
    const connect = linking(workers, base);
    const options = { dtype, cache, base, workers, untrained_head_seed };
    const seat = new Seat("model", source, options, connect, (state) => onprogress?.(state));
    const stop = () => seat.stopLoading();
    signal?.addEventListener("abort", stop);
    try {
      signal?.throwIfAborted();
      seat.load();
      await seat.ready;
      return new Model(seat);
    } catch (thrown) {
      seat.close();
      throw thrown;
    } finally {
      signal?.removeEventListener("abort", stop);
    }
  }

  constructor(seat) {
    const { model, model_sha256, task, memory_bytes, load_ms } = seat.state;
    Object.assign(this, { name: model, task, sha256: model_sha256, memory_bytes, load_ms });
    this.#seat = seat;
    this.#spec = new GraphSpec(`nodes = [{ name = "model", task = "${task}", model = "model", inputs = ["sentence"] }]`);
  }

  async *generate(prompt, { signal, ...parameters } = {}) {
    const answer = yield* this.#run({ ...parameters, sentence: prompt }, signal);
    return answer.rows.map(({ generated, finish_reason, error }) => {
      if (error) throw new InklingError({ error: error.message, kind: error.kind });
      return { text: generated, completion: generated.slice(prompt.length), finish_reason };
    });
  }

  async classify(text, { signal } = {}) {
    const events = this.#run({ sentence: text }, signal);
    for (;;) {
      const { done, value } = await events.next();
      if (!done) continue;
      const [{ judgements, error }] = value.rows;
      if (error) throw new InklingError({ error: error.message, kind: error.kind });
      const { node, ...classification } = judgements[0];
      return classification;
    }
  }

  #run(request, signal) {
    if (!this.#spec) throw new InklingError({ error: "The model was closed.", kind: "closed" });
    const run = new Run(
      thrownAsError(() => new Course(this.#spec, request, drawSeed())),
      (_, id, job, run) => this.#seat.submit(id, job, run),
    );
    return ending(run, [this.#seat], { signal });
  }

  close() {
    this.#seat.close();
    this.#spec?.free();
    this.#spec = undefined;
  }
}

/** What loading a model would take. */
export async function describe(source, { dtype, cache, base } = {}) {
  base = folder(base);
  await init({ base });
  try {
    return await describeSource(await crossing(source, base), { dtype, cache, base });
  } catch (thrown) {
    throw InklingError.from(thrown);
  }
}

/** What is kept in this browser. */
export const storage = {
  list: () => withEngine(stored),
  remove: (id) => withEngine(() => forget(id)),
  clear: () => withEngine(() => forget()),
  async estimate() {
    const { storage } = globalThis.navigator ?? {};
    const { usage, quota } = (await storage?.estimate?.()) ?? {};
    return { usage_bytes: usage, quota_bytes: quota, persisted: (await storage?.persisted?.()) ?? false };
  },
  persist: async () => (await globalThis.navigator?.storage?.persist?.()) ?? false,
};

async function withEngine(call) {
  await init();
  try {
    return await call();
  } catch (thrown) {
    throw InklingError.from(thrown);
  }
}

/** Browsers may clear what a page keeps unless it asks; once a visit is enough. */
let asked;
function askToPersist(source, options) {
  if (options.cache !== false && (source.hub || source.url || source.keep)) asked ??= storage.persist().catch(() => false);
}

const folder = (base) => new URL(".", base ?? OWN_FOLDER).href;

const hasWorkers = () => typeof Worker === "function" && typeof document !== "undefined";

function thrownAsError(make) {
  try {
    return make();
  } catch (thrown) {
    throw InklingError.from(thrown);
  }
}

/** What this host can do. */
export async function capabilities() {
  const { storage, hardwareConcurrency, deviceMemory } = globalThis.navigator ?? {};
  return {
    simd: has(SIMD),
    relaxed_simd: has(RELAXED_SIMD),
    workers: typeof Worker === "function",
    opfs: typeof storage?.getDirectory === "function",
    cache_api: typeof caches === "object",
    persisted: (await storage?.persisted?.()) ?? false,
    cores: hardwareConcurrency ?? 1,
    ...(deviceMemory && { memory_gib: deviceMemory }),
  };
}
