/**
 * Bits flip in the memory of a rank: between two steps, and before each run and each message of a
 * step. What replicas can heal is healed, and the bits at the end are those of an undisturbed run;
 * anything else ends with an error. Nothing else ever happens.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { after, describe, test } from "node:test";
import { Group } from "../src/collectives/index.ts";
import { createOrtEngine, type HostTensor } from "../src/engine/index.ts";
import { LockstepError } from "../src/errors.ts";
import { gpt, type ModelDefinition, resnet } from "../src/nn/index.ts";
import { adamw } from "../src/optimizer/index.ts";
import {
  createTrainer,
  type Healed,
  type Trainer,
  type TrainerOptions,
} from "../src/train/index.ts";
import { type Mortal, mortal } from "./support/mortal.ts";
import { simulatedRanks } from "./support/ranks.ts";
import { bitsOf, fillingAt } from "./support/steps.ts";

const cpu = createOrtEngine({ threads: 1 });
after(() => cpu.close());

const SAMPLES = 6;
const CLASSES = 10;
const STEPS = 3;
/** The step before, or in, which a bit flips. */
const FLIP = 1;

const GPT = gpt({
  layers: 1,
  width: 16,
  heads: 2,
  context: 4,
  vocabulary: CLASSES,
  dropout: 0.1,
});
const CONVOLUTION = resnet({
  image: [1, 8, 8],
  classes: CLASSES,
  blocks: [1],
  channels: [4],
  stem: "small",
});

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

interface Outcome {
  /** The hash of all that all ranks have at the end. */
  readonly bits: string;
  readonly healed: readonly Healed[];
  /** What each rank did in the step of the flip. */
  readonly deeds: readonly number[];
}

/** Trains; `disturb` is called before the step of the flip. Throws what a rank has thrown. */
async function train(
  setting: Setting,
  disturb?: (ranks: readonly Rank[]) => void,
): Promise<Outcome> {
  const { ranks: size, model = GPT, inPlace = true, checkReplicas = 1, zero, parallel } = setting;
  const met = simulatedRanks(cpu, size, inPlace);
  const healed: Healed[] = [];
  const ranks: Rank[] = [];
  try {
    const made = await Promise.all(
      met.groups.map(async ({ transport }, rank): Promise<Rank> => {
        const life = mortal(cpu);
        const group = new Group({ engine: cpu, transport: life.transport(transport) });
        const trainer = await createTrainer({
          ...(zero === undefined ? {} : { zero }),
          ...(parallel === undefined ? {} : { parallel }),
          engine: life.device,
          model: model.build({ batch: 1, mode: "train" }),
          optimizer: adamw({ learningRate: 1e-2 }),
          clip: 1,
          microBatches: SAMPLES,
          ranks: { group, adapt: false },
          checkReplicas,
          onHealed: (one) => {
            if (rank === 0) healed.push(one);
          },
        });
        return { trainer, life };
      }),
    );
    ranks.push(...made);
    let deeds: readonly number[] = [];
    for (let step = 0; step < STEPS; step++) {
      for (const { life } of ranks) life.beforeDeed(-1, () => undefined);
      if (step === FLIP) disturb?.(ranks);
      const positions = { start: step * SAMPLES, end: (step + 1) * SAMPLES };
      await Promise.all(
        ranks.map(({ trainer }) =>
          trainer.step({ positions, fill: fillingAt(trainer.ownPositions(positions), CLASSES) }),
        ),
      );
      if (step === FLIP) deeds = ranks.map(({ life }) => life.deeds.length);
      if (setting.verifies === true) {
        for (const { life } of ranks) life.beforeDeed(-1, () => undefined);
        await Promise.all(ranks.map(({ trainer }) => trainer.verify()));
      }
    }
    const all = await Promise.all(ranks.map(({ trainer }) => bitsOf(trainer)));
    const [bits = "", ...others] = all.map((one) => JSON.stringify(one));
    for (const other of others) assert.ok(other === bits, "all ranks are alike");
    const sum = createHash("sha256").update(bits).digest("hex");
    return { bits: sum, healed, deeds };
  } finally {
    for (const { trainer } of ranks) trainer.close();
    await met.close();
  }
}

const three = { ranks: 3, parallel: { data: 3 } } as const;

describe("three replicas, checked in each step", () => {
  const undisturbed = train(three);

  for (const bit of [0, 30]) {
    test(`bit ${bit} of a weight flips between two steps: it is healed`, async () => {
      const { bits, healed } = await train(three, (ranks) =>
        flip(ranks[1] as Rank, "parameters", bit),
      );
      assert.deepEqual(healed, [{ step: FLIP, rank: 1, from: 0, since: FLIP - 1, isExact: true }]);
      assert.deepEqual(bits, (await undisturbed).bits);
    });
  }

  test("a bit of a slot flips: it is healed", async () => {
    const { bits, healed } = await train(three, (ranks) => flip(ranks[0] as Rank, "slots"));
    assert.equal(healed[0]?.rank, 0);
    assert.deepEqual(bits, (await undisturbed).bits);
  });

  test("bits of two ranks flip at once: both are healed", async () => {
    const { bits, healed } = await train(three, (ranks) => {
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
    assert.deepEqual(bits, (await undisturbed).bits);
  });

  test("a bit flips before any run or message of a step: the bits stay the same", async () => {
    const { bits: expected, deeds } = await undisturbed;
    const count = deeds[1] ?? 0;
    assert.ok(count > 10, `${count} deeds`);
    let found = 0;
    for (let deed = 0; deed < count; deed++) {
      const { bits, healed } = await train(three, (ranks) => {
        const victim = ranks[1] as Rank;
        victim.life.beforeDeed(deed, () => flip(victim, "parameters", 30));
      });
      assert.deepEqual(bits, expected, `at deed ${deed} of ${count}`);
      for (const one of healed) assert.deepEqual([one.rank, one.isExact], [1, true]);
      found += healed.length;
    }
    // A flip in a weight that the update then overwrites leaves no trace.
    assert.ok(found >= count / 2, `${found} of ${count} flips were found`);
  });
});

test("without shared memory the right bytes come by messages", async () => {
  const setting = { ...three, inPlace: false };
  const { bits, healed } = await train(setting, (ranks) => flip(ranks[1] as Rank, "parameters"));
  assert.equal(healed.length, 1);
  assert.deepEqual(bits, (await train(setting)).bits);
});

test("running statistics are healed, too", async () => {
  const setting = { ...three, model: CONVOLUTION };
  const { bits, healed } = await train(setting, (ranks) => flip(ranks[2] as Rank, "states"));
  assert.equal(healed[0]?.rank, 2);
  assert.deepEqual(bits, (await train(setting)).bits);
});

test("two replicas are enough for a change since the last commit", async () => {
  const setting = { ranks: 2, parallel: { data: 2 } };
  const { bits, healed } = await train(setting, (ranks) => flip(ranks[0] as Rank, "parameters"));
  assert.deepEqual([healed[0]?.rank, healed[0]?.from], [0, 1]);
  assert.deepEqual(bits, (await train(setting)).bits);
});

for (const zero of [1, 2] as const) {
  const setting = { ranks: 3, zero };

  test(`zero ${zero}: a weight is healed from any rank`, async () => {
    const { bits, healed } = await train(setting, (ranks) => flip(ranks[1] as Rank, "parameters"));
    assert.equal(healed[0]?.rank, 1);
    assert.deepEqual(bits, (await train(setting)).bits);
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
  const { bits, healed } = await train(setting, (ranks) =>
    flip(ranks[1] as Rank, "parameters", 20),
  );
  assert.deepEqual(healed, [{ step: 2, rank: 1, from: 0, since: 0, isExact: false }]);
  assert.notDeepEqual(bits, (await train(setting)).bits);
});

test("a loss that is not finite is checked at once", async () => {
  const setting = { ...three, checkReplicas: 100 };
  const { bits, healed } = await train(setting, (ranks) => {
    spoil(ranks[1] as Rank);
  });
  assert.equal(healed.length, 1);
  assert.deepEqual(bits, (await train(setting)).bits);
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
    const { bits, healed } = await train(setting, (ranks) => {
      const victim = ranks[1] as Rank;
      victim.life.beforeDeed(1, () => flip(victim, "parameters", 20));
    });
    const [first, ...others] = healed;
    assert.deepEqual(others, []);
    const { bits: expected } = await train(setting);
    const isExact = checkReplicas === 1;
    assert.deepEqual([first?.rank, first?.isExact, bits === expected], [1, isExact, isExact]);
  }
});
