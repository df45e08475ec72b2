// The graph in Node, in the calling thread: what `run` gives, how it ends, and what is refused.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { HASH, REQUEST, hashOf, inkling, plainModels } from "./support.mjs";

const { Graph, InklingError } = inkling;

let graph;
const states = [];

before(async () => {
  graph = Graph.open({ models: await plainModels(), onstate: (node, state) => states.push([node, state.state]) });
  await graph.ready;
});
after(() => graph.close());

test("the texts and the scores are those of every other home", async () => {
  assert.equal(hashOf(await graph.complete(REQUEST)), HASH);
});

test("events come in the protocol's order, and the answer is what they add up to", async () => {
  const seen = {};
  const events = graph.run({ ...REQUEST, alternatives: 3 });
  for (;;) {
    const { done, value } = await events.next();
    if (done) {
      for (const { text, generated } of value.rows) assert.equal(generated, seen[text.node].text);
      assert.equal(value.seed, 7);
      break;
    }
    const { event, node, at_ms } = value;
    assert.equal(typeof at_ms, "number");
    seen[node] ??= { order: [], text: "I have an idea!" };
    if (seen[node].order.at(-1) !== event) seen[node].order.push(event);
    if (event === "token") {
      seen[node].text += value.text;
      assert.equal(value.alternatives.length, 3);
    }
  }
  assert.deepEqual(seen.gpt2.order, ["started", "token", "done"]);
  assert.deepEqual(seen.bert.order, ["started", "score", "started", "score"]);
});

test("every node tells of its loading and then that it is ready", () => {
  for (const node of ["gpt2", "distilgpt2", "bert"]) {
    const own = states.filter(([name]) => name === node).map(([, state]) => state);
    assert.ok(own.includes("loading"), node);
    assert.equal(own.at(-1), "ready", node);
  }
});

test("an abort keeps the texts so far and ends the run before its next tokens", async () => {
  const controller = new AbortController();
  const events = graph.run({ seed: 1, max_length: 250 }, { signal: controller.signal });
  let aborted;
  for (;;) {
    const { done, value } = await events.next();
    if (done) {
      assert.ok(performance.now() - aborted < 100);
      const row = value.rows.find(({ finish_reason }) => finish_reason === "stopped");
      assert.ok(row.new_tokens > 0 && row.generated.length > "I have an idea!".length && row.score === null);
      break;
    }
    if (value.event === "token" && !controller.signal.aborted) {
      controller.abort();
      aborted = performance.now();
    }
  }
});

test("a run that was aborted before it began fails every text as stopped", async () => {
  const { rows } = await graph.complete({}, { signal: AbortSignal.abort() });
  for (const { generated, error } of rows) assert.deepEqual([generated, error.kind], [null, "stopped"]);
});

test("a deadline fails what is not done", async () => {
  const { rows } = await graph.complete({ max_length: 250, num_return_sequences: 8 }, { timeout_ms: 20 });
  assert.ok(rows.some(({ error }) => error?.kind === "deadline"));
});

test("a reader that goes away stops the run, and the next one is whole", async () => {
  for await (const { event } of graph.run({ max_length: 250 })) if (event === "token") break;
  assert.equal(hashOf(await graph.complete(REQUEST)), HASH);
});

test("two runs at once do not mix", async () => {
  const answers = await Promise.all([graph.complete(REQUEST), graph.complete({ seed: 8 }), graph.complete(REQUEST)]);
  assert.equal(hashOf(answers[0]), HASH);
  assert.equal(hashOf(answers[2]), HASH);
  assert.notEqual(hashOf(answers[1]), HASH);
});

test("a seed of 64 bits keeps its value", async () => {
  const seed = 2n ** 63n + 5n;
  const [one, other] = [await graph.complete({ seed, max_length: 20 }), await graph.complete({ seed, max_length: 20 })];
  assert.equal(one.seed, seed);
  assert.equal(hashOf(one), hashOf(other));
});

test("a request that is wrong is refused with the parameter's name", async () => {
  const refused = (error) => error instanceof InklingError && error.kind === "invalid" && !error.can_retry;
  await assert.rejects(graph.complete({ temperature: -1 }), (error) => refused(error) && /`temperature`/.test(error.message));
  await assert.rejects(graph.complete({ max_length: "many" }), refused);
});

test("a graph file that is wrong is refused with its line", async () => {
  const broken = Graph.open({ graph: "nodes = [{ name = 'a', task = 'dance' }]" });
  await assert.rejects(broken.opened, (error) => error instanceof InklingError && /line 1/.test(error.message));
  await assert.rejects(broken.ready, InklingError);
});

test("a node whose model fails leaves the other rows whole", async () => {
  const half = Graph.open({ models: { gpt2: { demo: "nobody" } } });
  await assert.rejects(half.ready, /no demo model `nobody`/);
  const { rows } = await half.complete(REQUEST);
  assert.deepEqual([rows[0].generated, rows[0].error.kind], [null, "unavailable"]);
  assert.ok(rows[1].score > 0);
  half.close();
});

test("a closed graph refuses runs and ends those on their way", async () => {
  const closing = Graph.open();
  await closing.ready;
  // Both texts of this seed take more tokens than fit before the timer's turn.
  const running = closing.complete({ seed: 10, max_length: 250 });
  await new Promise((resolve) => setTimeout(resolve, 5));
  closing.close();
  assert.ok((await running).rows.every(({ error }) => error));
  await assert.rejects(closing.complete(), (error) => error.kind === "closed");
});

test("what a host can do is told", async () => {
  const { simd, relaxed_simd, workers, opfs, cores } = await inkling.capabilities();
  assert.deepEqual({ simd, workers, opfs }, { simd: true, workers: false, opfs: false });
  assert.equal(typeof relaxed_simd, "boolean");
  assert.ok(cores >= 1);
});
