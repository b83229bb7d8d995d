/** In which order the workers that divide a model enter a generation. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Leader, running } from "./leader.testing.ts";

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

test("workers that divide the model over machines are a group of as many, wherever they are", () => {
  const places = ["a", "b", "c"].map((node) => ({ name: node, node }));
  const options = { minWorkers: 2, maxWorkers: 4, together: 2, places };
  const members = (leader: Leader) => {
    Object.assign(leader.options, { places });
    leader.hear({ kind: "time" });
    leader.ready(...leader.state.workers.map(({ id }) => id)).pass(60_000);
    return leader.state.generation.members.map(({ node }) => node);
  };
  assert.deepEqual(members(new Leader({ ...options, local: 0 })), [], "a machine has one only");
  const over = new Leader({ ...options, local: 0 });
  Object.assign(over.options, { within: 1 });
  assert.deepEqual(members(over), ["a", "b"]);
});
