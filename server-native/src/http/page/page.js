// Asks the graph and shows its events as they come. Without this script the form still answers, with JSON.
"use strict";

const find = (id) => document.getElementById(id);
const [form, status, rows, go, stop] = ["ask", "status", "rows", "go", "stop"].map(find);
let running = null;

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  running?.abort();
  const mine = (running = new AbortController());
  const ask = { sentence: find("sentence").value };
  if (find("seed").value) ask.seed = Number(find("seed").value);
  if (find("length").value) ask.max_length = Number(find("length").value);
  rows.replaceChildren();
  status.textContent = "Writing…";
  stop.hidden = false;
  try {
    const response = await fetch("/v1/graphs/default/run", {
      method: "POST",
      headers: { "content-type": "application/json", accept: "text/event-stream" },
      body: JSON.stringify(ask),
      signal: mine.signal,
    });
    if (!response.ok) throw new Error((await response.json()).error);
    for await (const { name, data } of events(response.body)) name === "answer" ? end(data) : show(data, ask);
  } catch (error) {
    status.textContent = mine.signal.aborted ? "Stopped." : error.message;
  } finally {
    if (running === mine) stop.hidden = true;
  }
});

stop.addEventListener("click", () => running?.abort());

// The server-sent events of a body, each with its name and its data.
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (text + value).split("\n\n");
    text = parts.pop();
    for (const part of parts) {
      const lines = part.split("\n");
      const field = (name) => lines.filter((line) => line.startsWith(name + ":")).map((line) => line.slice(name.length + 1).trimStart()).join("\n");
      if (field("data")) yield { name: field("event"), data: JSON.parse(field("data")) };
    }
  }
}

function show(event, ask) {
  if (event.event === "token") card(event, ask).text.append(event.text);
  if (event.event === "done") card(event, ask).text.textContent = event.completion;
  if (event.event === "score" && event.source) {
    const { score } = card(event.source, ask);
    const meter = document.createElement("meter");
    meter.value = event.score;
    score.replaceChildren(`${event.label} ${event.score.toFixed(4)} `, meter);
  }
  if (event.event === "failed" && event.text) card(event.text, ask).score.textContent = `${event.node}: ${event.error}`;
}

// The card of a text, made when its first event comes.
function card({ node, sequence }, ask) {
  const id = `text-${node}-${sequence}`;
  if (!find(id)) {
    const article = document.createElement("article");
    article.id = id;
    article.innerHTML = "<h2></h2><p><span class=prompt></span><span class=text></span></p><div class=score></div>";
    article.querySelector("h2").textContent = sequence ? `${node}, ${sequence + 1}` : node;
    article.querySelector(".prompt").textContent = ask.sentence;
    rows.append(article);
  }
  return { text: find(id).querySelector(".text"), score: find(id).querySelector(".score") };
}

function end(answer) {
  const speeds = answer.nodes.filter((node) => node.tokens_per_second).map((node) => `${node.node} ${Math.round(node.tokens_per_second)} tokens/s`);
  status.textContent = `Done in ${Math.round(answer.total_ms)} ms, seed ${answer.seed}. ${speeds.join(", ")}`;
}
