/** A run of a graph in pieces, for each of which its parameters are brought together just before. */
import type { Graph } from "../graph/index.ts";
import {
  arenaOf,
  type ComputeTask,
  cutAtUnits,
  MICRO_BATCH,
  type StepGraph,
  type StepValue,
  valueName,
  valueOf,
} from "../plan/index.ts";
import { activationBuffer } from "./buffers.ts";
import { type PieceWork, pieceTasks } from "./pieces.ts";
import type { ProgramBuilder, Run, RunStage, Stage, TensorRef } from "./program.ts";

export interface PiecesOf extends Pick<Run, "inputs" | "outputs"> {
  isParameter(input: string): boolean;
  /**
   * Brings parameters together.
   * @param turn counts the pieces
   */
  gather(
    name: string,
    parameters: readonly string[],
    turn: number,
  ): NonNullable<PieceWork["gather"]> & { find(parameter: string): TensorRef | undefined };
}

export function runInPieces(
  program: ProgramBuilder,
  name: string,
  graph: Graph,
  { inputs, outputs, isParameter, gather }: PiecesOf,
): Stage {
  const { step, task } = stepOf(name, graph, isParameter);
  const { step: cut, pieces } = cutAtUnits(step, task);
  const arena = arenaOf(cut, pieces);
  const activations = program.growing(activationBuffer(0), arena.byteLength);
  const works = pieces.map((piece, index): PieceWork => {
    const read = piece.inputs.map((value) => valueOf(cut, value));
    const taken = read.filter(({ role }) => role === "parameter").map(({ of }) => of);
    const unit =
      taken.length === 0 ? undefined : gather(`parameters of ${piece.name}`, taken, index);
    const place = (value: string, bound: string): TensorRef => {
      const { role, of, type } = valueOf(cut, value);
      if (role === "activation") {
        return { buffer: activations, byteOffset: arena.offsets.get(value) ?? 0, type };
      }
      const parameter = role === "parameter" ? unit?.find(of) : undefined;
      return parameter ?? inputs[bound] ?? (outputs[bound] as TensorRef);
    };
    const refs = (bound: readonly string[], values: readonly string[]) =>
      Object.fromEntries(bound.map((own, at) => [own, place(values[at] as string, own)]));
    const own = cut.graphs.get(piece.graph) as Graph;
    program.graph(piece.graph, "all", () => own);
    const run: Run = {
      graph: piece.graph,
      inputs: refs(own.inputs, piece.inputs),
      outputs: refs(own.outputs, piece.outputs),
    };
    const stage: RunStage = { name: piece.name, runs: [run], mode: "ordered" };
    return { name: piece.name, work: [stage], gather: unit };
  });
  return { name, mode: "tasks", tasks: pieceTasks(works) };
}

/** A step that is nothing but one run of a graph. */
function stepOf(
  name: string,
  graph: Graph,
  isParameter: (input: string) => boolean,
): { readonly step: StepGraph; readonly task: ComputeTask } {
  const values = new Map<string, StepValue>();
  const declare = (role: StepValue["role"]) => (of: string) => {
    const own = isParameter(of) ? "parameter" : role;
    const type = graph.types.get(of) as StepValue["type"];
    values.set(valueName(own, of), { role: own, of, type, placement: {} });
    return valueName(own, of);
  };
  const task: ComputeTask = {
    kind: "compute",
    name,
    graph: name,
    each: MICRO_BATCH,
    inputs: graph.inputs.map(declare("batch")),
    outputs: graph.outputs.map(declare("summary")),
  };
  const graphs = new Map([[name, graph]]);
  return { step: { name, microBatches: 1, values, graphs, tasks: [task] }, task };
}
