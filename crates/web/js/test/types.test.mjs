// `inkling.d.ts` is written by hand: it names what the module exports, and the members of its classes.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { ENGINE, inkling } from "./support.mjs";

// Without comments, in which examples stand.
const declared = (await readFile(new URL("inkling.d.ts", ENGINE), "utf8")).replace(/\/\*\*[^]*?\*\//g, "");
const sorted = (names) => [...new Set(names)].sort();

test("the exports are those that are declared", () => {
  const names = [...declared.matchAll(/^export (?:class|function|const) (\w+)/gm)].map(([, name]) => name);
  assert.ok(names.length > 5, names.join());
  assert.deepEqual(sorted(names), sorted(Object.keys(inkling)));
});

/** The members at the first level of a block: `[static ]name(` and `[readonly ]name:`. */
function members(opening) {
  const block = declared.slice(declared.indexOf(opening) + opening.length).split(/^}/m)[0];
  return [...block.matchAll(/^  (static |readonly )?(\w+)(\??:|\()/gm)].map(([, kind, name, after]) => ({ kind: kind?.trim(), name, isMethod: after === "(" }));
}

for (const name of ["Graph", "Model"]) {
  test(`${name} has the methods that are declared, and no other`, () => {
    const found = members(`export class ${name} {`).filter(({ isMethod }) => isMethod);
    const own = (of, hidden) => Object.getOwnPropertyNames(of).filter((key) => typeof of[key] === "function" && !hidden.includes(key));
    const of = (kind) => sorted(found.filter((member) => member.kind === kind).map((member) => member.name));
    assert.deepEqual(of(undefined), sorted(own(inkling[name].prototype, ["constructor"])));
    assert.deepEqual(of("static"), sorted(own(inkling[name], [])));
  });
}

test("a model and a graph have the properties that are declared", async () => {
  const model = await inkling.Model.load({ demo: "critic" });
  const graph = inkling.Graph.open();
  await graph.ready;
  for (const [name, instance] of Object.entries({ Model: model, Graph: graph })) {
    const properties = members(`export class ${name} {`).filter(({ isMethod }) => !isMethod);
    assert.deepEqual(sorted(properties.map(({ name }) => name)), sorted(Object.keys(instance)), name);
    instance.close();
  }
});

test("the storage has the methods that are declared", () => {
  assert.deepEqual(sorted(members("export const storage: {").map(({ name }) => name)), sorted(Object.keys(inkling.storage)));
});
