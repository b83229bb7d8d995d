/**
 * Workers that divide the model come and go. One is lost in the middle of what it does, whole groups go
 * on, and both places are taken again: the run ends as that of one worker.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, test } from "node:test";
import { Group } from "../src/collectives/index.ts";
import { text } from "../src/data/index.ts";
import { createOrtEngine } from "../src/engine/index.ts";
import { gpt } from "../src/nn/index.ts";
import { adamw } from "../src/optimizer/index.ts";
import { defineRun, type Members, openRunFolder, type Run, train } from "../src/run/index.ts";
import { NO_HISTORY, type RunEvent } from "../src/telemetry/index.ts";
import type { Ranks } from "../src/train/index.ts";
import { joinSharedMemory, type Transport } from "../src/transport/index.ts";
import { withFolder } from "./support/folder.ts";
import { newestOf, reportOf, WORDS } from "./support/runs.ts";

const engine = createOrtEngine({ threads: 1 });
after(() => engine.close());

const STEPS = 9;
const BATCH = 4;
/** After this step worker 3 is lost, at whatever it does then. */
const LOST = 4;
/** After this one the workers that go on let the others enter. */
const ENTERED = 7;

/** A pipeline needs a layer for each stage. */
const runOf = (layers: number): Run =>
  defineRun({
    name: `whole-groups-${layers}`,
    model: gpt({ layers, width: 8, heads: 2, context: 8, dropout: 0.1 }),
    data: text("words.txt", { heldOut: 0.1 }),
    optimizer: adamw({ learningRate: 1e-2 }),
    clipNorm: 1,
    batch: BATCH,
    microBatches: BATCH,
    steps: STEPS,
    evaluate: { every: 3, samples: 4 },
    checkpointEvery: 3,
  });

/** The members of each generation, by rank. */
type Generations = readonly (readonly number[])[];

/** Thrown in the worker that is lost. */
class Killed extends Error {}

interface Ready {
  readonly step: number;
  readonly form: (ranks: Ranks) => void;
}

/** What the launcher of a run does, for workers of this process. */
class Launcher {
  readonly #name: string;
  readonly #generations: Generations;
  /** All workers of the run. */
  readonly workers: readonly number[];
  readonly #ready = new Map<number, Ready>();
  /** Of the present generation. */
  #transports: readonly Transport[] = [];
  #generation = 0;
  #killed: number | undefined;
  /** The step that the leader has told last. */
  step = 0;
  /** The committed steps with which each worker came, by generation. */
  readonly came: Readonly<Record<number, number>>[] = [];

  constructor(name: string, generations: Generations) {
    this.#name = name;
    this.#generations = generations;
    this.workers = [...new Set(generations.flat())];
  }

  /** The worker leaves its group without a word, in the middle of what it does. */
  async kill(worker: number): Promise<void> {
    this.#killed = worker;
    const rank = this.#generations[this.#generation - 1]?.findIndex((own) => own === worker) ?? -1;
    await this.#transports[rank]?.close();
  }

  membersOf(worker: number): Members {
    return {
      next: (step) =>
        new Promise((form, fail) => {
          if (worker === this.#killed) return fail(new Killed());
          this.#ready.set(worker, { step, form });
          void this.#form().catch(fail);
        }),
      history: () => ({ ...NO_HISTORY, generations: this.#generation }),
      isWanted: () => this.#generation === 2 && this.step >= ENTERED,
      exclude: () => undefined,
      isLeaving: () => false,
      leaving: new Promise(() => undefined),
      hasBegun: () => this.#generation > 1,
    };
  }

  /** The first generation waits for all newcomers, so that nothing depends on their speed. */
  async #form(): Promise<void> {
    const members = this.#generations[this.#generation];
    const awaited = this.#generation === 0 ? this.workers : members;
    if (members === undefined || !awaited?.every((worker) => this.#ready.has(worker))) return;
    this.#generation += 1;
    const size = members.length;
    const name = `${this.#name}-${this.#generation}`;
    const ready = members.map((worker) => this.#ready.get(worker) as Ready);
    this.came.push(Object.fromEntries(members.map((own, rank) => [own, ready[rank]?.step ?? -1])));
    for (const worker of members) this.#ready.delete(worker);
    const generation = this.#generation;
    const of = { name, size, generation, wait: "poll" } as const;
    this.#transports = await Promise.all(
      members.map((_, rank) => joinSharedMemory({ ...of, rank })),
    );
    for (const [rank, { form }] of ready.entries()) {
      const transport = this.#transports[rank] as Transport;
      form({ group: new Group({ engine, transport }), adapt: false });
    }
  }
}

/** The losses of a run, by step. */
type Losses = readonly (readonly [step: number, loss: number])[];

async function tryWorker(of: Run, worker: number, out: string, given: Partial<Trial> = {}) {
  const { members, onEvent } = given;
  const losses: [number, number][] = [];
  let clock = 0;
  const result = await train(of, {
    engine,
    folder: await openRunFolder(out, of.checkpoints),
    baseDir: join(out, ".."),
    beginning: "new",
    members,
    leads: worker === 0,
    signal: new AbortController().signal,
    now: () => (clock += 10),
    onEvent: (event) => {
      if (event.type === "step") losses.push([event.step, event.loss]);
      onEvent?.(event);
    },
  });
  return { result, losses };
}

interface Trial {
  readonly members: Members;
  readonly onEvent: (event: RunEvent) => void;
}

interface Tried {
  /** How each worker has ended: with an outcome, or with an error. */
  readonly ends: readonly string[];
  /** What the leaders have told. */
  readonly losses: Losses;
  readonly came: Launcher["came"];
}

/** Trains with workers that come and go. */
async function trainInGroups(of: Run, out: string, generations: Generations): Promise<Tried> {
  const axes = Object.keys(of.parallel ?? {}).join("-");
  const launcher = new Launcher(`whole-${process.pid}-${axes}`, generations);
  const onEvent = (event: RunEvent) => {
    if (event.type !== "step") return;
    launcher.step = event.step;
    if (event.step === LOST) void launcher.kill(3);
  };
  const trained = await Promise.allSettled(
    launcher.workers.map((worker) =>
      tryWorker(of, worker, out, { members: launcher.membersOf(worker), onEvent }),
    ),
  );
  const ends = trained.map((end) => {
    if (end.status === "fulfilled") return end.value.result.outcome;
    return end.reason instanceof Killed ? "killed" : String(end.reason);
  });
  const losses = trained.flatMap((end) => (end.status === "fulfilled" ? end.value.losses : []));
  return { ends, losses, came: launcher.came };
}

async function trainAlone(run: Run, folder: string) {
  const out = join(folder, "alone");
  const { losses } = await tryWorker(run, 0, out);
  return { losses, weightsSha256: reportOf(out).weightsSha256 };
}

async function assertCommitted(out: string, counts: readonly (readonly number[])[]) {
  assert.equal(reportOf(out).history.samplesCommitted, BATCH * STEPS);
  const { ledger } = await newestOf(out);
  const { begins, stretches } = ledger ?? assert.fail("a checkpoint has a ledger");
  assert.deepEqual([begins, stretches.at(-1)?.end], [{ step: 0, position: 0 }, BATCH * STEPS]);
  assert.deepEqual(
    stretches.map(({ generation, samples }) => [generation, ...samples]),
    counts,
  );
}

function assertNear(losses: Losses, wanted: Losses, most: number): void {
  const known = new Map(wanted);
  for (const [step, loss] of losses) {
    const distance = Math.abs(loss - (known.get(step) as number));
    assert.ok(distance <= most, `step ${step}: ${distance} from one worker`);
  }
}

for (const [axis, layers, most] of [
  ["pipeline", 2, 0],
  ["context", 1, 1e-4],
  ["tensor", 1, 1e-4],
] as const) {
  test(`data 2, ${axis} 2: whole groups go on after a loss, and a worker that stood by meanwhile enters again`, () =>
    withFolder({ "words.txt": WORDS }, async (folder) => {
      const out = join(folder, "out");
      const run = runOf(layers);
      const wanted = await trainAlone(run, folder);
      const of = { ...run, parallel: { data: 2, [axis]: 2 } };
      const { ends, losses, came } = await trainInGroups(of, out, [
        [0, 1, 2, 3],
        [0, 1],
        [0, 1, 2, 4],
      ]);
      assert.deepEqual(ends, ["finished", "followed", "followed", "killed", "followed"]);
      const { 0: stayed = 0, 2: stoodBy = 0, 4: newcomer } = came[2] ?? {};
      assert.ok(stayed - stoodBy > 1 && newcomer === 0, `${stayed}, ${stoodBy}, ${newcomer}`);
      assert.deepEqual(
        losses.map(([step]) => step),
        wanted.losses.map(([step]) => step),
      );
      assertNear(losses, wanted.losses, most);
      const { weightsSha256, history } = reportOf(out);
      if (most === 0) assert.equal(weightsSha256, wanted.weightsSha256);
      assert.equal(history.samplesRepeated, 0);
      await assertCommitted(out, [
        [1, 2, 0, 2, 0],
        [2, 4, 0],
        [3, 2, 0, 2, 0],
      ]);
    }));
}
