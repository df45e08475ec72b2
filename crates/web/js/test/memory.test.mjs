// A load's peak of memory. A module's memory only grows, so what it has after a load is the most that any load needed.
//
// INKLING_CHECKPOINTS=FOLDER loads `openai-community/gpt2` from there as well, at full size.
import assert from "node:assert/strict";
import { openAsBlob } from "node:fs";
import { readdir } from "node:fs/promises";
import { test } from "node:test";
import { ENGINE, demo, inkling } from "./support.mjs";

const { Model, describe } = inkling;
const { memory_bytes } = await import(new URL("inkling_web.js", ENGINE));
await inkling.init();
const empty = memory_bytes();

/** Weights of a GPT-2 with random numbers, as a safetensors file: 52 MB. */
function gpt2({ vocab_size, n_positions, n_embd, n_layer }) {
  const shapes = { "wte.weight": [vocab_size, n_embd], "wpe.weight": [n_positions, n_embd] };
  const norm = (name) => Object.assign(shapes, { [`${name}.weight`]: [n_embd], [`${name}.bias`]: [n_embd] });
  const conv = (name, from, to) => Object.assign(shapes, { [`${name}.weight`]: [from, to], [`${name}.bias`]: [to] });
  for (let layer = 0; layer < n_layer; layer++) {
    norm(`h.${layer}.ln_1`);
    conv(`h.${layer}.attn.c_attn`, n_embd, 3 * n_embd);
    conv(`h.${layer}.attn.c_proj`, n_embd, n_embd);
    norm(`h.${layer}.ln_2`);
    conv(`h.${layer}.mlp.c_fc`, n_embd, 4 * n_embd);
    conv(`h.${layer}.mlp.c_proj`, 4 * n_embd, n_embd);
  }
  norm("ln_f");
  let end = 0;
  const entries = Object.entries(shapes).map(([name, shape]) => {
    const begin = end;
    end += 4 * shape.reduce((product, size) => product * size);
    return [name, { dtype: "F32", shape, data_offsets: [begin, end] }];
  });
  const header = Buffer.from(JSON.stringify(Object.fromEntries(entries)));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  const numbers = Float32Array.from({ length: end / 4 }, () => Math.random() - 0.5);
  return new Blob([length, header, numbers]);
}

/** Loads, and says how much memory the load took and how much the quantised weights are. */
async function load(files) {
  const { memory_bytes: quantised } = await describe({ files });
  const model = await Model.load({ files });
  const peak = memory_bytes() - empty;
  model.close();
  console.log(`# ${(peak / 1e6).toFixed(1)} MB for ${(quantised / 1e6).toFixed(1)} MB of quantised weights`);
  return { peak, quantised };
}

test("a load takes at most 1.3 times the quantised model", async () => {
  const { "tokenizer.json": tokenizer } = await demo("writer");
  const sizes = { vocab_size: 4096, n_positions: 512, n_embd: 384, n_layer: 6 };
  const config = { model_type: "gpt2", activation_function: "gelu_new", n_head: 6, ...sizes };
  const files = { "config.json": Buffer.from(JSON.stringify(config)), "tokenizer.json": tokenizer, "model.safetensors": gpt2(sizes) };
  const { peak, quantised } = await load(files);
  assert.ok(quantised > 12e6, `${quantised}`);
  assert.ok(peak <= 1.3 * quantised, `${peak} for ${quantised}`);
});

const checkpoints = process.env.INKLING_CHECKPOINTS;
test("so does one of GPT-2", { skip: !checkpoints && "INKLING_CHECKPOINTS names no folder" }, async () => {
  const folder = `${checkpoints}/openai-community/gpt2`;
  const names = (await readdir(folder)).filter((name) => /\.(json|txt|safetensors)$/.test(name));
  const files = Object.fromEntries(await Promise.all(names.map(async (name) => [name, await openAsBlob(`${folder}/${name}`)])));
  const { peak, quantised } = await load(files);
  assert.ok(quantised > 1.2e8, `${quantised}`);
  assert.ok(peak <= 1.3 * quantised, `${peak} for ${quantised}`);
});
