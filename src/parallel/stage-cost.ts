/**
 * What it costs a worker of a pipeline that the workers of its stage share out the state: parameters
 * and slots are divided with ZeRO-1 already, and read where they lie.
 */
import { type Cost, lanesOf, type Machine, memoryOf, type Sharing, timeOf } from "./cost.ts";
import type { ModelPart } from "./divided-part.ts";

/** As `timeOf`: with ZeRO 2 and 3 gradients go to those who sum them, and no parameters are moved. */
export function timeOfStage(
  { facts }: ModelPart,
  sharing: Sharing,
  machine: Machine,
): Omit<Cost, "memory"> {
  if (sharing.zero < 2) return timeOf(sharing, facts, machine);
  return timeOf({ ...sharing, zero: 3 }, { ...facts, gathered: 0 }, machine);
}

/** As `memoryOf`, with what is brought to a stage, and what goes between parts of it. */
export function memoryOfStage(
  { facts, pass, brought, exchanged }: ModelPart,
  sharing: Sharing,
  machine: Machine,
): Cost["memory"] {
  const { zero, shard, data } = sharing;
  const memory = memoryOf(sharing, facts, machine, pass);
  const lanes = lanesOf(sharing, facts, machine);
  const given = lanes * exchanged.given;
  const isDivided = zero > 0 && shard > 1;
  // A tensor of which two workers have a part is copied; the largest one may be.
  const copied = brought + (isDivided ? facts.largestGradient : 0);
  const parameters = isDivided
    ? Math.min(memory.parameters, (facts.parameters + facts.scratch) / shard)
    : memory.parameters;
  if (zero < 2) {
    // What replicas of the stage have made of the part that this one sums.
    const copies = (facts.gradients * (data * shard - 1)) / (data * shard);
    return { ...memory, parameters, buffers: memory.buffers + given + copied + copies };
  }
  const bucket = Math.min(facts.gradients, Math.max(machine.bucketBytes, facts.largestGradient));
  const ofReplicas = ((facts.gradients / shard) * (data - 1)) / data;
  return { ...memory, parameters, buffers: lanes * bucket + given + copied + ofReplicas };
}
