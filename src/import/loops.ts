/**
 * Unrolls Loop and Scan. Shapes are static, so a loop with a known number of iterations is its body
 * repeated that many times. Each iteration sees the values around the loop; weights inside of the
 * body exist once.
 */
import type { Value } from "../graph/index.ts";
import type { RawGraph } from "../onnx/index.ts";
import { dtypeFromOnnx, normalizeDim, scalar, tensorFrom, toNumbers } from "../tensor/index.ts";
import { ruleContext } from "./context.ts";
import type { NodeImporter } from "./node-importer.ts";
import type { Scope } from "./scope.ts";
import type { ImportNode, RuleContext } from "./upgrade/index.ts";

/** A loop in a file, with its inputs resolved. */
export interface LoopNode extends ImportNode {
  readonly body: RawGraph;
}

/** More iterations than any model has; a loop without a bound is stopped here. */
const MAX_ROUNDS = 10_000;

/**
 * The results of `Loop` or `Scan`. Throws ONNX_UNSUPPORTED where the number of rounds depends on
 * data.
 */
export function writeOut(
  importer: NodeImporter,
  node: LoopNode,
  scope: Scope,
): readonly (Value | undefined)[] {
  const context = ruleContext(importer, node);
  const rounds = new Rounds(importer, node, scope);
  return node.op === "Loop" ? loop(context, rounds, node) : scan(context, rounds, node);
}

/** Runs the body once for each call. */
class Rounds {
  readonly #importer: NodeImporter;
  readonly #node: LoopNode;
  readonly #shared: Scope;
  #count = 0;

  constructor(importer: NodeImporter, node: LoopNode, scope: Scope) {
    this.#importer = importer;
    this.#node = node;
    this.#shared = scope.branch(`${node.name}/`);
    importer.graph({ ...node.body, node: [] }, this.#shared);
  }

  run(inputs: readonly Value[]): Value[] {
    const { body, name } = this.#node;
    if (inputs.length !== body.input.length) {
      this.#importer.fail(`its body takes ${body.input.length} values, not ${inputs.length}`);
    }
    const scope = this.#shared.branch(`${name}/${this.#count++}/`);
    for (const [index, value] of inputs.entries()) {
      scope.define(body.input[index]?.name ?? "", value);
    }
    this.#importer.nodes(body.node, scope);
    return body.output.map(
      ({ name: output }) =>
        scope.find(output) ?? this.#importer.fail(`no node in its body computes "${output}"`),
    );
  }
}

/**
 * Inputs: the maximum number of iterations, the initial condition, and the carried values. Outputs:
 * the carried values, and the body's other results by iteration.
 */
function loop(context: RuleContext, rounds: Rounds, node: LoopNode): readonly Value[] {
  const { builder, fail } = context;
  const [limit, first, ...initial] = node.inputs;
  const most = limit === undefined ? Infinity : known(context, limit, "its number of rounds");
  let goesOn = first === undefined || known(context, first, "whether it has a first round") !== 0;
  let carried = initial as Value[];
  const collected: Value[][] = [];
  const yes = builder.constant(scalar("bool", 1));
  for (let round = 0; goesOn && round < most; round++) {
    if (round >= MAX_ROUNDS) fail(`a loop of more than ${MAX_ROUNDS} rounds`);
    const [next, ...results] = rounds.run([builder.scalar("int64", round), yes, ...carried]);
    goesOn = known(context, next as Value, "whether it goes on after a round") !== 0;
    carried = results.slice(0, initial.length);
    collected.push(results.slice(initial.length));
  }
  const more = node.body.output.length - 1 - initial.length;
  const series = Array.from({ length: Math.max(0, more) }, (_, index) => {
    const values = collected.map((results) => results[index] as Value);
    return values.length > 0
      ? stacked(context, values, 0)
      : nothing(context, node, 1 + initial.length + index);
  });
  return [...carried, ...series];
}

/**
 * Inputs: the carried values, and tensors that are split along an axis, one piece for each
 * iteration.
 */
function scan(context: RuleContext, rounds: Rounds, node: LoopNode): readonly Value[] {
  const { int, ints, fail } = context;
  if (node.opset < 9) {
    fail("Scan of operator sets before 9", "Export the model with a newer operator set.");
  }
  const count = int("num_scan_inputs", 1);
  const states = node.inputs.length - count;
  let carried = node.inputs.slice(0, states) as Value[];
  const setting = (name: string, index: number) => ints(name)?.[index] ?? 0;
  const pieces = node.inputs.slice(states).map((value, index) => {
    const own = cut(context, value as Value, setting("scan_input_axes", index));
    return setting("scan_input_directions", index) === 0 ? own : own.toReversed();
  });
  const [length = 0] = pieces.map((own) => own.length);
  if (pieces.some((own) => own.length !== length)) fail("its inputs have different lengths");
  if (length > MAX_ROUNDS) fail(`a scan of more than ${MAX_ROUNDS} rounds`);
  const collected: Value[][] = [];
  for (let round = 0; round < length; round++) {
    const results = rounds.run([...carried, ...pieces.map((own) => own[round] as Value)]);
    carried = results.slice(0, states);
    collected.push(results.slice(states));
  }
  const series = (collected[0] ?? []).map((_, index) => {
    const values = collected.map((results) => results[index] as Value);
    const ordered = setting("scan_output_directions", index) === 0 ? values : values.toReversed();
    return stacked(context, ordered, setting("scan_output_axes", index));
  });
  return [...carried, ...series];
}

/** A number that decides how often the body runs. */
function known({ builder, fail }: RuleContext, value: Value, what: string): number {
  const tensor = builder.constantOf(value);
  if (tensor !== undefined) return toNumbers(tensor)[0] ?? 0;
  return fail(
    `${what} depends on data`,
    "Loops are unrolled, so their number of rounds must follow from shapes: export a loop that always runs the maximum number of rounds, and choose results with Where.",
  );
}

/**
 * One piece for each index along `axis`, without that dim. It is made by Split, whose gradient is a
 * single Concat.
 */
function cut({ emit, one, builder, fail }: RuleContext, x: Value, axis: number): Value[] {
  const dim = normalizeDim(axis, x.shape.length) ?? fail(`axis ${axis} is out of range`);
  const size = x.shape[dim] as number;
  if (size === 0) return fail("an input without elements to scan");
  const sizes = builder.ints(new Array<number>(size).fill(1));
  const pieces = size === 1 ? [x] : emit("Split", [x, sizes], { axis: dim }, size);
  return pieces.map((piece) => one("Squeeze", [piece, builder.ints([dim])]));
}

/** Stacks the values of all iterations along a new dim. */
function stacked({ one, builder, fail }: RuleContext, values: readonly Value[], axis: number) {
  const rank = (values[0]?.shape.length ?? 0) + 1;
  const dim = normalizeDim(axis, rank) ?? fail(`axis ${axis} is out of range`);
  const rows = values.map((value) => one("Unsqueeze", [value, builder.ints([dim])]));
  return rows.length === 1 ? (rows[0] as Value) : one("Concat", rows, { axis: dim });
}

/**
 * The stacked result of a loop without an iteration: no rows, of the type that its body declares.
 */
function nothing({ builder, fail }: RuleContext, node: LoopNode, index: number): Value {
  const type = node.body.output[index]?.type?.tensorType;
  const dtype = type && dtypeFromOnnx(type.elemType);
  const sizes = type?.shape?.dim.map(({ dimValue }) => dimValue);
  if (dtype === undefined || sizes === undefined || sizes.includes(undefined)) {
    return fail("it has no rounds, and its body does not declare the type of a result");
  }
  return builder.constant(tensorFrom(dtype, [0, ...(sizes as number[])], []));
}
