// Times the engine in a browser, on checkpoints that a server on loopback lends. `index.html` is the page for it; a
// driver imports this module there and calls `decode`, `kept` or `graph`. What is timed is what the peers' benches time.
//
// Beside the folder of this file (`/bench/`) the server has the engine's (`/engine/`); `hub` is the address of a folder
// of repositories as the hub has them (`openai-community/gpt2/config.json`).
import { Graph, Model, init } from "../engine/inkling.js";

const GENERATOR = "openai-community/gpt2";
const CRITIC = "textattack/bert-base-uncased-SST-2";
/** The models of the built-in graph's nodes. */
const NODES = { gpt2: GENERATOR, distilgpt2: "distilbert/distilgpt2", bert: CRITIC };

const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];

/** A repository as a source; a classifier has no `generation_config.json`. */
function source(hub, repository) {
  const names = ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"];
  if (repository !== CRITIC) names.push("generation_config.json");
  const url = (name) => new URL(`${repository}/${name}`, new URL(hub, location.href)).href;
  return { name: repository, files: Object.fromEntries(names.map((name) => [name, url(name)])) };
}

/** A prompt of `tokens` words, each of which is one token of GPT-2's. */
function prompt(tokens) {
  const words = "The rain in this town falls all day and all night so that people read long books at home".split(" ");
  return Array.from({ length: tokens }, (_, i) => words[i % words.length]).join(" ");
}

/** Runs to the end; the answer is how long that took and the texts that were written, by node. */
async function timed(run, read) {
  const began = performance.now();
  const found = { done: [], first: undefined };
  for await (const event of run) {
    if (event.event === "failed") throw new Error(`${event.node}: ${event.error}`);
    read(event, performance.now() - began, found);
  }
  return { ms: performance.now() - began, ...found };
}

/**
 * GPT-2 at 8 bits in one worker: tokens a second of a prompt and of greedy continuing, medians after a warm-up.
 *
 * A prompt's time is that of the whole call for one new token; a continuation's is that of the call for
 * `new_tokens` more, less the prompt's.
 */
export async function decode(hub, { repository = GENERATOR, prompt_tokens = 64, new_tokens = 96, runs = 5, dtype = "q8", module } = {}) {
  await init({ module });
  let state;
  const model = await Model.load(source(hub, repository), { dtype, cache: false, onprogress: (now) => (state = now) });
  const { isa } = state;
  const text = prompt(prompt_tokens);
  const time = async (tokens) => {
    const read = (event, _, found) => {
      if (event.event === "started") found.input_tokens = event.input_tokens;
      if (event.event === "done") found.done.push(event);
    };
    const { ms, done, input_tokens } = await timed(model.generate(text, { max_new_tokens: tokens, do_sample: false }), read);
    if (done[0].new_tokens !== tokens) throw new Error(`expected ${tokens} new tokens, got ${done[0].new_tokens}`);
    return { ms, input_tokens, text: done[0].completion };
  };
  // Another tokenizer than GPT-2's may make more or fewer tokens of it.
  const { input_tokens } = await time(new_tokens);
  const prefills = [];
  const decodes = [];
  let completion;
  for (let run = 0; run < runs; run++) {
    prefills.push((await time(1)).ms);
    const whole = await time(new_tokens + 1);
    completion = whole.text;
    decodes.push(whole.ms);
  }
  model.close();
  const prefill_ms = median(prefills);
  return {
    isa,
    load_ms: model.load_ms,
    memory_bytes: model.memory_bytes,
    input_tokens,
    prefill_tokens_per_s: (input_tokens * 1000) / prefill_ms,
    decode_tokens_per_s: (new_tokens * 1000) / (median(decodes) - prefill_ms),
    completion,
  };
}

/**
 * GPT-2 at 8 bits in one worker, which an earlier visit has kept in the browser: milliseconds until it takes jobs, of each
 * of `runs` visits.
 */
export async function kept(hub, { repository = GENERATOR, runs = 5, dtype = "q8", module } = {}) {
  await init({ module });
  const load = async (source) => {
    const model = await Model.load(source, { dtype });
    model.close();
    return model.load_ms;
  };
  await load({ ...source(hub, repository), keep: "bench" });
  const load_ms = [];
  for (let run = 0; run < runs; run++) load_ms.push(await load({ keep: "bench" }));
  return { load_ms };
}

/**
 * The built-in graph on full-size models, a worker each: two writers side by side, a critic that scores each text.
 * Milliseconds, medians after a warm-up, over runs in which both writers wrote all `new_tokens`.
 */
export async function graph(hub, { new_tokens = 45, runs = 7, dtype = "q8", module } = {}) {
  await init({ module });
  const models = Object.fromEntries(Object.entries(NODES).map(([node, repository]) => [node, source(hub, repository)]));
  const graph = Graph.open({ dtype, cache: false, models });
  await graph.ready;
  const time = (seed) => {
    const read = (event, ms, found) => {
      if (event.event === "done") found.done.push({ node: event.node, new_tokens: event.new_tokens, ms });
    };
    return timed(graph.run({ sentence: "I have an idea!", max_new_tokens: new_tokens, do_sample: true, seed }), read);
  };
  const { ms: first_ms } = await time(0);
  const whole = [];
  for (let seed = 1; whole.length < runs; seed++) {
    const run = await time(seed);
    if (run.done.every((text) => text.new_tokens === new_tokens)) whole.push(run);
    else if (seed > 10 * runs) throw new Error(`expected texts of ${new_tokens} tokens; the writers end too soon`);
  }
  graph.close();
  const written = (name) => median(whole.map(({ done }) => done.find(({ node }) => node === name).ms));
  const nodes = whole[0].done.map(({ node }) => node);
  return {
    first_ms,
    written_ms: Object.fromEntries(nodes.map((node) => [node, written(node)])),
    total_ms: median(whole.map(({ ms }) => ms)),
  };
}
