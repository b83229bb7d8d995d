/**
 * Bits flip in the memory of a rank: between two steps, and before each run and each message of a
 * step. What replicas can heal is healed, and the bits at the end are those of an undisturbed run;
 * anything else ends with an error. Nothing else ever happens.
 */
import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import { isDeepStrictEqual } from "node:util";
import { Group } from "../src/collectives/index.ts";
import { createOrtEngine, type HostTensor } from "../src/engine/index.ts";
import { LockstepError } from "../src/errors.ts";
import type { ModelDefinition } from "../src/nn/index.ts";
import { adamw } from "../src/optimizer/index.ts";
import {
  createTrainer,
  type Healed,
  type Trainer,
  type TrainerOptions,
} from "../src/train/index.ts";
import { type Mortal, mortal } from "./support/mortal.ts";
import { type SimulatedRanks, simulatedRanks } from "./support/ranks.ts";
import { CONVOLUTION, GPT, stepOf } from "./support/small-models.ts";
import { bitsOf } from "./support/steps.ts";
import { type Bits, Undisturbed } from "./support/undisturbed.ts";

const cpu = createOrtEngine({ threads: 1 });
after(() => cpu.close());

const SAMPLES = 6;
const STEPS = 3;
/** The step before, or in, which a bit flips. */
const FLIP = 1;

interface Setting extends Pick<TrainerOptions, "zero" | "parallel" | "checkReplicas"> {
  readonly ranks: number;
  readonly model?: ModelDefinition;
  /** Whether the state is also checked between steps, as before a checkpoint. */
  readonly verifies?: boolean;
  /** Whether ranks share memory; otherwise only messages go between them. */
  readonly inPlace?: boolean;
}

interface Rank {
  readonly trainer: Trainer;
  readonly life: Mortal;
}

type Kind = "parameters" | "slots" | "states";

/** Flips a bit of the middle element of the largest part of a kind of tensors that a rank holds. */
function flip({ trainer }: Rank, kind: Kind, bit = 30): void {
  const own = trainer
    .parts()
    .own()
    .filter(({ name }) => name.startsWith(kind));
  const [largest] = own.toSorted((a, b) => b.to - b.from - (a.to - a.from));
  assert.ok(largest !== undefined, `the rank has ${kind}`);
  const { bytes } = trainer.tensors()[kind][largest.name.slice(kind.length + 1)] as HostTensor;
  const at = largest.from + 4 * Math.floor((largest.to - largest.from) / 8) + (bit >> 3);
  bytes[at] = (bytes[at] as number) ^ (1 << (bit & 7));
}

/** Makes a weight NaN. */
function spoil({ trainer }: Rank): void {
  const [first] = Object.values(trainer.tensors().parameters) as HostTensor[];
  first?.bytes.set([0, 0, 0xc0, 0x7f]);
}

function optionsOf(model: ModelDefinition): Omit<TrainerOptions, "engine"> {
  return {
    model: model.build({ batch: 1, mode: "train" }),
    optimizer: adamw({ learningRate: 1e-2 }),
    clip: 1,
    microBatches: SAMPLES,
  };
}

const undisturbed = new Map(
  [GPT, CONVOLUTION].map((model) => {
    const options = { ...optionsOf(model), engine: cpu };
    return [model, new Undisturbed(options, SAMPLES)];
  }),
);
after(() => Promise.all([...undisturbed.values()].map((one) => one.close())));

function undisturbedOf({ model = GPT }: Setting): Undisturbed {
  return undisturbed.get(model) as Undisturbed;
}

/** Ranks that train, whose memory can be disturbed. */
class Replicas {
  /** What was healed, as rank 0 tells it. */
  readonly healed: Healed[] = [];
  /** What each rank did in the last step. */
  deeds: readonly number[] = [];
  readonly #setting: Setting;
  readonly #met: SimulatedRanks;
  #ranks: readonly Rank[] = [];

  constructor(setting: Setting) {
    this.#setting = setting;
    this.#met = simulatedRanks(cpu, setting.ranks, setting.inPlace ?? true);
  }

  async start(): Promise<void> {
    const { model = GPT, checkReplicas = 1, zero, parallel } = this.#setting;
    const prepared = await undisturbedOf(this.#setting).prepared;
    this.#ranks = await Promise.all(
      this.#met.groups.map(async ({ transport }, rank): Promise<Rank> => {
        const life = mortal(cpu);
        const group = new Group({ engine: cpu, transport: life.transport(transport) });
        const options = {
          ...(zero === undefined ? {} : { zero }),
          ...(parallel === undefined ? {} : { parallel }),
          ...optionsOf(model),
          engine: life.device,
          ranks: { group, adapt: false },
          checkReplicas,
          onHealed: (one: Healed) => {
            if (rank === 0) this.healed.push(one);
          },
        };
        return { trainer: await createTrainer(options, prepared), life };
      }),
    );
  }

  get steps(): number {
    return this.#ranks[0]?.trainer.steps ?? 0;
  }

  /** `disturb` is called before the step. */
  async step(disturb?: (ranks: readonly Rank[]) => void): Promise<void> {
    for (const { life } of this.#ranks) life.beforeDeed(-1, () => undefined);
    disturb?.(this.#ranks);
    await Promise.all(this.#ranks.map(({ trainer }) => stepOf(trainer, SAMPLES)));
    this.deeds = this.#ranks.map(({ life }) => life.deeds.length);
  }

  /** As before a checkpoint. */
  async verify(): Promise<void> {
    for (const { life } of this.#ranks) life.beforeDeed(-1, () => undefined);
    await Promise.all(this.#ranks.map(({ trainer }) => trainer.verify()));
  }

  /** What all ranks have. */
  async bits(): Promise<Bits> {
    const [bits = {}, ...others] = await Promise.all(
      this.#ranks.map(({ trainer }) => bitsOf(trainer)),
    );
    for (const other of others) assert.deepEqual(other, bits, "all ranks are alike");
    return bits;
  }

  async close(): Promise<void> {
    for (const { trainer } of this.#ranks) trainer.close();
    await this.#met.close();
  }
}

interface Outcome {
  /** What all ranks have at the end, and what undisturbed ones have. */
  readonly bits: Bits;
  readonly expected: Bits;
  readonly healed: readonly Healed[];
}

/** Trains; `disturb` is called before the step of the flip. Throws what a rank has thrown. */
async function train(
  setting: Setting,
  disturb: (ranks: readonly Rank[]) => void,
): Promise<Outcome> {
  const replicas = new Replicas(setting);
  try {
    await replicas.start();
    for (let step = 0; step < STEPS; step++) {
      await replicas.step(step === FLIP ? disturb : undefined);
      if (setting.verifies === true) await replicas.verify();
    }
    const expected = await undisturbedOf(setting).after(STEPS);
    return { bits: await replicas.bits(), expected, healed: replicas.healed };
  } finally {
    await replicas.close();
  }
}

const three = { ranks: 3, parallel: { data: 3 } } as const;

describe("three replicas, checked in each step", () => {
  for (const bit of [0, 30]) {
    test(`bit ${bit} of a weight flips between two steps: it is healed`, async () => {
      const { bits, expected, healed } = await train(three, (ranks) =>
        flip(ranks[1] as Rank, "parameters", bit),
      );
      assert.deepEqual(healed, [{ step: FLIP, rank: 1, from: 0, since: FLIP - 1, isExact: true }]);
      assert.deepEqual(bits, expected);
    });
  }

  test("a bit of a slot flips: it is healed", async () => {
    const { bits, expected, healed } = await train(three, (ranks) =>
      flip(ranks[0] as Rank, "slots"),
    );
    assert.equal(healed[0]?.rank, 0);
    assert.deepEqual(bits, expected);
  });

  test("bits of two ranks flip at once: both are healed", async () => {
    const { bits, expected, healed } = await train(three, (ranks) => {
      flip(ranks[0] as Rank, "parameters");
      flip(ranks[2] as Rank, "parameters", 3);
    });
    assert.deepEqual(
      healed.map(({ rank, from }) => [rank, from]),
      [
        [0, 1],
        [2, 1],
      ],
    );
    assert.deepEqual(bits, expected);
  });

  test("a bit flips before any run or message of a step: the bits stay the same", async () => {
    const replicas = new Replicas(three);
    try {
      await replicas.start();
      await replicas.step();
      await replicas.step();
      const count = replicas.deeds[1] ?? 0;
      assert.ok(count > 10, `${count} deeds`);
      for (let deed = 0; deed < count; deed++) {
        await replicas.step((ranks) => {
          const victim = ranks[1] as Rank;
          victim.life.beforeDeed(deed, () => flip(victim, "parameters", 30));
        });
        // What flips behind the check of a step is found in the next one.
        await replicas.step();
        const expected = await undisturbedOf(three).after(replicas.steps);
        assert.deepEqual(await replicas.bits(), expected, `at deed ${deed} of ${count}`);
      }
      for (const one of replicas.healed) assert.deepEqual([one.rank, one.isExact], [1, true]);
      const found = replicas.healed.length;
      // A flip in a weight that the update then overwrites leaves no trace.
      assert.ok(found >= count / 2, `${found} of ${count} flips were found`);
    } finally {
      await replicas.close();
    }
  });
});

test("without shared memory the right bytes come by messages", async () => {
  const setting = { ...three, inPlace: false };
  const { bits, expected, healed } = await train(setting, (ranks) =>
    flip(ranks[1] as Rank, "parameters"),
  );
  assert.equal(healed.length, 1);
  assert.deepEqual(bits, expected);
});

test("running statistics are healed, too", async () => {
  const setting = { ...three, model: CONVOLUTION };
  const { bits, expected, healed } = await train(setting, (ranks) =>
    flip(ranks[2] as Rank, "states"),
  );
  assert.equal(healed[0]?.rank, 2);
  assert.deepEqual(bits, expected);
});

test("two replicas are enough for a change since the last commit", async () => {
  const setting = { ranks: 2, parallel: { data: 2 } };
  const { bits, expected, healed } = await train(setting, (ranks) =>
    flip(ranks[0] as Rank, "parameters"),
  );
  assert.deepEqual([healed[0]?.rank, healed[0]?.from], [0, 1]);
  assert.deepEqual(bits, expected);
});

for (const zero of [1, 2] as const) {
  const setting = { ranks: 3, zero };

  test(`zero ${zero}: a weight is healed from any rank`, async () => {
    const { bits, expected, healed } = await train(setting, (ranks) =>
      flip(ranks[1] as Rank, "parameters"),
    );
    assert.equal(healed[0]?.rank, 1);
    assert.deepEqual(bits, expected);
  });

  test(`zero ${zero}: a slot that one rank holds alone ends the run, which names the rank`, () =>
    assert.rejects(
      train(setting, (ranks) => flip(ranks[0] as Rank, "slots", 1)),
      (error) => {
        assert.ok(error instanceof LockstepError);
        assert.equal(error.code, "DRIFT", error.message);
        assert.deepEqual(error.fields, { step: FLIP, workers: [0], since: FLIP - 1 });
        assert.match(error.message, /worker 0 have changed by themselves after step 1/);
        return true;
      },
    ));
}

test("one process notices a flipped bit", () =>
  assert.rejects(
    train({ ranks: 1 }, (ranks) => flip(ranks[0] as Rank, "parameters", 0)),
    { code: "DRIFT" },
  ));

test("with checks every 2 steps an older difference is healed, but not as if it had never been", async () => {
  const setting = { ...three, checkReplicas: 2 };
  // Step 1 is not checked, and is computed with the wrong weight; step 2 is checked.
  const { bits, expected, healed } = await train(setting, (ranks) =>
    flip(ranks[1] as Rank, "parameters", 20),
  );
  assert.deepEqual(healed, [{ step: 2, rank: 1, from: 0, since: 0, isExact: false }]);
  assert.notDeepEqual(bits, expected);
});

test("a loss that is not finite is checked at once", async () => {
  const setting = { ...three, checkReplicas: 100 };
  const { bits, expected, healed } = await train(setting, (ranks) => {
    spoil(ranks[1] as Rank);
  });
  assert.equal(healed.length, 1);
  assert.deepEqual(bits, expected);
});

test("without checks nothing is found", async () => {
  const setting = { ...three, checkReplicas: 0 };
  await assert.rejects(
    train(setting, (ranks) => flip(ranks[1] as Rank, "slots", 10)),
    { name: "AssertionError" },
  );
});

test("a check between two steps does not stand for that of the step which follows", async () => {
  for (const checkReplicas of [1, 2]) {
    const setting = { ...three, verifies: true, checkReplicas };
    const { bits, expected, healed } = await train(setting, (ranks) => {
      const victim = ranks[1] as Rank;
      victim.life.beforeDeed(1, () => flip(victim, "parameters", 20));
    });
    const [first, ...others] = healed;
    assert.deepEqual(others, []);
    const isExact = checkReplicas === 1;
    const isSame = isDeepStrictEqual(bits, expected);
    assert.deepEqual([first?.rank, first?.isExact, isSame], [1, isExact, isExact]);
  }
});
