import assert from "node:assert/strict";
import { test } from "node:test";
import { Arrivals } from "./arrivals.ts";

function recording(failing = -1) {
  const ran: number[] = [];
  const tiles = [0, 1, 2].map((tile) => () => {
    if (tile === failing) throw new Error("no");
    ran.push(tile);
  });
  return { ran, arrivals: new Arrivals({ tiles, tileBytes: 10, byteLength: 25, inputs: 2 }) };
}

test("a tile runs when all of its bytes of all inputs are there, and once", () => {
  const { ran, arrivals } = recording();
  for (const _ of [1, 2]) {
    ran.length = 0;
    arrivals.begin();
    arrivals.arrived(0, 25);
    arrivals.arrived(18, 7);
    assert.deepEqual(ran, [2]);
    arrivals.arrived(0, 5);
    arrivals.arrived(5, 10);
    assert.deepEqual(ran, [2, 0]);
    arrivals.finish();
    assert.deepEqual(ran, [2, 0, 1]);
    arrivals.arrived(0, 25);
    assert.equal(ran.length, 3);
  }
});

test("what a tile throws is kept for the end", () => {
  const { ran, arrivals } = recording(1);
  arrivals.begin();
  arrivals.arrived(0, 25);
  arrivals.arrived(0, 25);
  assert.deepEqual(ran, [0, 2]);
  assert.throws(() => arrivals.finish(), /no/);
});

test("after a failure nothing runs", () => {
  const { ran, arrivals } = recording();
  arrivals.begin();
  arrivals.arrived(0, 25);
  arrivals.stop();
  arrivals.arrived(0, 25);
  assert.deepEqual(ran, []);
});
