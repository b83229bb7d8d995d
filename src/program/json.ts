/**
 * A program as JSON and back: `lockstep plan FILE --json` writes it, and what is read back gives
 * the same bits.
 */
import { LockstepError } from "../errors.ts";
import { type Graph, type GraphJson, graphFromJson, graphToJson } from "../graph/index.ts";
import { checkProgram, isGraph } from "./check.ts";
import type { Side, StepProgram } from "./step-program.ts";

/** The version of the form; it changes with every change of the form. */
const FORMAT = "lockstep-program-7";

/** The form of a value in JSON: maps are objects, sets are lists, graphs have their own form. */
type Json<Value> =
  Value extends ReadonlyMap<string, infer Item>
    ? Readonly<Record<string, Json<Item>>>
    : Value extends ReadonlySet<infer Item>
      ? readonly Item[]
      : Value extends Graph
        ? GraphJson
        : Value extends object
          ? { readonly [Key in keyof Value]: Json<Value[Key]> }
          : Value;

export type ProgramJson = Json<StepProgram> & { readonly format: string };

export function programToJson(program: StepProgram): ProgramJson {
  return { format: FORMAT, ...(toJson(program) as Json<StepProgram>) };
}

function toJson(value: unknown): unknown {
  if (value instanceof Set) return [...value];
  if (value instanceof Map) return toJson(Object.fromEntries(value));
  if (Array.isArray(value)) return value.map(toJson);
  if (typeof value !== "object" || value === null) return value;
  if (isGraph(value)) return graphToJson(value);
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, toJson(item)]));
}

/** @throws INVALID_GRAPH if it is of another version, or does not fit together */
export function programFromJson({ format, ...json }: ProgramJson): StepProgram {
  if (format !== FORMAT) {
    throw new LockstepError(
      "INVALID_GRAPH",
      `The program is written as ${JSON.stringify(format)}; this version reads "${FORMAT}".`,
      { hint: "Write it again with this version of lockstep." },
    );
  }
  const { arena, evaluation } = json;
  const [first, second] = json.sides;
  const side = (own: Json<Side>): Side => ({ ...own, states: mapOf(own.states) });
  return checkProgram({
    ...json,
    buffers: mapOf(json.buffers),
    shared: new Set(json.shared),
    graphs: mapOf(json.graphs, (spec) => ({ ...spec, graph: graphFromJson(spec.graph) })),
    groups: mapOf(json.groups),
    sides: [side(first), side(second)],
    arena: arena && { ...arena, offsets: mapOf(arena.offsets) },
    slots: mapOf(json.slots),
    divided: json.divided && { ...json.divided, tensors: mapOf(json.divided.tensors) },
    batch: mapOf(json.batch),
    parameters: mapOf(json.parameters),
    evaluation: evaluation && {
      ...evaluation,
      sizes: evaluation.sizes.map((size) => ({ ...size, fields: mapOf(size.fields) })),
      measures: evaluation.measures.map((measure) => {
        return { ...measure, tail: measure.tail && graphFromJson(measure.tail) };
      }),
    },
  });
}

function mapOf<Item, Own = Item>(
  table: Readonly<Record<string, Item>>,
  read: (item: Item) => Own = (item) => item as unknown as Own,
): Map<string, Own> {
  return new Map(Object.entries(table).map(([name, item]) => [name, read(item)]));
}
