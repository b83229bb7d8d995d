/**
 * Tensor parallelism: the ranks of an axis divide the matrices of the model among them, and with
 * them the work of a micro-batch. Which dim of which matrix is cut, and where ranks exchange what,
 * follows from what each operator says of itself and from costs (`sharding/`). For a transformer it
 * finds what Shoeybi et al., "Megatron-LM", 2019, wrote by hand.
 */
import { LockstepError } from "../errors.ts";
import { type Graph, typeOf } from "../graph/index.ts";
import { type AxisPlacement, axisOf, isShard, type Mesh } from "../mesh/index.ts";
import { type DividedOver, sectionedDim } from "../ops/index.ts";
import {
  type ComputeTask,
  forwardNodes,
  GRADIENT,
  isPiece,
  type StepGraph,
  valueName,
  valueOf,
} from "../plan/index.ts";
import { byteLength, type TensorType } from "../tensor/index.ts";
import { cutsIn } from "./devices.ts";
import { checkTotals } from "./first-totals.ts";
import { isUpdatedWhole, placedValues, valueOfInput } from "./placed.ts";
import type { RankSpeed } from "./sharding/costs.ts";
import { type DividedPass, dividePass, divisionIn, SPEED } from "./sharding/divide.ts";
import type { GraphDivision } from "./sharding/localize.ts";
import { proportionsIn } from "./sharding/proportions.ts";
import { type Choice, reduced, type SolveOptions } from "./sharding/solve.ts";
import type { Strategy } from "./strategy.ts";

/**
 * The seconds that a byte of a matrix counts which all ranks hold. Whoever asks for a division wants
 * each rank to hold a part, whatever time it takes.
 */
const SECONDS_PER_HELD_BYTE = 1e-6;

export interface TensorOptions {
  /** The axis of the mesh. Default: `tensor`. */
  readonly axis?: string;
  readonly speed?: RankSpeed;
}

export function tensor({ axis = "tensor", speed = SPEED }: TensorOptions = {}): Strategy {
  return {
    name: `tensors divided over "${axis}"`,
    rewrite(step, mesh) {
      const ranks = axisOf(mesh, axis).size;
      const [pass, ...others] = step.tasks.filter(isPiece);
      if (ranks === 1 || pass === undefined) return step;
      if (others.length > 0) {
        throw new LockstepError(
          "INVALID_OPTION",
          `A pass that is in pieces already cannot be divided over "${axis}".`,
          { hint: "Put tensor parallelism before the strategies that cut the pass." },
        );
      }
      checkTotals(step, "parallel: tensor");
      const { graph, division } = divided(step, pass, { axis, ranks, speed });
      const { inputs } = division;
      const placed = new Map(
        [...inputs].map(([name, on]) => [valueOfInput(step, pass, name), on] as const),
      );
      return {
        ...step,
        values: placedValues(step, placed, axis),
        graphs: new Map(step.graphs).set(GRADIENT, graph),
      };
    },
  };
}

/** How the ranks of an axis divide the pass of a step. Undefined: they do not. */
export function tensorDivision(
  step: StepGraph,
  mesh: Mesh,
  { axis = "tensor", speed = SPEED }: TensorOptions = {},
): GraphDivision | undefined {
  const ranks = mesh.axes.find(({ name }) => name === axis)?.size ?? 1;
  const [pass] = step.tasks.filter(isPiece);
  if (ranks === 1 || pass === undefined) return undefined;
  const graph = step.graphs.get(pass.graph) as Graph;
  return divisionIn(graph, divided(step, pass, { axis, ranks, speed }));
}

interface Over {
  readonly axis: string;
  readonly ranks: number;
  readonly speed: RankSpeed;
}

/** What the ranks of an axis run, and how they hold the values of the pass. */
function divided(step: StepGraph, pass: ComputeTask, of: Over): DividedPass {
  const whole = step.graphs.get(pass.graph) as Graph;
  const options = optionsOf(step, pass, whole, of);
  return dividePass(whole, of.speed, tiedChoices(step, pass, whole, options));
}

function optionsOf(
  step: StepGraph,
  pass: ComputeTask,
  graph: Graph,
  { axis, ranks }: Over,
): SolveOptions {
  const given = cutsIn(step.devices, ranks);
  const proportions = [...proportionsIn(graph), ...proportionsOf(given?.on.values() ?? [])];
  const over: DividedOver = { axis, ranks, proportions };
  const inputs = new Map<string, readonly Choice[]>();
  for (const name of graph.inputs) {
    const { role, of } = valueOf(step, valueOfInput(step, pass, name));
    const isWhole = role !== "parameter" || isUpdatedWhole(step, of);
    const on = role === "parameter" ? given?.on.get(of) : undefined;
    if (isWhole && on !== undefined) throw notDivisible(of, given?.by ?? "");
    const isGiven = role === "parameter" && given?.on.has(of) === true;
    const choices =
      isWhole || isGiven ? [{ on, seconds: 0 }] : choicesOf(typeOf(graph, name), over);
    inputs.set(name, choices);
  }
  const outputs = new Map(
    graph.outputs.map((name, index) => {
      const { role, of } = valueOf(step, pass.outputs[index] as string);
      const like = graph.inputs.find(
        (input) => valueOfInput(step, pass, input) === valueName("parameter", of),
      );
      const wish = role === "gradient" && like !== undefined ? { like } : { on: undefined };
      return [name, wish] as const;
    }),
  );
  return { over, inputs, outputs };
}

/** The proportions of sections that are given. */
function proportionsOf(given: Iterable<AxisPlacement | undefined>): DividedOver["proportions"] {
  return [...given].flatMap((on) => (isShard(on) && on.sections ? [reduced(on.sections)] : []));
}

function notDivisible(parameter: string, by: string): LockstepError {
  return new LockstepError(
    "INVALID_OPTION",
    `${by} cuts "${parameter}", but its optimizer updates whole matrices.`,
    { hint: "Leave its sharding out of the file, or use another optimizer." },
  );
}

/** More ways to hold tied parameters than this are not tried. */
const MOST_TRIED = 6;

/**
 * What is read at two distant places of the forward pass, such as an embedding that is the head, too:
 * a search that goes from place to place would forget how it is held. So each way is tried.
 */
function tiedChoices(
  step: StepGraph,
  pass: ComputeTask,
  graph: Graph,
  options: SolveOptions,
): SolveOptions[] {
  const forward = forwardNodes(step, pass);
  const isTied = (name: string) => forward.filter(({ inputs }) => inputs.includes(name)).length > 1;
  const tied = graph.inputs.filter(
    (name) => (options.inputs.get(name)?.length ?? 0) > 2 && isTied(name),
  );
  return tied.reduce<SolveOptions[]>(
    (all, name) => {
      const choices = (options.inputs.get(name) ?? []).filter(({ on }) => isOneSection(on));
      if (choices.length === 0 || all.length * choices.length > MOST_TRIED) return all;
      return all.flatMap((own) =>
        choices.map((choice) => ({ ...own, inputs: new Map(own.inputs).set(name, [choice]) })),
      );
    },
    [options],
  );
}

function isOneSection(on: AxisPlacement | undefined): boolean {
  return isShard(on) && on.sections === undefined;
}

function choicesOf(type: TensorType, over: DividedOver): Choice[] {
  const kept = type.shape.length < 2 ? 0 : byteLength(type) * (1 - 1 / over.ranks);
  const cuts = type.shape.flatMap((_, dim) =>
    over.proportions.flatMap((proportion) => {
      const on = sectionedDim(dim, type.shape[dim] as number, proportion, over.ranks);
      return on === undefined ? [] : [{ on, seconds: 0 }];
    }),
  );
  return [...cuts, { on: undefined, seconds: kept * SECONDS_PER_HELD_BYTE }];
}
