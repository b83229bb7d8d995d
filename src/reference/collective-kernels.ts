import { assert } from "../errors.ts";
import type { collective } from "../ops/collective/index.ts";
import type { Kernel } from "./kernel.ts";

const alone: Kernel = ({ op }) => {
  assert(false, `${op} is interpreted for all ranks of an axis at once`);
};

/** One rank alone cannot run these operators: see `interpretRanks`. */
export const collectiveKernels = {
  "lockstep::AllGather": alone,
  "lockstep::AllReduce": alone,
  "lockstep::AllToAll": alone,
  "lockstep::AmongZeros": alone,
  "lockstep::AxisPlace": alone,
  "lockstep::OnFirst": alone,
  "lockstep::OwnPart": alone,
  "lockstep::ReduceScatter": alone,
  "lockstep::Shift": alone,
} satisfies Record<keyof typeof collective, Kernel>;
