/**
 * A model of what a way costs in which workers divide the model: memory, traffic and time of the
 * worker that needs most. What workers share that have the same part is as in `cost.ts`.
 */
import { evenTopology } from "../mesh/index.ts";
import { endsOf, type PlannedTimetable, planTimetable, type Turn } from "../plan/index.ts";
import type { Link } from "./buckets.ts";
import {
  type Cost,
  lanesOf,
  type Machine,
  memoryOf,
  type Sharing,
  sizesOf,
  speedOf,
  timeOf,
  totalOf,
} from "./cost.ts";
import type { DividedPipeline, DividedStep, ModelPart } from "./divided-part.ts";
import { secondsOfWork } from "./roofline.ts";
import { SPEED } from "./sharding/divide.ts";
import { memoryOfStage, timeOfStage } from "./stage-cost.ts";

/** Whether workers that divide a model are on one node. */
export function isWithinNode(parts: number, machine: Machine): boolean {
  return sizesOf(machine).each % parts === 0;
}

/** How workers reach each other that divide a model into so many parts. */
export function linkOfParts(parts: number, machine: Machine): Link {
  return isWithinNode(parts, machine) ? (machine.within ?? SPEED.link) : machine.link;
}

/** Workers that have the same part of the model, as if there were no others. */
export function machineOfPart(parts: number, machine: Machine): Machine {
  const { nodes, each } = sizesOf(machine);
  const replicas = (nodes * each) / parts;
  const topology = evenTopology(replicas, isWithinNode(parts, machine) ? nodes : replicas);
  // What workers divide has no buddies.
  return { ...machine, topology, hasBuddies: false };
}

/** @param parts the number of workers that divide the model */
export function dividedCost(
  { parts: all, pipeline }: DividedStep,
  sharing: Sharing,
  parts: number,
  machine: Machine,
): Cost {
  const own = machineOfPart(parts, machine);
  const costs = all.map((part) => costOfPart(part, pipeline !== undefined, sharing, own));
  const most = costs.reduce((one, other) =>
    totalOf(other.memory) > totalOf(one.memory) ? other : one,
  );
  const slowest = costs.reduce((one, other) => (other.seconds > one.seconds ? other : one));
  const [first] = all;
  const lanes = lanesOf(sharing, (first as ModelPart).facts, own);
  const { data, shard } = sharing;
  const microBatches = Math.ceil((first as ModelPart).facts.microBatches / (data * shard));
  const isRead = isWithinNode(parts, machine);
  const exchanged = Math.max(...all.map((part) => part.exchanged.bytes)) * microBatches;
  const traffic = {
    read: slowest.read + (isRead ? exchanged : 0),
    sent: slowest.sent + (isRead ? 0 : exchanged),
  };
  if (pipeline === undefined) {
    const late = (first as ModelPart).exchanged.seconds * microBatches;
    const { computing } = slowest;
    const exposed = slowest.exposed + late;
    return { memory: most.memory, ...traffic, computing, exposed, seconds: slowest.seconds + late };
  }
  const size = { ranks: all.length, microBatches: Math.ceil(microBatches / lanes) };
  const planned = planTimetable(pipeline.timetable(size), pipeline.needs);
  const known = new Map<string, number>();
  const secondsOf = (turn: Turn) => {
    const part = `${turn.stage}${turn.direction}`;
    const found =
      known.get(part) ??
      lanes * (secondsOfWork(pipeline.workOf(turn), machine) + pipeline.exchangedIn(turn));
    known.set(part, found);
    return found;
  };
  const ends = endsOf(planned, pipeline.needs, secondsOf);
  const whole = Math.max(...ends.flat());
  const memories = costs.map(({ memory }, rank) => {
    const { pass } = all[rank] as ModelPart;
    const activations = lanes * (keptIn(planned, rank, pipeline) + pass.within);
    return { ...memory, activations };
  });
  const memory = memories.reduce((one, other) => (totalOf(other) > totalOf(one) ? other : one));
  const { computing } = slowest;
  // Ranks wait for each other, which is neither computing nor communication of the slowest.
  const seconds = slowest.seconds - computing + Math.max(whole, computing);
  return { memory, ...traffic, computing, exposed: seconds - computing, seconds };
}

/** The bytes of the slots of a rank, each as large as what its stages keep there. */
function keptIn(planned: PlannedTimetable, rank: number, { keptOf }: DividedPipeline): number {
  const slots = new Array<number>(planned.slots[rank] ?? 0).fill(0);
  for (const { slot, stage } of planned.turns[rank] ?? []) {
    slots[slot] = Math.max(slots[slot] as number, keptOf(stage));
  }
  return slots.reduce((sum, bytes) => sum + bytes, 0);
}

/** Of what a worker has. @param isStage whether it is what a rank of a pipeline has */
function costOfPart(part: ModelPart, isStage: boolean, sharing: Sharing, own: Machine): Cost {
  const { facts, termsRead } = part;
  const time = isStage ? timeOfStage(part, sharing, own) : timeOf(sharing, facts, own);
  // With ZeRO 2 and 3 each sums what it owns.
  const read = termsRead / (sharing.zero >= 2 ? sharing.shard : 1);
  const summing = read / speedOf(own);
  return {
    ...time,
    read: time.read + read,
    exposed: time.exposed + summing,
    seconds: time.seconds + summing,
    memory: isStage ? memoryOfStage(part, sharing, own) : memoryOfPart(part, sharing, own),
  };
}

function memoryOfPart(
  { facts, pass, exchanged }: ModelPart,
  sharing: Sharing,
  own: Machine,
): Cost["memory"] {
  const memory = memoryOf(sharing, facts, own, pass);
  const given = lanesOf(sharing, facts, own) * exchanged.given;
  return { ...memory, buffers: memory.buffers + given };
}
