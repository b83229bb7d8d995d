/**
 * How many bytes a rank receives from others: those that it reads in their memory, and those that
 * are sent to it.
 */
import { byteLength, bytesPerElement } from "../tensor/index.ts";
import type { CollectiveStage, RunStage, Stage } from "./program.ts";

/** @param placeOf this rank's place in a group */
export function receivedBytes(
  stages: readonly Stage[],
  placeOf: (group: string) => number,
): number {
  let bytes = 0;
  for (const stage of stages) {
    switch (stage.mode) {
      case "collective":
        bytes += receivedBy(stage, placeOf);
        break;
      case "tasks":
        for (const { work } of stage.tasks) bytes += receivedBytes(work, placeOf);
        break;
      default:
        bytes += readInPlace(stage);
    }
  }
  return bytes;
}

function readInPlace({ runs }: RunStage): number {
  const places = runs.flatMap(({ inputs }) => Object.values(inputs));
  return places.reduce(
    (sum, { rank, type }) => (rank === undefined ? sum : sum + byteLength(type)),
    0,
  );
}

function receivedBy({ call, group }: CollectiveStage, placeOf: (group: string) => number): number {
  const others = (counts: readonly number[]) =>
    counts.reduce((sum, count, from) => (from === placeOf(group) ? sum : sum + count), 0);
  switch (call.kind) {
    case "allGather":
      return others(call.counts) * bytesPerElement(call.dtype);
    case "allToAll":
      return others(call.receiveCounts) * bytesPerElement(call.dtype);
    default:
      return 0;
  }
}
