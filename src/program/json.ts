/** A program as JSON and back: `lockstep plan FILE --json` writes it, and what is read back gives the same bits. */
import { LockstepError } from "../errors.ts";
import { type GraphJson, graphFromJson, graphToJson } from "../graph/index.ts";
import type { Measure } from "../plan/index.ts";
import { checkProgram } from "./check.ts";
import type { EvaluationBatch, EvaluationPlan } from "./evaluation.ts";
import type { Side, StepProgram } from "./lower.ts";
import type { BufferSpec, GraphSpec, TensorRef } from "./program.ts";

/** Changes with every change of the form. */
const FORMAT = "lockstep-program-4";

type Table<Value> = Readonly<Record<string, Value>>;

interface SideJson extends Omit<Side, "states"> {
  readonly states: Table<TensorRef>;
}

interface EvaluationJson extends Omit<EvaluationPlan, "sizes" | "measures"> {
  readonly sizes: readonly (Omit<EvaluationBatch, "fields"> & {
    readonly fields: Table<TensorRef>;
  })[];
  readonly measures: readonly (Omit<Measure, "tail"> & { readonly tail?: GraphJson })[];
}

export interface ProgramJson
  extends Omit<
    StepProgram,
    | "buffers"
    | "shared"
    | "graphs"
    | "groups"
    | "sides"
    | "arena"
    | "slots"
    | "batch"
    | "parameters"
    | "evaluation"
  > {
  readonly format: string;
  readonly buffers: Table<BufferSpec>;
  readonly shared: readonly string[];
  readonly graphs: Table<Omit<GraphSpec, "graph"> & { readonly graph: GraphJson }>;
  readonly groups: Table<readonly number[]>;
  readonly sides: readonly [SideJson, SideJson];
  readonly arena?: {
    readonly offsets: Table<number>;
    readonly byteLength: number;
    readonly withoutReuse: number;
  };
  readonly slots: Table<TensorRef>;
  readonly batch: Table<TensorRef>;
  readonly parameters: Table<TensorRef>;
  readonly evaluation?: EvaluationJson;
}

export function programToJson(program: StepProgram): ProgramJson {
  const {
    buffers,
    shared,
    graphs,
    groups,
    sides,
    arena,
    evaluation,
    slots,
    batch,
    parameters,
    ...rest
  } = program;
  const [first, second] = sides;
  const side = (own: Side): SideJson => ({ ...own, states: Object.fromEntries(own.states) });
  return {
    format: FORMAT,
    ...rest,
    buffers: Object.fromEntries(buffers),
    shared: [...shared],
    graphs: Object.fromEntries(
      [...graphs].map(([name, spec]) => [name, { ...spec, graph: graphToJson(spec.graph) }]),
    ),
    groups: Object.fromEntries(groups),
    sides: [side(first), side(second)],
    ...(arena === undefined
      ? {}
      : { arena: { ...arena, offsets: Object.fromEntries(arena.offsets) } }),
    slots: Object.fromEntries(slots),
    batch: Object.fromEntries(batch),
    parameters: Object.fromEntries(parameters),
    ...(evaluation === undefined ? {} : { evaluation: evaluationToJson(evaluation) }),
  };
}

/** @throws INVALID_GRAPH where it is of another version, or does not fit together */
export function programFromJson(json: ProgramJson): StepProgram {
  const { format, graphs, sides, arena, evaluation, ...rest } = json;
  if (format !== FORMAT) {
    throw new LockstepError(
      "INVALID_GRAPH",
      `The program is written as ${JSON.stringify(format)}; this version reads "${FORMAT}".`,
      { hint: "Write it again with this version of lockstep." },
    );
  }
  const [first, second] = sides;
  const side = (own: SideJson): Side => ({ ...own, states: mapOf(own.states) });
  return checkProgram({
    ...rest,
    counted: rest.counted,
    atOnce: rest.atOnce,
    stop: rest.stop,
    paces: rest.paces,
    buffers: mapOf(json.buffers),
    shared: new Set(json.shared),
    graphs: new Map(
      Object.entries(graphs).map(([name, spec]) => {
        return [name, { ...spec, graph: graphFromJson(spec.graph) }];
      }),
    ),
    groups: mapOf(json.groups),
    sides: [side(first), side(second)],
    arena: arena && { ...arena, offsets: mapOf(arena.offsets) },
    slots: mapOf(json.slots),
    batch: mapOf(json.batch),
    parameters: mapOf(json.parameters),
    evaluation: evaluation && evaluationFromJson(evaluation),
  });
}

function evaluationToJson({ samples, sizes, measures }: EvaluationPlan): EvaluationJson {
  return {
    samples,
    sizes: sizes.map((size) => ({ ...size, fields: Object.fromEntries(size.fields) })),
    measures: measures.map(({ tail, ...measure }) =>
      tail === undefined ? measure : { ...measure, tail: graphToJson(tail) },
    ),
  };
}

function evaluationFromJson({ samples, sizes, measures }: EvaluationJson): EvaluationPlan {
  return {
    samples,
    sizes: sizes.map((size) => ({ ...size, fields: mapOf(size.fields) })),
    measures: measures.map(({ tail, ...measure }) => {
      return { ...measure, tail: tail && graphFromJson(tail) };
    }),
  };
}

function mapOf<Value>(table: Table<Value>): Map<string, Value> {
  return new Map(Object.entries(table));
}
