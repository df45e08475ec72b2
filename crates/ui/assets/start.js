// What Trunk's start-up script calls: a browser in which the page's program cannot start is told so; and the engine comes
// as soon as the program has come, not only once that has started.
export default function start() {
  const engine = import("./engine/inkling.js");
  // What fails here is asked for again by the page, which says so.
  engine.catch(() => {});
  return {
    onProgress: ({ current, total }) => {
      if (current === total) engine.then(({ init }) => init()).catch(() => {});
    },
    onFailure: () => {
      const broken = document.getElementById("broken");
      broken.textContent =
        "This browser cannot run the page: it has no WebAssembly with SIMD, or a file of the page did not arrive. Reload it, or use a browser from 2023 or later. The server and the command line work without it.";
      broken.hidden = false;
      document.querySelector(".where").textContent = "the page cannot start here";
    },
  };
}
