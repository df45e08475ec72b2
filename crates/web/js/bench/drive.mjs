// Calls a function of bench.js in headless Chromium and prints its answer as JSON.
//
//   node drive.mjs decode|kept|graph ENGINE HUB [OPTIONS]
//
// ENGINE is the engine's folder as `cargo xtask engine` builds it, HUB a folder of repositories as the hub has them
// (openai-community/gpt2/config.json), OPTIONS the function's, as JSON. Everything is served on loopback; Chromium asks
// nobody else. CHROMIUM names the browser if it is not `chromium`.
import { spawn } from "node:child_process";
import { createReadStream, statSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { dirname, extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

const MINUTES = 10;

const [what, engine, hub, options = "{}"] = process.argv.slice(2);
const roots = { bench: dirname(fileURLToPath(import.meta.url)), engine, hub };
const types = { ".html": "text/html", ".js": "text/javascript", ".json": "application/json", ".wasm": "application/wasm" };

/** The page that runs the bench and sends what came of it. */
const page = `<!doctype html><meta charset="utf-8"><title>bench</title><script type="module">
const send = (result) => fetch("/result", { method: "POST", body: JSON.stringify(result) });
try {
  const bench = await import("/bench/bench.js");
  await send({ answer: await bench[${JSON.stringify(what)}]("/hub/", ${JSON.stringify(JSON.parse(options))}) });
} catch (error) {
  await send({ error: String(error?.stack ?? error) });
}
</script>`;

let arrived;
const result = new Promise((resolve) => (arrived = resolve));
const server = createServer((request, response) => {
  const [, root, ...rest] = normalize(decodeURIComponent(new URL(request.url, "http://x").pathname)).split("/");
  if (root === "run") return response.writeHead(200, { "content-type": "text/html" }).end(page);
  if (root === "result") {
    let body = "";
    request.on("data", (piece) => (body += piece));
    return request.on("end", () => response.end() && arrived(JSON.parse(body)));
  }
  const file = roots[root] && join(roots[root], ...rest);
  const stat = file && statSync(file, { throwIfNoEntry: false });
  if (!stat?.isFile()) return response.writeHead(404).end();
  response.writeHead(200, { "content-type": types[extname(file)] ?? "application/octet-stream", "content-length": stat.size });
  createReadStream(file).pipe(response);
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));

const profile = await mkdtemp(join(tmpdir(), "inkling-bench-"));
const browser = spawn(
  process.env.CHROMIUM ?? "chromium",
  [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run", `--user-data-dir=${profile}`,
    `http://127.0.0.1:${server.address().port}/run`,
  ],
  { stdio: "ignore" },
);
const ended = new Promise((resolve) => {
  browser.on("error", (error) => resolve(`${error.message}; CHROMIUM may name it`));
  browser.on("exit", (code) => resolve(`ended with status ${code}`));
});
let timer;
const late = new Promise((resolve) => (timer = setTimeout(resolve, MINUTES * 60_000, `took more than ${MINUTES} minutes`)));
const { answer, error } = await Promise.race([result, ended.then((why) => ({ error: why })), late.then((why) => ({ error: why }))]);
clearTimeout(timer);
browser.kill();
await ended;
server.closeAllConnections();
server.close();
// Its helpers may still be writing.
await rm(profile, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
if (error) {
  console.error(`Chromium: ${error}`);
  process.exitCode = 1;
} else {
  console.log(JSON.stringify(answer));
}
