// Keeps the page, the engine's build for this browser and the demo models, so that the page works without a network after
// the first visit.
// Files of a hub are not its business: the engine keeps those itself. A new version waits until the page asks for it.
//
// The build puts the version here; it changes whenever a file of the page does.
const VERSION = "__INKLING_VERSION__";
const NAME = `inkling-page-${VERSION}`;
const LIST = "precache.json";
/** As in engine/inkling.js: which of the engine's two builds this browser takes. */
const RELAXED_SIMD = [
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 19, 1, 17, 0, 65, 0, 253, 15, 65, 0, 253, 15, 65, 0,
  253, 15, 253, 147, 2, 11,
];
const BUILD = WebAssembly.validate(new Uint8Array(RELAXED_SIMD)) ? "relaxed" : "simd128";

self.addEventListener("install", (event) => event.waitUntil(install()));
self.addEventListener("activate", (event) => event.waitUntil(activate()));
self.addEventListener("message", (event) => {
  if (event.data === "take over") self.skipWaiting();
});
self.addEventListener("fetch", (event) => {
  const address = new URL(event.request.url);
  const isOurs = event.request.method === "GET" && address.href.startsWith(self.registration.scope);
  if (isOurs) event.respondWith(answer(event.request, address));
});

async function install() {
  const list = await fetch(LIST, { cache: "no-store" });
  if (!list.ok) throw new Error(`${LIST}: status ${list.status}`);
  const { files: all, ...rest } = await list.json();
  const files = all.filter(({ build }) => build === undefined || build === BUILD);
  const cache = await caches.open(NAME);
  const kept = await earlier();
  await Promise.all(files.map(async ({ path, sha256 }) => {
    const same = kept.get(`${path} ${sha256}`);
    const response = (same && (await same.match(path))) ?? (await fetch(path, { cache: "no-cache" }));
    // Without its list a cache is not whole, so a file that is missing makes the next visit try again.
    if (!response.ok) throw new Error(`${path}: status ${response.status}`);
    await cache.put(path, response);
  }));
  await cache.put(LIST, Response.json({ ...rest, files }));
}

// What earlier versions kept, by path and hash: a file that did not change is not fetched again.
async function earlier() {
  const found = new Map();
  for (const name of await caches.keys()) {
    if (!name.startsWith("inkling-page-") || name === NAME) continue;
    const cache = await caches.open(name);
    const list = await cache.match(LIST);
    if (!list) continue;
    for (const { path, sha256 } of (await list.json()).files) found.set(`${path} ${sha256}`, cache);
  }
  return found;
}

async function activate() {
  for (const name of await caches.keys()) {
    if (name.startsWith("inkling-page-") && name !== NAME) await caches.delete(name);
  }
  await self.clients.claim();
}

async function answer(request, address) {
  const cache = await caches.open(NAME);
  const root = new URL(self.registration.scope);
  const key = address.pathname === root.pathname ? new URL("index.html", root) : address.origin + address.pathname;
  return (await cache.match(key)) ?? fetch(request);
}
