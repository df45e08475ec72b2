// What the tests share: the engine as it was built, the demo models, a hub on loopback, and the answer's hash.
import { createHash } from "node:crypto";
import { readFile, readdir } from "node:fs/promises";
import { createServer } from "node:http";

/** The folder that `cargo xtask engine` builds. */
export const ENGINE = new URL("../../../../target/page/engine/", import.meta.url);
export const MODELS = new URL("../../../../models/demo/", import.meta.url);

export const inkling = await import(new URL("inkling.js", ENGINE));

/** A demo model's files: `{name: Buffer}`. */
export async function demo(name) {
  const folder = new URL(`${name}/`, MODELS);
  const names = (await readdir(folder)).filter((name) => !name.endsWith(".md"));
  return Object.fromEntries(await Promise.all(names.map(async (name) => [name, await readFile(new URL(name, folder))])));
}

export const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

/** FNV-1a over the texts' bytes and the scores' bits, each as 64 bits, as `crates/engine/tests/wasm.rs` has it. */
export function hashOf(answer) {
  const texts = answer.rows.flatMap(({ generated }) => [...Buffer.from(generated)]);
  const bits = new DataView(new ArrayBuffer(4));
  const scores = answer.rows.map(({ score }) => {
    bits.setFloat32(0, score);
    return bits.getUint32(0);
  });
  let hash = 0xcbf29ce484222325n;
  for (const value of [...texts, ...scores]) {
    for (let shift = 0n; shift < 64n; shift += 8n) {
      hash = BigInt.asUintN(64, (hash ^ ((BigInt(value) >> shift) & 0xffn)) * 0x100000001b3n);
    }
  }
  return hash;
}

/**
 * What every home answers to seed 7 and 40 tokens: `the_demo_graph_gives_the_same_answer_everywhere`. As there, the
 * models come without their `generation_config.json`.
 */
export const REQUEST = { seed: 7, max_length: 40 };
export const HASH = 0xdd8b84376cb03745n;

export async function plainModels() {
  const plain = async (name) => {
    const { "generation_config.json": _, ...files } = await demo(name);
    return { files, name };
  };
  return { gpt2: await plain("writer"), distilgpt2: await plain("writer-distilled"), bert: await plain("critic") };
}

/**
 * A hub of one repository, `some/model`. `answer(file, from, response)` may spoil an answer; it says whether it did.
 * `requests` are the files that were asked for, with the byte from which on.
 */
export async function hub(files, { answer = () => false, hashes = {} } = {}) {
  const requests = [];
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url, "http://hub");
    if (pathname === "/api/models/some/model/revision/main") {
      const siblings = Object.entries(files).map(([rfilename, bytes]) => {
        const lfs = /\.(gguf|safetensors)$/.test(rfilename) && { sha256: hashes[rfilename] ?? sha256(bytes), size: bytes.length };
        return { rfilename, size: bytes.length, ...(lfs && { lfs }) };
      });
      response.setHeader("content-type", "application/json");
      return response.end(JSON.stringify({ sha: "c0ffee", siblings }));
    }
    const name = pathname.replace("/some/model/resolve/c0ffee/", "");
    const bytes = files[name];
    if (!bytes) return response.writeHead(404).end();
    const from = Number(/bytes=(\d+)-/.exec(request.headers.range ?? "")?.[1] ?? 0);
    requests.push({ name, from });
    const etag = `"${sha256(bytes).slice(0, 16)}"`;
    response.setHeader("etag", etag);
    response.setHeader("content-length", bytes.length - from);
    if (from > 0) response.setHeader("content-range", `bytes ${from}-${bytes.length - 1}/${bytes.length}`);
    response.statusCode = from > 0 ? 206 : 200;
    if (!answer(name, from, response, bytes)) response.end(bytes.subarray(from));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const close = () => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
  };
  return { endpoint: `http://127.0.0.1:${server.address().port}`, requests, close };
}
