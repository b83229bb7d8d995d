/** In which order the workers that divide a model enter a generation. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { type Leader, running } from "./leader.testing.ts";

const divided = (): Leader => running(4, { minWorkers: 2, maxWorkers: 4, together: 2 });

test("workers keep their places in the model: the one of the first place comes first", () => {
  const leader = divided();
  leader.kill(0);
  leader.kill(3);
  leader.ready(1, 2);
  assert.deepEqual(leader.members, [2, 1]);
});

test("a worker that holds the state comes before one that has lost it, whatever its place is", () => {
  const leader = divided();
  leader.kill(0);
  leader.kill(3);
  const { number: generation } = leader.state.generation;
  leader.hear({ kind: "ready", worker: 2, generation, step: 0 });
  leader.ready(1);
  assert.deepEqual(leader.members, [1, 2]);
});
