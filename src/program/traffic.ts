/** How many bytes a rank takes from others: what it reads of their memory in place, and what is sent to it. */
import { byteLength, bytesPerElement } from "../tensor/index.ts";
import type { CollectiveStage, Stage } from "./program.ts";

export function receivedBytes(stages: readonly Stage[], rank: number): number {
  let bytes = 0;
  for (const stage of stages) {
    if (stage.mode === "collective") bytes += receivedBy(stage, rank);
    else {
      for (const { inputs } of stage.runs) {
        for (const { buffer, type } of Object.values(inputs)) {
          if (buffer.includes("@")) bytes += byteLength(type);
        }
      }
    }
  }
  return bytes;
}

function receivedBy({ call }: CollectiveStage, rank: number): number {
  const others = (counts: readonly number[]) =>
    counts.reduce((sum, count, from) => (from === rank ? sum : sum + count), 0);
  switch (call.kind) {
    case "allGather":
      return others(call.counts ?? []) * bytesPerElement(call.dtype);
    case "allToAll":
      return others(call.receiveCounts) * bytesPerElement(call.dtype);
    default:
      return 0;
  }
}
