// What Trunk's start-up script calls: a browser in which the page's program cannot start is told so.
export default function start() {
  return {
    onFailure: () => {
      const broken = document.getElementById("broken");
      broken.textContent =
        "This browser cannot run the page: it has no WebAssembly with SIMD, or a file of the page did not arrive. Reload it, or use a browser from 2023 or later. The server and the command line work without it.";
      broken.hidden = false;
      document.querySelector(".where").textContent = "the page cannot start here";
    },
  };
}
