/**
 * The choice of how to share a step, from numbers alone: a table of machines and what is chosen on
 * them.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { LockstepError } from "../errors.ts";
import { evenTopology } from "../mesh/index.ts";
import type { StepFacts } from "../plan/index.ts";
import { chooseByCost } from "./by-cost.ts";
import { nameOf } from "./by-cost-words.ts";
import type { Machine } from "./cost.ts";
import type { Chosen, Priced } from "./ways.ts";

/**
 * 250 million parameters with AdamW, in eight micro-batches: 0.4 GB of activations each, 0.1 GB
 * with all blocks computed again.
 */
const FACTS: StepFacts = {
  microBatches: 8,
  parameters: 1e9,
  gradients: 1e9,
  slots: 2e9,
  wholeSlots: 0,
  scratch: 0,
  wholeRule: undefined,
  largestGradient: 5e7,
  largestUnit: 1e8,
  gathered: 2e9,
  flops: 1e12,
  work: [{ flops: 1e12, bytes: 0 }],
  pass: { between: 0, within: 4e8 },
  inPieces: () => ({ between: 3e8, within: 1e8 }),
  isRepeating: false,
};
const AGAIN: StepFacts = {
  ...FACTS,
  flops: 1.3e12,
  work: [{ flops: 1.3e12, bytes: 0 }],
  pass: { between: 5e7, within: 5e7 },
  inPieces: () => ({ between: 5e7, within: 5e7 }),
  isRepeating: true,
};
const LAN = { latency: 1e-4, bytesPerSecond: 1e9 };

interface Case {
  readonly ranks: number;
  readonly nodes: number;
  readonly memory: number;
  readonly link?: Machine["link"];
  readonly facts?: Partial<StepFacts>;
  readonly disk?: Machine["disk"];
  readonly hasBuddies?: boolean;
}

function machineOf(wanted: Case): Machine {
  const { ranks, nodes, memory, link = LAN, disk, hasBuddies = false } = wanted;
  const topology = evenTopology(ranks, nodes);
  const each = { memory, lanes: 1, flopsPerSecond: 8e10, bucketBytes: 2 ** 24 };
  return { ...each, topology, link, disk, hasBuddies };
}

function decided(wanted: Case): Chosen & Priced & { readonly name: string } {
  const machine = machineOf(wanted);
  const facts = { ...FACTS, ...wanted.facts };
  const repeating = () => ({ ...AGAIN, ...wanted.facts });
  const chosen = chooseByCost({ facts, repeating, machine });
  return { ...chosen, ...chosen.priced(), name: nameOf(chosen, machine) };
}

const NONE = Number.POSITIVE_INFINITY;
const FOUR = { ranks: 4, nodes: 4 };
const HYBRID = { ranks: 8, nodes: 2 };
const MUON = { wholeRule: "muon", slots: 1e9, wholeSlots: 1e9 };

const TABLE: readonly (readonly [what: string, wanted: Case, chosen: string])[] = [
  ["one worker with room", { ranks: 1, nodes: 1, memory: NONE }, "one worker"],
  [
    "one worker without room for activations of its own",
    { ranks: 1, nodes: 1, memory: 8.3e9, facts: { pass: { between: 0, within: 2e9 } } },
    "one worker with recomputation",
  ],
  ["one node with room shares updates in place", { ranks: 4, nodes: 1, memory: NONE }, "zero 1"],
  ["four nodes with room", { ...FOUR, memory: NONE }, "data"],
  ["slots are too large", { ...FOUR, memory: 5e9 }, "zero 1"],
  ["slots and gradients are too large", { ...FOUR, memory: 3e9 }, "zero 2"],
  ["parameters are too large, too", { ...FOUR, memory: 2.4e9 }, "zero 3"],
  ["activations are too large, too", { ...FOUR, memory: 2.1e9 }, "zero 3 with recomputation"],
  ["a whole gradient is too large on one node", { ranks: 4, nodes: 1, memory: 3e9 }, "zero 2"],
  ["parameters are too large on one node", { ranks: 4, nodes: 1, memory: 2.3e9 }, "zero 3"],
  ["two nodes of four with room", { ...HYBRID, memory: NONE }, "zero 1 within each node"],
  [
    "two nodes of four, a slow link",
    { ...HYBRID, memory: 2.2e9, link: { latency: 1e-3, bytesPerSecond: 1e7 } },
    "zero 3 within each node",
  ],
  [
    "two nodes of four, and a quarter of the state is too large for a worker",
    { ...HYBRID, memory: 1.75e9, facts: { inPieces: () => ({ between: 5e7, within: 5e7 }) } },
    "zero 3",
  ],
  ["rules that need whole parameters", { ...FOUR, memory: 5.7e9, facts: MUON }, "zero 1"],
];

for (const [what, wanted, chosen] of TABLE) {
  test(`${what}: ${chosen}`, () => {
    const { name, need, reason } = decided(wanted);
    assert.equal(name, chosen, reason);
    assert.ok(need <= wanted.memory, `${need} bytes are needed`);
    assert.match(reason, /^[A-Z0-9].*\.$/);
  });
}

test("ZeRO 2 and 3 are never chosen where a rule needs whole parameters", () => {
  for (let memory = 4.5e9; memory < 8e9; memory += 1e8) {
    const { sharing } = decided({ ...FOUR, memory, facts: MUON });
    assert.ok(sharing.zero < 2);
  }
});

test("less memory never makes a choice that needs more", () => {
  let before = NONE;
  for (let memory = 8e9; memory > 2e9; memory -= 1e8) {
    const { need } = decided({ ...FOUR, memory });
    assert.ok(need <= Math.max(memory, before));
    before = need;
  }
});

test("as few blocks are computed again as make the rest fit", () => {
  const wanted = {
    ranks: 1,
    nodes: 1,
    memory: 8.3e9,
    facts: { pass: { between: 0, within: 2e9 } },
  };
  const { recompute, cost } = decided(wanted);
  assert.ok(typeof recompute === "object");
  assert.ok(Number(recompute.memory) > 1e8 && Number(recompute.memory) < 2e9);
  const seconds = (8 * FACTS.flops) / 8e10;
  assert.ok(cost.computing > seconds && cost.computing < 1.3 * seconds);
});

test("the reason names what does not fit, with its numbers", () => {
  const { reason } = decided({ ...FOUR, memory: 2.4e9 });
  assert.match(
    reason,
    /^Zero 3, because data would take 6\.\d+ GB a worker of the 2\.4 GB that it has \(zero 1: 4\.\d+ GB, zero 2: 2\.\d+ GB\); zero 3 takes 2\.\d+ GB\.$/,
  );
});

test("where nothing fits, the error has the smallest need and what would help", () => {
  assert.throws(
    () => decided({ ...FOUR, memory: 1e9 }),
    (error: unknown) =>
      error instanceof LockstepError &&
      error.code === "OUT_OF_MEMORY" &&
      /Each of 4 workers would need at least 1,\d+ MB of memory for this run \(with zero 3 with recomputation: parameters 250 MB, .*\), but may use only 1,000 MB/.test(
        error.message,
      ) &&
      /more --workers/.test(error.message),
  );
});

test("where a rule needs whole parameters, the error does not advise to share them", () => {
  assert.throws(
    () => decided({ ...FOUR, memory: 1e9, facts: MUON }),
    /The rule "muon" needs whole parameters on every worker.*Use another optimizer/,
  );
});

test("within the margin of the prediction, the smallest is tried and said to be tight", () => {
  const { reason } = decided({ ...FOUR, memory: 1.7e9 });
  assert.match(reason, /which may not be enough either\.$/);
});

const DISK = { room: 1e11, bytesPerSecond: 1e8 };

test("a disk is used only where nothing fits without it, and the reason says so", () => {
  const whole = { ranks: 1, nodes: 1, disk: DISK } as const;
  assert.equal(decided({ ...whole, memory: NONE }).offload, undefined);
  // One process: 7 GB with parameters, gradients of the tree, slots and activations.
  const { offload, recompute, name, need, reason, cost } = decided({ ...whole, memory: 6.5e9 });
  assert.equal(offload, "disk", reason);
  assert.equal(recompute, undefined);
  assert.equal(name, "one worker with offload to disk");
  assert.ok(need <= 6.5e9 && cost.memory.slots === 0);
  assert.match(
    reason,
    /^One worker with offload to disk, because one worker would take \d\.\d+ GB a worker of the 6\.5 GB that it has; one worker with offload to disk takes \d\.\d+ GB\.$/,
  );
  // Slots are read and written once.
  const inMemory = decided({ ...whole, memory: NONE }).cost;
  const more = cost.seconds - inMemory.seconds;
  assert.ok(Math.abs(more - (2 * FACTS.slots) / DISK.bytesPerSecond) < 1e-9, `${more} s`);
});

test("four workers keep parameters on disk too, where memory has no room for a quarter", () => {
  const tight = { ...FOUR, memory: 1.4e9 };
  assert.throws(() => decided(tight), { code: "OUT_OF_MEMORY" });
  const { name, sharing, cost } = decided({ ...tight, disk: DISK });
  assert.equal(sharing.zero, 3, name);
  assert.equal(cost.memory.parameters + cost.memory.slots, 0);
});

test("a disk without room, and one that is used already, are no help", () => {
  const tight = { ...FOUR, memory: 1.4e9 };
  // A quarter of the slots takes 500 MB.
  const full = { ...DISK, room: 4e8 };
  assert.throws(() => decided({ ...tight, disk: full }), /--offload disk/);
  const machine = { ...machineOf({ ...tight, memory: 1e8, disk: DISK }), isOffloaded: true };
  assert.throws(
    () => chooseByCost({ facts: FACTS, machine }),
    (error: unknown) => error instanceof LockstepError && !/--offload/.test(String(error.hint)),
  );
});

test("buddies double what is shared out over several nodes, and nothing else", () => {
  const over = (wanted: Case) => {
    const { cost } = decided({ ...wanted, hasBuddies: true });
    const { cost: before } = decided(wanted);
    return { cost, before };
  };
  // Within a node, and where each node has everything, nobody needs a buddy.
  for (const wanted of [
    { ranks: 4, nodes: 1, memory: 2.3e9 },
    { ...FOUR, memory: NONE },
    { ...HYBRID, memory: NONE },
  ]) {
    const { cost, before } = over(wanted);
    assert.deepEqual(cost, before);
  }
  const { cost, before } = over({ ...FOUR, memory: 5.7e9, facts: MUON });
  assert.equal(cost.memory.slots, 1e9 + (2 * 1e9) / 4);
  assert.equal(before.memory.slots, 1e9 + 1e9 / 4);
  assert.equal(cost.sent, before.sent, "with ZeRO 1 all have the sums");
  assert.ok(cost.seconds > before.seconds, "two make each update");
});

test("where there is no room for buddies, the choice is made without them, and says so", () => {
  const tight = { ...FOUR, memory: 2.1e9, hasBuddies: true };
  const { name, buddies, reason, need } = decided(tight);
  assert.equal(name, "zero 3 with recomputation without buddies");
  assert.equal(buddies, false);
  assert.ok(need <= tight.memory);
  assert.match(reason, /without buddies/);
  // Where there is room for some, a way with buddies comes before a smaller one without.
  const roomy = decided({ ...tight, memory: 3.3e9 });
  assert.deepEqual([roomy.buddies, roomy.name], [undefined, "zero 3"], roomy.reason);
  assert.equal(roomy.cost.memory.parameters, 2 * (FACTS.parameters / 4));
  const bare = decided({ ...tight, memory: 3.3e9, hasBuddies: false });
  assert.equal(bare.name, "zero 2");
  // Over two nodes, parts with buddies take what hybrid takes, so hybrid comes before them.
  const inPieces = () => ({ between: 5e7, within: 5e7 });
  const hybrid = { ...HYBRID, hasBuddies: true, facts: { inPieces } };
  assert.equal(decided({ ...hybrid, memory: 2.2e9 }).sharing.shard, 4);
  assert.equal(decided({ ...hybrid, memory: 1.75e9 }).name, "zero 3 without buddies");
});
