/**
 * Offload: what a step needs only for its update lies in mapped files of a disk, and takes memory
 * only as long as there is some to spare. These are the optimizer's slots, and parameters that are
 * sharded (ZeRO-3), because each piece of the pass uses gathered copies of them. After Rajbhandari
 * et al., "ZeRO-Infinity", 2021. It comes after the strategies that shard.
 */
import { isFlatShard } from "../mesh/index.ts";
import { type StepGraph, type StepValue } from "../plan/index.ts";
import type { Strategy } from "./strategy.ts";

/** Where the values of a step may lie that need not stay in memory. */
export const OFFLOADS = ["disk"] as const;
export type Offload = (typeof OFFLOADS)[number];

export function offload(space: Offload): Strategy {
  return {
    name: `offload to ${space}`,
    rewrite(step): StepGraph {
      const values = [...step.values].map(([name, value]): [string, StepValue] => {
        return [name, isForUpdates(value) ? { ...value, space } : value];
      });
      return { ...step, values: new Map(values) };
    },
  };
}

function isForUpdates({ role, placement }: StepValue): boolean {
  return role === "slot" || (role === "parameter" && isFlatShard(placement));
}
