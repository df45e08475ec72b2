// A worker's entry: one node of the graph. The first message brings the compiled module; every other one is a call.
import { initSync, Node } from "./inkling_web.js";

let node;

addEventListener("message", ({ data }) => {
  const [method, ...args] = data;
  if (method === "start") {
    const [module, lock] = args;
    initSync({ module });
    node = new Node((message) => postMessage(message));
    // Held for life: whoever waits for it learns that this worker is gone, whatever ended it.
    navigator.locks?.request(lock, () => {
      postMessage({ type: "alive" });
      return new Promise(() => {});
    });
  } else {
    node[method](...args);
  }
});
