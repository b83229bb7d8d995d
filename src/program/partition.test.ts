import assert from "node:assert/strict";
import { test } from "node:test";
import { add, mul, reduceSum } from "../functional/index.ts";
import type { Graph } from "../graph/index.ts";
import { newBuilder } from "../ops/index.ts";
import { executeTasks } from "./execute.ts";
import { planMemory } from "./memory-plan.ts";
import { partitionGraph, type RankProgram } from "./partition.ts";

/** Two sums over ranks that are ready one after the other; `c` needs the first and `y` both. */
function twoBuckets(): Graph {
  const b = newBuilder("two");
  const x = b.input("x", { dtype: "float32", shape: [256] });
  const first = mul(x, 2);
  const second = add(first, x);
  const [a] = b.emit("lockstep::AllReduce", [first], { axis: "data" });
  const [z] = b.emit("lockstep::AllReduce", [second], { axis: "data" });
  if (a === undefined || z === undefined) throw new Error("no output");
  const c = mul(a, 3);
  return b.build([c, reduceSum(add(c, z))]);
}

function shape(program: RankProgram): string[] {
  return program.tasks.map(({ kind, after }, index) => `${index} ${kind} after ${after.join(" ")}`);
}

test("a program is cut at its collectives, no later than needed and no earlier than possible", () => {
  const program = partitionGraph(twoBuckets());
  assert.deepEqual(shape(program), [
    "0 segment after ",
    "1 collective after 0",
    "2 segment after 0",
    "3 collective after 2",
    "4 segment after 1",
    "5 segment after 3 4",
  ]);
  const [first] = program.tasks;
  assert.deepEqual(first?.kind === "segment" && first.graph.inputs, ["x"]);
  assert.equal(first?.outputs.length, 1);
});

test("an output that no node makes is refused", () => {
  const b = newBuilder("through");
  const x = b.input("x", { dtype: "float32", shape: [1] });
  assert.throws(() => partitionGraph(b.build([x])), /made by no node/);
});

test("values share memory only where no order of tasks lets them meet", () => {
  const b = newBuilder("chain");
  let value = b.input("x", { dtype: "float32", shape: [1024] });
  for (let step = 0; step < 4; step++) {
    value = b.one("lockstep::AllReduce", [mul(value, 2)], { axis: "data" });
  }
  const program = partitionGraph(b.build([mul(value, 2)]));
  const plan = planMemory(program, new Set());
  assert.equal(plan.withoutReuse, 9 * 4096);
  assert.equal(plan.shared, 2 * 4096, "the input and the output of one collective");
  assert.equal(plan.private, 4096, "the result");
  const kept = planMemory(program, new Set(program.outputs));
  assert.equal(kept.private, 0);
  // The second bucket is computed while the first travels: they must not meet.
  const both = partitionGraph(twoBuckets());
  const memory = planMemory(both, new Set());
  const places = [0, 2].map((index) => memory.values.get(both.tasks[index]?.outputs[0] ?? ""));
  assert.notEqual(places[0]?.byteOffset, places[1]?.byteOffset);
});

/** Tasks that end when the test says so. */
function byHand(program: RankProgram, deadlineMs = 1000) {
  const started: string[] = [];
  const ends = new Map<string, { resolve: () => void; reject: (error: Error) => void }>();
  const task = ({ name }: { name: string }) => {
    started.push(name);
    return new Promise<void>((resolve, reject) => ends.set(name, { resolve, reject }));
  };
  const done = executeTasks(program.tasks, { segment: task, collective: task }, { deadlineMs });
  const names = program.tasks.map(({ name }) => name);
  const settle = async () => {
    for (let turn = 0; turn < 10; turn++) await Promise.resolve();
    return started.map((name) => names.indexOf(name));
  };
  const end = (index: number) => ends.get(names[index] as string);
  return { done, end, settle };
}

test("the next segment starts while a collective is under way, and collectives keep their order", async () => {
  const { done, end, settle } = byHand(partitionGraph(twoBuckets()));
  assert.deepEqual(await settle(), [0]);
  end(0)?.resolve();
  assert.deepEqual(await settle(), [0, 1, 2], "communication and computation at once");
  end(2)?.resolve();
  assert.deepEqual(await settle(), [0, 1, 2], "the axis is busy");
  end(1)?.resolve();
  assert.deepEqual(
    (await settle()).toSorted((a, b) => a - b),
    [0, 1, 2, 3, 4],
  );
  end(3)?.resolve();
  end(4)?.resolve();
  assert.deepEqual((await settle()).at(-1), 5);
  end(5)?.resolve();
  await done;
});

test("after a failure nothing new starts, and the first error is the one that is thrown", async () => {
  const { done, end, settle } = byHand(partitionGraph(twoBuckets()));
  const failing = assert.rejects(done, /the first/);
  await settle();
  end(0)?.resolve();
  await settle();
  end(2)?.reject(new Error("the first"));
  await settle();
  end(1)?.reject(new Error("the second"));
  await failing;
  assert.deepEqual(await settle(), [0, 1, 2]);
});

test("a collective that does not end is a DEADLINE with its name", async () => {
  const { done, end, settle } = byHand(partitionGraph(twoBuckets()), 5);
  const failing = assert.rejects(done, { code: "DEADLINE" });
  await settle();
  end(0)?.resolve();
  await settle();
  end(2)?.resolve();
  await failing;
});
