import type { OperatorDefinition } from "../../graph/index.ts";
import { allGather } from "./all-gather.ts";
import { allReduce } from "./all-reduce.ts";
import { allToAll } from "./all-to-all.ts";
import { broadcast } from "./broadcast.ts";
import { recv } from "./recv.ts";
import { reduceScatter } from "./reduce-scatter.ts";
import { send } from "./send.ts";

export { isReduction, REDUCTIONS, type Reduction } from "./shared.ts";

export const collective = {
  "lockstep::AllGather": allGather,
  "lockstep::AllReduce": allReduce,
  "lockstep::AllToAll": allToAll,
  "lockstep::Broadcast": broadcast,
  "lockstep::Recv": recv,
  "lockstep::ReduceScatter": reduceScatter,
  "lockstep::Send": send,
} satisfies Record<string, OperatorDefinition>;

/** Whether a node takes other ranks to run: programs are cut at these. */
export function isCollective(op: string): boolean {
  return op in collective;
}
