/**
 * A crew of ranks in this process that trains, has faults where a test says so, and meets again with
 * newcomers, as often as it takes.
 */
import assert from "node:assert/strict";
import { setImmediate } from "node:timers/promises";
import { Group } from "../../src/collectives/index.ts";
import type { Device } from "../../src/engine/index.ts";
import { LockstepError } from "../../src/errors.ts";
import type { ModelDefinition } from "../../src/nn/index.ts";
import { adamw } from "../../src/optimizer/index.ts";
import { axesFor } from "../../src/parallel/index.ts";
import {
  createTrainer,
  joinTrainer,
  type Trainer,
  type TrainerOptions,
} from "../../src/train/index.ts";
import { Dead, type Deed, type Mortal, mortal } from "../support/mortal.ts";
import { type SimulatedRanks, simulatedRanks } from "../support/ranks.ts";
import { GPT, stepOf } from "../support/small-models.ts";
import { bitsOf } from "../support/steps.ts";
import { Undisturbed } from "../support/undisturbed.ts";

const SAMPLES = 4;
/** Ranks that have done nothing for so many turns of the event loop wait for each other. */
const QUIET_TURNS = 50;
const STANDSTILL_MS = 30_000;
export const RANKS = 3;
export const STEPS = 3;
/** Where the ranks of a crew run: ranks of one node read each other's memory, and are lost with it. */
export type Nodes = readonly (readonly number[])[];
const ONE_NODE: Nodes = [Array.from({ length: RANKS }, (_, rank) => rank)];

/** How a crew shares its steps. */
export type Sharing = Pick<TrainerOptions, "zero" | "parallel" | "buddies">;

/** The ways in which ranks share a step. */
export const WAYS: Readonly<Record<string, Sharing>> = {
  data: { parallel: { data: RANKS } },
  "zero 1": { zero: 1 },
  "zero 2": { zero: 2 },
  "zero 3": { zero: 3 },
};

export type Phase =
  | "forward"
  /** The n-th message of the step, or of the meeting; those of collectives, and a barrier's. */
  | { readonly message: number }
  /** The n-th of the runs that update parameters. */
  | { readonly update: number }
  /** The n-th message in which ranks bring new parameters together. */
  | { readonly gather: number };

/** What happens to a rank. Default: it is killed, and the others see it at once. */
export type Cause =
  | "SIGKILL"
  /** It does nothing more, and is killed when the others wait for it. */
  | "SIGSTOP"
  /** It goes on, and no message comes to it or from it; the others go on without it. */
  | "cut";

export interface Fault {
  /** In the group that it is lost from: survivors keep their order, and newcomers are the last. */
  readonly rank: number;
  /** The first meeting after a loss is 1. Without it, the fault happens in the step before. */
  readonly meeting?: number;
  /** In a step. */
  readonly phase?: Phase;
  readonly by?: Cause;
  /** Whether it is over before the rank is found to be lost. */
  readonly passes?: boolean;
  /** The n-th of all that the rank does in the meeting. */
  readonly deed?: number;
}

/** A fault, as a sentence of a test. */
export function failAt(fault: Fault): Fault {
  return fault;
}

/** Where in the deeds of a step a phase is. Undefined if the step has no such phase. */
export function deedOf(deeds: readonly Deed[], phase: Phase): number | undefined {
  if (phase === "forward") return 0;
  const lastRun = deeds.lastIndexOf("run");
  const firstUpdate = deeds.slice(0, lastRun).lastIndexOf("meeting") + 1;
  const [from, to, deed, nth]: [number, number, Deed, number] =
    "update" in phase
      ? [firstUpdate, lastRun + 1, "run", phase.update]
      : "gather" in phase
        ? [lastRun + 1, deeds.length, "meeting", phase.gather]
        : [0, deeds.length, "meeting", phase.message];
  const places = [...deeds.entries()].slice(from, to).filter(([, made]) => made === deed);
  return places[nth]?.[0];
}

function optionsOf(engine: Device, model: ModelDefinition): TrainerOptions {
  return {
    engine,
    model: model.build({ batch: 1, mode: "train" }),
    optimizer: adamw({ learningRate: 1e-2 }),
    clip: 1,
    microBatches: SAMPLES,
  };
}

const step = (trainer: Trainer) => stepOf(trainer, SAMPLES);

/** What crews train, and what one process gives. */
export class Course extends Undisturbed {
  readonly engine: Device;
  readonly model: ModelDefinition;

  constructor(engine: Device, model: ModelDefinition = GPT) {
    super(optionsOf(engine, model), SAMPLES);
    this.engine = engine;
    this.model = model;
  }
}

/** A process with a rank. It has no trainer before it has a state. */
class Member {
  readonly life: Mortal;
  trainer: Trainer | undefined;

  constructor(engine: Device) {
    this.life = mortal(engine);
  }
}

/** Who is lost, and when. */
export interface Victim extends Pick<Fault, "by" | "passes"> {
  readonly rank: number;
  readonly deed: number;
  /** The nodes that are lost as a whole at this moment. Default: the rank alone. */
  readonly nodes?: readonly number[];
}

export class Crew {
  /** What each rank did in the last step or meeting that all survived, by rank. */
  deeds: (readonly Deed[])[] = [];
  readonly #course: Course;
  readonly #sharing: Sharing;
  readonly #met: SimulatedRanks[] = [];
  readonly #lost: Trainer[] = [];
  #members: Member[] = [];
  #groups: Group[] = [];
  #nodes: Nodes;

  constructor(course: Course, sharing: Sharing, nodes = ONE_NODE) {
    this.#course = course;
    this.#sharing = sharing;
    this.#nodes = nodes;
  }

  async start(): Promise<void> {
    this.#meet();
    const prepared = await this.#course.prepared;
    await Promise.all(
      this.#members.map(async (member, rank) => {
        member.trainer = await createTrainer(this.#optionsOf(rank), prepared);
      }),
    );
  }

  /** The steps that all have committed. */
  get steps(): number {
    const steps = new Set(this.#members.map(({ trainer }) => trainer?.steps));
    assert.equal(steps.size, 1, "all are after the same step");
    return [...steps][0] as number;
  }

  /** The node of a rank, if there are several: it is lost with the rank. */
  nodesOf(rank: number): number[] {
    if (this.#nodes.length === 1) return [];
    return [this.#nodes.findIndex((ranks) => ranks.includes(rank))];
  }

  /** Makes a step; the victim is lost at one of its deeds. Returns whether all survived. */
  async step(victim?: Victim): Promise<boolean> {
    return this.#together(victim, async ({ trainer }, rank) => {
      await step(trainer as Trainer);
      // A victim that got to the end of the step is lost then.
      if (rank === victim?.rank && victim.passes !== true) throw new Dead("the process is dead");
    });
  }

  /**
   * Survivors and newcomers meet in a new group. Returns whether all survived.
   * @param nodes of the new group: survivors come first. Default: as before
   */
  async meetAgain(victim?: Victim, nodes = this.#nodes): Promise<boolean> {
    this.#nodes = nodes;
    this.#meet();
    return this.#together(victim, async (_, rank) => {
      await this.#enter(rank);
      if (rank === victim?.rank) throw new Dead("the process is dead");
    });
  }

  /**
   * Survivors and newcomers meet in a new group, and none can go on. Returns their errors.
   */
  async meetInVain(nodes = this.#nodes): Promise<unknown[]> {
    this.#nodes = nodes;
    this.#meet();
    for (const { life } of this.#members) life.dieAt(Number.POSITIVE_INFINITY);
    const ended = await Promise.allSettled(this.#members.map((_, rank) => this.#enter(rank)));
    return ended.map((end) => (end.status === "rejected" ? end.reason : undefined));
  }

  /** Makes the steps that are left, and sees that all have what one process gives. */
  async finish(when?: string, steps = STEPS): Promise<void> {
    while (this.steps < steps) assert.ok(await this.step(), "nobody is lost any more");
    // On one node each can read what the others hold.
    if (this.#nodes.length > 1) assert.ok(await this.meetAgain(undefined, [this.#nodes.flat()]));
    await this.assertAlike(when);
  }

  /** All ranks, which are on one node, have what one process gives. */
  async assertAlike(when?: string): Promise<void> {
    const expected = await this.#course.after(this.steps);
    for (const { trainer } of this.#members) {
      assert.deepEqual(await bitsOf(trainer as Trainer), expected, when);
    }
  }

  async close(): Promise<void> {
    for (const { trainer } of this.#members) trainer?.close();
    for (const trainer of this.#lost) trainer.close();
    for (const met of this.#met) await met.close();
  }

  /** Resolves when each rank waits for another one, or has done all that it had to do. */
  async #standstill(): Promise<void> {
    const lives = this.#members.map(({ life }) => life);
    const pulse = () => lives.reduce((sum, life) => sum + life.pulse, 0);
    const end = performance.now() + STANDSTILL_MS;
    for (let [turns, seen] = [0, -1]; turns < QUIET_TURNS; ) {
      await setImmediate();
      const isBusy = pulse() !== seen || lives.some(({ isRunning }) => isRunning);
      [turns, seen] = [isBusy ? 0 : turns + 1, pulse()];
      if (performance.now() > end) return; // a rank that never rests is as good as any moment
    }
  }

  async #enter(rank: number): Promise<void> {
    const [member, group] = [this.#members[rank] as Member, this.#groups[rank] as Group];
    if (member.trainer !== undefined) await member.trainer.regroup({ group, adapt: false });
    else member.trainer = await joinTrainer(this.#optionsOf(rank), await this.#course.prepared);
  }

  #optionsOf(rank: number): TrainerOptions {
    const { device } = (this.#members[rank] as Member).life;
    const group = this.#groups[rank] as Group;
    const { parallel, ...rest } = this.#sharing;
    return {
      ...optionsOf(device, this.#course.model),
      ...rest,
      ...(parallel === undefined ? {} : { parallel: axesFor(parallel, group.size) }),
      ranks: { group, adapt: false },
    };
  }

  #meet(): void {
    const size = this.#nodes.flat().length;
    while (this.#members.length < size) this.#members.push(new Member(this.#course.engine));
    const generation = this.#met.length + 1;
    const met = simulatedRanks(this.#course.engine, size, true, this.#nodes, { generation });
    this.#met.push(met);
    this.#groups = met.groups.map(
      ({ transport }, rank) =>
        new Group({
          engine: this.#course.engine,
          transport: (this.#members[rank] as Member).life.transport(transport),
        }),
    );
  }

  /** Does something on all ranks. Whoever dies is lost; the others see that its process ended. */
  async #together(
    victim: Victim | undefined,
    body: (member: Member, rank: number) => Promise<void>,
  ): Promise<boolean> {
    const { by = "SIGKILL", passes = false, deed = 0 } = victim ?? {};
    let held: Promise<void> | undefined;
    for (const [rank, { life }] of this.#members.entries()) {
      const isKilled = rank === victim?.rank && by === "SIGKILL";
      life.dieAt(isKilled ? deed : Number.POSITIVE_INFINITY);
      if (rank !== victim?.rank || isKilled) continue;
      life.holdAt(deed, by === "cut" ? "meeting" : undefined);
      held = this.#standstill().then(() => {
        const { isHeld } = life;
        if (passes) life.letGo();
        else life.die();
        assert.ok(isHeld, `rank ${rank} is held at deed ${deed} when the others wait`);
      });
    }
    const ofNodes = (victim?.nodes ?? []).flatMap((node) => this.#nodes[node] ?? []);
    const doomed = new Set(ofNodes.map((rank) => this.#members[rank] as Member));
    const dead = new Set<Member>();
    await Promise.all(
      this.#members.map(async (member, rank) => {
        try {
          await body(member, rank);
        } catch (error) {
          if (error instanceof Dead) {
            for (const mate of [member, ...doomed]) {
              mate.life.die();
              dead.add(mate);
            }
            for (const group of this.#groups.filter((_, at) =>
              dead.has(this.#members[at] as Member),
            )) {
              group.transport.abort(new Error("gone"));
            }
          } else if (!doomed.has(member)) {
            assert.ok(victim !== undefined && error instanceof LockstepError, String(error));
            assert.match(error.code, /^(PEER_LOST|ABORTED)$/, error.message);
          }
        }
      }),
    );
    await held;
    this.deeds = this.#members.map(({ life }) => life.deeds);
    for (const { trainer } of dead) if (trainer !== undefined) this.#lost.push(trainer);
    this.#members = this.#members.filter((member) => !dead.has(member));
    return dead.size === 0;
  }
}
