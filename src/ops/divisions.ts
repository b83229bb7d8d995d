/** What operators have in common in how they are divided: see `Division`. */
import type { Division, DivisionContext, LocalContext, Value } from "../graph/index.ts";
import type { AxisPlacement, Shard } from "../mesh/index.ts";
import type { Shape } from "../tensor/index.ts";

/**
 * A dim that is cut: where it lies in each input and output. Undefined: the input or output does not
 * have it, and is replicated.
 */
export interface Cut {
  readonly inputs: readonly (number | undefined)[];
  readonly outputs: readonly (number | "partial" | "partial max" | undefined)[];
  readonly local?: Division["local"];
}

/** The divisions that cut a dim, one for each proportion of sections that its sizes allow. */
export function along(context: DivisionContext, { inputs, outputs, local }: Cut): Division[] {
  const { proportions, ranks } = context;
  return proportions.flatMap((proportion): Division[] => {
    const on = (dim: number | undefined, shape: Shape) =>
      dim === undefined ? undefined : sectioned(dim, shape[dim] as number, proportion, ranks);
    const read = inputs.map((dim, index) => on(dim, context.inputs[index]?.shape ?? []));
    const made = outputs.map((dim, index) =>
      typeof dim === "string" ? dim : on(dim, context.outputs[index]?.shape ?? []),
    );
    const isPossible = [...read, ...made].every((placed) => placed !== "impossible");
    if (!isPossible) return [];
    return [divisionOf(read as Division["inputs"], made as Division["outputs"], local)];
  });
}

export function divisionOf(
  inputs: Division["inputs"],
  outputs: Division["outputs"],
  local?: Division["local"],
): Division {
  return local === undefined ? { inputs, outputs } : { inputs, outputs, local };
}

/** A dim in sections of a proportion, each of which is cut evenly among the ranks. */
export function sectioned(
  dim: number,
  size: number,
  proportion: readonly number[],
  ranks: number,
): Shard | "impossible" {
  const sections = sectionSizes(size, proportion);
  const isEven = sections.every((own) => own > 0 && own % ranks === 0);
  if (!isEven) return "impossible";
  return shardIn(dim, sections);
}

/** A dim in these sections; of one section, the whole dim. */
export function shardIn(dim: number, sections: readonly number[]): Shard {
  return sections.length === 1 ? { shard: dim } : { shard: dim, sections };
}

/**
 * In which sections a dim can be cut of which an operator takes a range, or to which it adds one: the
 * range begins and ends between sections. First the fewest there are, then those of proportions.
 * @param sizes before the range, of the range, behind it
 */
export function rangeSections(
  { proportions, ranks }: DivisionContext,
  sizes: readonly [before: number, range: number, behind: number],
): { readonly whole: readonly number[]; readonly within: readonly number[] }[] {
  const [before, range] = sizes;
  const size = sizes.reduce((sum, own) => sum + own, 0);
  const fewest = sizes.filter((own) => own > 0);
  const ways = [fewest, ...proportions.map((proportion) => sectionSizes(size, proportion))];
  const known = new Set<string>();
  return ways.flatMap((whole) => {
    let end = 0;
    const ends = whole.map((own) => (end += own));
    const isBetween = (place: number) => place === 0 || ends.includes(place);
    const isEven = whole.every((own) => own > 0 && own % ranks === 0);
    const isNew = !known.has(whole.join());
    known.add(whole.join());
    if (!isNew || !isEven || !isBetween(before) || !isBetween(before + range)) return [];
    const within = whole.filter((_, at) => {
      const place = ends[at] as number;
      return place > before && place <= before + range;
    });
    return [{ whole, within }];
  });
}

/** The sizes of the sections of a dim. */
export function sectionSizes(size: number, proportion: readonly number[]): number[] {
  const total = proportion.reduce((sum, share) => sum + share, 0);
  return proportion.map((share) => (share * size) / total);
}

/** The same for those who look for what is possible; undefined where it is not. */
export function sectionedDim(...of: Parameters<typeof sectioned>): Shard | undefined {
  const on = sectioned(...of);
  return on === "impossible" ? undefined : on;
}

/** A dim in sections of each proportion that is possible. */
export function sectionedWays(
  { proportions, ranks }: DivisionContext,
  dim: number,
  size: number,
): Shard[] {
  return proportions.flatMap((proportion) => sectionedDim(dim, size, proportion, ranks) ?? []);
}

/** Each element of the outputs for itself, from inputs that are broadcast: any dim can be cut. */
export function byElement(context: DivisionContext): Division[] {
  const shape = context.outputs[0]?.shape ?? [];
  return shape.flatMap((size, dim) =>
    along(context, {
      inputs: context.inputs.map((input) => alignedDim(input?.shape, shape.length, dim, size)),
      outputs: context.outputs.map(() => dim),
    }),
  );
}

/** The dim of an operand that broadcasts to `dim` of a result; undefined where it repeats. */
export function alignedDim(
  shape: Shape | undefined,
  rank: number,
  dim: number,
  size: number,
): number | undefined {
  const own = dim - rank + (shape?.length ?? 0);
  return own >= 0 && shape?.[own] === size && size > 1 ? own : undefined;
}

/**
 * Input 0 is mapped to outputs of its rank, and the other inputs are replicated: any dim can be cut
 * but for those along which elements depend on each other.
 */
export function exceptAlong(context: DivisionContext, dims: readonly number[]): Division[] {
  const { shape } = context.input(0);
  return shape.flatMap((_, dim) => {
    if (dims.includes(dim)) return [];
    return along(context, {
      inputs: context.inputs.map((__, index) => (index === 0 ? dim : undefined)),
      outputs: context.outputs.map(() => dim),
    });
  });
}

/**
 * A sum of what an operator makes of terms is what it makes of the sum, in some of its inputs: in
 * all of them together, in each while the others are constant, or in the first while the others
 * are.
 */
export function linearDivisions(
  context: Pick<DivisionContext, "inputs" | "outputs">,
  how: "together" | "each" | "first",
): Division[] {
  const outputs: AxisPlacement[] = context.outputs.map(() => "partial");
  if (how === "together")
    return [
      divisionOf(
        context.inputs.map(() => "partial"),
        outputs,
      ),
    ];
  const [first, ...others] = context.inputs.keys();
  const sources = how === "first" ? [first as number] : [first as number, ...others];
  return sources.map((source) =>
    divisionOf(
      context.inputs.map((_, index) => (index === source ? "partial" : undefined)),
      outputs,
    ),
  );
}

/** Local: the same operator, where a list of sizes is input `index`: those of what a rank makes. */
export function withSizes(index: number): (context: LocalContext) => readonly Value[] {
  return ({ inputs, outputs, builder, again }) =>
    again(
      inputs.map((value, at) => (at === index ? builder.ints(outputs[0]?.shape ?? []) : value)),
    );
}
