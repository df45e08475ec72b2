// The plain build, given as a compiled module as edge runtimes need it: the same bits as the build that Node picks.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { ENGINE, HASH, REQUEST, hashOf, inkling, plainModels } from "./support.mjs";

test("a module that was compiled before gives the same answer", async () => {
  const module = await WebAssembly.compile(await readFile(new URL("inkling_web.simd128.wasm", ENGINE)));
  const graph = inkling.Graph.open({ module, models: await plainModels(), workers: false });
  await graph.ready;
  assert.equal(graph.state("gpt2").isa, "Simd128");
  assert.equal(hashOf(await graph.complete(REQUEST)), HASH);
  graph.close();
});
