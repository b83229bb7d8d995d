import assert from "node:assert/strict";
import { test } from "node:test";
import { Group } from "../collectives/index.ts";
import { createReferenceEngine } from "../engine/index.ts";
import type { Instance } from "../execute/index.ts";
import type { StepProgram } from "../program/index.ts";
import { SimulatedNetwork } from "../transport/simulated/network.ts";
import { Cuts } from "./cuts.ts";

const run = { graph: "whole", inputs: {}, outputs: {} };
const piece = { name: "piece", runs: [{ ...run, graph: "piece" }], mode: "parallel" };
const side = { gradients: [run], pieces: [piece] };
const plan = { graphs: new Map(), sides: [side, side] } as unknown as StepProgram;

/** Counts the stages that it is asked to run. */
function instanceOf(version: string) {
  const ran: string[] = [];
  const instance = {
    device: { version },
    run: async ({ name }: { readonly name: string }) => void ran.push(name),
  };
  return { ran, instance: instance as unknown as Instance };
}

function groups(): Group[] {
  const engine = createReferenceEngine();
  const { transports } = new SimulatedNetwork({ size: 2 });
  return transports.map((transport) => new Group({ engine, transport }));
}

for (const [what, version, checks] of [
  ["the same engine takes what the others know", "1", 0],
  ["another engine checks a cut itself", "2", 2],
] as const) {
  test(`a newcomer with ${what}`, async () => {
    const at = { plan, from: 0 } as const;
    const old = new Cuts();
    const first = instanceOf("1");
    assert.equal(await old.areRight(first.instance, at, undefined), true);
    assert.equal(first.ran.length, 2);
    const newcomer = instanceOf(version);
    const [one, two] = groups();
    const both = [
      old.areRight(first.instance, at, one),
      new Cuts().areRight(newcomer.instance, at, two),
    ];
    assert.deepEqual(await Promise.all(both), [true, true]);
    assert.equal(first.ran.length, 2, "who has checked it does not check it again");
    assert.equal(newcomer.ran.length, checks);
  });
}
