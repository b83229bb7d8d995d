/**
 * Checks how an operator is divided: for each of its divisions, what the ranks of an axis make of
 * their parts is what one process makes of the whole. Divisions are tried with 2 and 3 ranks on the
 * reference interpreter.
 */
import assert from "node:assert/strict";
import type { AttributeInputs, Division, Graph, Node } from "../../src/graph/index.ts";
import { type AxisPlacement, createMesh, isShard } from "../../src/mesh/index.ts";
import { type DividedOver, divisionsOf, newBuilder } from "../../src/ops/index.ts";
import { localize } from "../../src/parallel/sharding/localize.ts";
import {
  fromTensor,
  interpret,
  interpretRanks,
  partOf,
  toTensor,
} from "../../src/reference/index.ts";
import { isFloat, type Tensor, tensorFrom, toNumbers } from "../../src/tensor/index.ts";
import { randomNumbers } from "./random.ts";

export interface DivisionCase {
  readonly op: string;
  readonly attributes?: AttributeInputs;
  /** `constant`: it is a constant of the graph, such as a shape. Null: it is omitted. */
  readonly inputs: readonly (Tensor | { readonly constant: Tensor } | null)[];
  readonly outputs?: number;
  /** Proportions of sections that are tried beside one section. */
  readonly proportions?: DividedOver["proportions"];
  /** Default: 2 and 3. */
  readonly ranks?: readonly number[];
  /** The relative tolerance. Default: 1e-9. */
  readonly tolerance?: number;
}

/** Fails where a division is wrong. Returns the divisions that were checked, as text. */
export function checkDivisions(given: DivisionCase): string[] {
  const { graph, feeds } = graphOf(given);
  const node = graph.nodes.find(({ op }) => op === given.op) as Node;
  const whole = interpret(graph, feeds);
  return (given.ranks ?? [2, 3]).flatMap((ranks) => {
    const proportions = [[1], ...(given.proportions ?? [])];
    const over: DividedOver = { axis: "axis", ranks, proportions };
    return divisionsOf(graph, node, over).map((division) => {
      const text = `${given.op} on ${ranks} ranks: ${formatDivision(division)}`;
      checkDivision({ graph, node, division, over, feeds, whole, text }, given.tolerance ?? 1e-9);
      return text;
    });
  });
}

/** Checks divisions, and remembers which operators had one beside that of the whole. */
export function divisionTrials() {
  const tried = new Set<string>();
  return {
    tried,
    /** The divisions on two ranks, without the operator's name. */
    onTwo(given: DivisionCase): string[] {
      const prefix = `${given.op} on 2 ranks: `;
      const found = checkDivisions({ ...given, ranks: [2, 3] }).flatMap((text) =>
        text.startsWith(prefix) ? [text.slice(prefix.length)] : [],
      );
      if (found.length > 1) tried.add(given.op);
      return found;
    },
  };
}

export function formatDivision({ inputs, outputs }: Division): string {
  const format = (on: AxisPlacement | undefined) => {
    if (!isShard(on)) return on ?? "whole";
    return on.sections === undefined ? `${on.shard}` : `${on.shard}(${on.sections.join("+")})`;
  };
  return `${inputs.map(format).join(", ")} -> ${outputs.map(format).join(", ")}`;
}

function graphOf({ op, inputs, attributes = {}, outputs }: DivisionCase) {
  const builder = newBuilder(op);
  const feeds: Record<string, Tensor> = {};
  const values = inputs.map((input, index) => {
    if (input === null) return undefined;
    if ("constant" in input) return builder.constant(input.constant);
    const name = `input${index}`;
    feeds[name] = input;
    return builder.input(name, { dtype: input.dtype, shape: input.shape });
  });
  const made = builder.emit(op, values, attributes, outputs === undefined ? {} : { outputs });
  return { graph: builder.build(made), feeds };
}

interface Checked {
  readonly graph: Graph;
  readonly node: Node;
  readonly division: Division;
  readonly over: DividedOver;
  readonly feeds: Readonly<Record<string, Tensor>>;
  readonly whole: Readonly<Record<string, Tensor>>;
  readonly text: string;
}

function checkDivision(
  { graph, node, division, over, feeds, whole, text }: Checked,
  tolerance: number,
): void {
  const placements = new Map(
    node.inputs.map((name, index) => [name, division.inputs[index]] as const),
  );
  // What a rank makes is brought together, so that it can be compared with the whole.
  const local = localize(graph, {
    over,
    nodes: new Map([[node, division]]),
    inputs: placements,
    views: new Map(),
    outputs: new Map(),
  });
  const parts = Array.from({ length: over.ranks }, (_, place) =>
    Object.fromEntries(
      Object.entries(feeds).map(([name, tensor]) => {
        return [name, held(tensor, placements.get(name), place, over.ranks)];
      }),
    ),
  );
  const results = interpretRanks(local, createMesh({ axis: over.ranks }), parts);
  for (const [index, name] of graph.outputs.entries()) {
    const wanted = toNumbers(whole[name] as Tensor);
    for (const [rank, own] of results.entries()) {
      const found = toNumbers(own[local.outputs[index] as string] as Tensor);
      assert.equal(found.length, wanted.length, `${text}: rank ${rank}, output ${index}`);
      for (const [at, number] of wanted.entries()) {
        const other = found[at] as number;
        const near = Math.abs(other - number) <= tolerance * Math.max(1, Math.abs(number));
        const isSame = Object.is(other, number) || other === number || near;
        assert.ok(
          isSame,
          `${text}: rank ${rank}, output ${index}, [${at}]: ${other}, not ${number}`,
        );
      }
    }
  }
}

/** What a rank holds of a tensor. The terms of a sum are drawn at random. */
function held(tensor: Tensor, on: AxisPlacement | undefined, place: number, ranks: number): Tensor {
  const { dtype, shape } = tensor;
  if (isShard(on)) {
    const at = { dim: on.shard as number, sections: on.sections };
    return toTensor(partOf(fromTensor(tensor), at, place, ranks));
  }
  if (on === undefined) return tensor;
  const numbers = toNumbers(tensor);
  const drawn = (rank: number) => randomNumbers(100 + rank, numbers.length, [0, 1]);
  const draws = Array.from({ length: ranks }, (_, rank) =>
    drawn(rank).map((x) => (isFloat(dtype) ? x : Math.round(x))),
  );
  const own = numbers.map((number, at) => {
    const random = (rank: number) => draws[rank]?.[at] as number;
    // The largest lies on one of the ranks.
    if (on === "partial max") return at % ranks === place ? number : number - 1 - random(place);
    if (place > 0) return random(place);
    return draws.slice(1).reduce((rest, _, rank) => rest - random(rank + 1), number);
  });
  return tensorFrom(dtype, shape, own);
}
