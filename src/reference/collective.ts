/** Collectives as a rank that is alone sees them: what it gives is what it gets. */
import { assert } from "../errors.ts";
import type { collective } from "../ops/collective/index.ts";
import type { Kernel } from "./kernel.ts";

const alone: Kernel = ({ op, inputs, input, output, attributes }) => {
  assert(!attributes.has("size") || attributes.number("size") === 1, `${op} needs other ranks`);
  return inputs.map((_, index) => ({ ...output(index), data: input(index).data.slice() }));
};

const noPeer: Kernel = ({ op }) => assert(false, `${op} needs another rank`) as never;

export const collectiveKernels: Record<keyof typeof collective, Kernel> = {
  "lockstep::AllGather": alone,
  "lockstep::AllReduce": alone,
  "lockstep::AllToAll": alone,
  "lockstep::Broadcast": alone,
  "lockstep::Recv": noPeer,
  "lockstep::ReduceScatter": alone,
  "lockstep::Send": noPeer,
};
