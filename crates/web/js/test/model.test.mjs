// Models by themselves, from bytes, Blobs, Responses, Files and a hub; and downloads that go wrong.
import assert from "node:assert/strict";
import { test } from "node:test";
import { demo, hub, inkling, sha256 } from "./support.mjs";

const { InklingError, Model, describe } = inkling;
const writer = await demo("writer");
const critic = await demo("critic");

async function text(model) {
  const [{ text }] = await last(model.generate("Once", { seed: 3, max_new_tokens: 12 }));
  return text;
}

async function last(events) {
  for (;;) {
    const { done, value } = await events.next();
    if (done) return value;
  }
}

let expected;

test("a writer continues a prompt", async () => {
  const model = await Model.load({ demo: "writer" });
  assert.equal(model.task, "generate");
  expected = await text(model);
  assert.ok(expected.startsWith("Once") && expected.length > 10, expected);
  model.close();
});

test("a critic judges a text", async () => {
  const model = await Model.load({ files: critic, name: "critic" });
  const { label, score, scores, truncated } = await model.classify("This movie is wonderful, I loved it.");
  assert.equal(label, "POSITIVE");
  assert.ok(score > 0.5 && scores.length === 2 && !truncated);
  model.close();
});

test("bytes, Blobs, Responses and Files give the same model", async () => {
  const as = (make) => Object.fromEntries(Object.entries(writer).map(([name, bytes]) => [name, make(bytes, name)]));
  const sources = [
    { files: writer },
    { files: as((bytes) => new Blob([bytes])) },
    { files: as((bytes) => new Response(bytes)) },
    { files: Object.entries(writer).map(([name, bytes]) => new File([bytes], name)) },
  ];
  for (const source of sources) {
    const model = await Model.load(source);
    assert.equal(await text(model), expected);
    model.close();
  }
});

test("a GGUF file needs nothing but a tokenizer", async () => {
  const { "model.gguf": gguf, "tokenizer.json": tokenizer } = writer;
  const model = await Model.load({ files: { "some-name.gguf": gguf, "tokenizer.json": tokenizer } });
  assert.ok((await text(model)).startsWith("Once"));
  model.close();
});

test("files that are no model are refused in one sentence", async () => {
  const without = { ...critic };
  delete without["config.json"];
  const cut = { ...critic, "model.safetensors": critic["model.safetensors"].subarray(0, 5000) };
  for (const [files, message] of [
    [{}, /found nothing/],
    [without, /`config.json` is missing/],
    [cut, /ends after 5000 bytes/],
    [{ ...critic, "tokenizer.json": Buffer.from("{}") }, /tokenizer/],
  ]) {
    await assert.rejects(Model.load({ files }), (error) => error instanceof InklingError && error.kind === "format" && message.test(error.message));
  }
});

test("a model of the hub is described before it is loaded", async () => {
  const { endpoint, requests, close } = await hub(critic);
  const source = { hub: "some/model", endpoint };
  const { files, download_bytes, memory_bytes, cached } = await describe(source);
  assert.equal(download_bytes, files.reduce((sum, { size_bytes }) => sum + size_bytes, 0));
  assert.ok(memory_bytes > 5e5 && memory_bytes < 3e6 && !cached);
  assert.ok(requests.every(({ name }) => name !== "model.safetensors"));
  const model = await Model.load(source);
  assert.equal(model.name, "some/model");
  assert.equal(model.sha256, sha256(Buffer.concat([critic["config.json"], critic["model.safetensors"]])));
  model.close();
  await close();
});

test("a download that breaks goes on where it was", async () => {
  let breaks = 0;
  const answer = (name, from, response, bytes) => {
    if (name !== "model.gguf" || breaks === 3) return false;
    breaks += 1;
    response.write(bytes.subarray(from, from + 1_000_000), () => setTimeout(() => response.destroy(), 50));
    return true;
  };
  const { endpoint, requests, close } = await hub(writer, { answer });
  const model = await Model.load({ hub: "some/model", endpoint });
  assert.equal(await text(model), expected);
  const froms = requests.filter(({ name }) => name === "model.gguf").map(({ from }) => from);
  assert.equal(froms.length, 4);
  assert.ok(froms.every((from, at) => at === 0 || from > froms[at - 1]), String(froms));
  model.close();
  await close();
});

test("a server that takes every request and sends nothing is given up", async () => {
  const answer = (name, from, response) => {
    if (name !== "model.gguf") return false;
    response.flushHeaders();
    setTimeout(() => response.destroy(), 20);
    return true;
  };
  const { endpoint, requests, close } = await hub(writer, { answer });
  await assert.rejects(
    Model.load({ hub: "some/model", endpoint }),
    (error) => error.kind === "network" && error.can_retry && /`model.gguf` broke at 0.0 MB/.test(error.message),
  );
  assert.equal(requests.filter(({ name }) => name === "model.gguf").length, 5);
  await close();
});

test("bytes of another hash are refused", async () => {
  const { endpoint, close } = await hub(writer, { hashes: { "model.gguf": "0".repeat(64) } });
  await assert.rejects(
    Model.load({ hub: "some/model", endpoint }),
    (error) => error.kind === "hash" && error.can_retry && /`model.gguf` is not the file/.test(error.message),
  );
  await close();
});

test("what is not there is told by name", async () => {
  const { endpoint, close } = await hub(writer);
  const missing = (message) => (error) => error.kind === "missing" && message.test(error.message);
  await assert.rejects(Model.load({ hub: "other/model", endpoint }), missing(/has no public model `other\/model`/));
  await assert.rejects(Model.load({ url: `${endpoint}/x.gguf` }), missing(/is not on 127/));
  await assert.rejects(Model.load({ hub: "../etc", endpoint }), (error) => error.kind === "invalid");
  await close();
  await assert.rejects(Model.load({ hub: "some/model", endpoint }), (error) => error.kind === "network" && error.can_retry);
});

test("a load that is stopped says so", async () => {
  const answer = (name, _from, response, bytes) => name === "model.gguf" && response.write(bytes.subarray(0, 1000));
  const { endpoint, close } = await hub(writer, { answer });
  const controller = new AbortController();
  const onprogress = ({ file, bytes }) => file === "model.gguf" && bytes > 0 && controller.abort();
  setTimeout(() => controller.abort(), 500);
  await assert.rejects(
    Model.load({ hub: "some/model", endpoint }, { signal: controller.signal, onprogress }),
    (error) => error.kind === "stopped" && error.can_retry,
  );
  await close();
});

test("runs do not grow the memory", async () => {
  const model = await Model.load({ demo: "writer" });
  const { memory_bytes } = await import(new URL("inkling_web.js", (await import("./support.mjs")).ENGINE));
  for (let run = 0; run < 20; run++) await text(model);
  const before = memory_bytes();
  for (let run = 0; run < 200; run++) await text(model);
  assert.equal(memory_bytes(), before);
  model.close();
});
