/** Lines about the memory that a rank of a run takes. */
import type { Graph } from "../graph/index.ts";
import { flopsOf } from "../ops/index.ts";
import { cutAtExchanges, isPiece, passMemory, type StepGraph } from "../plan/index.ts";
import {
  onDisk,
  residentBytes,
  residentMemory,
  type StepProgram,
  totalOf,
} from "../program/index.ts";
import { columns, operations, size } from "./columns.ts";

/** The buffers of a rank, and its memory and disk by what it is for. */
export function memoryLines(program: StepProgram): string[] {
  const rows = [...program.buffers].map(([name, spec]) => [
    `  ${name}`,
    size(residentBytes(spec)),
    [
      ...(spec.space === "disk" ? ["on disk"] : []),
      ...(program.shared.has(name) ? ["shared"] : []),
      ...(spec.parts === undefined ? [] : [`of ${size(spec.byteLength)}`]),
    ].join(", "),
  ]);
  const resident = residentMemory(program);
  const kinds = [...resident].map(([kind, bytes]) => [`  ${kind}`, size(bytes), ""]);
  return [
    "buffers, as far as this rank takes memory for them",
    ...columns(rows),
    "",
    "memory of this rank",
    ...columns([...kinds, ["  in all", size(totalOf(resident)), ""]]),
    ...diskLines(program),
  ];
}

function diskLines(program: StepProgram): string[] {
  const kinds = [...onDisk(program)];
  if (kinds.length === 0) return [];
  return [
    "on the disk of this rank",
    ...columns(kinds.map(([kind, bytes]) => [`  ${kind}`, size(bytes)])),
  ];
}

/**
 * Returns lines about the activations of one micro-batch: in one piece, and cut into pieces with
 * what is recomputed.
 */
export function activationLines(before: StepGraph, after: StepGraph): string[] {
  const cut = cutAtExchanges(after);
  const pieces = cut.tasks.filter(isPiece);
  const whole = `activations of a micro-batch: ${size(passMemory(before).within)} in one piece`;
  if (pieces.length === 1) return [whole];
  const { between, within } = passMemory(cut);
  const flops = (step: StepGraph) =>
    step.tasks
      .filter(isPiece)
      .reduce((sum, { graph }) => sum + flopsOf(step.graphs.get(graph) as Graph), 0);
  const again = flops(cut) - flops(before);
  const repeated = again <= 0 ? "" : `; ${operations(again)} computed again`;
  return [
    whole,
    `  in ${pieces.length} pieces: ${size(between)} between them, ${size(within)} within the largest${repeated}`,
  ];
}
