/**
 * Plans which weights of a file are trained: from what the file says or leaves open, and from what
 * its user says.
 */
import { LockstepError } from "../errors.ts";
import type { OnnxFile } from "../onnx/index.ts";
import { elementCount, type Tensor, toNumbers } from "../tensor/index.ts";
import { operationOf, replacedBuffers, signatureOf } from "./exported.ts";
import { guessWeights } from "./guess.ts";
import { PROJECTION } from "./recurrent.ts";
import { restoreWeights } from "./restore.ts";
import { statisticNames } from "./statistics.ts";
import { list, type Weight, type WeightPlan } from "./weights.ts";

/** The weights to train: selected by name, or `true` for all parameters of the model. */
export type Trainable = true | RegExp | ((name: string, tensor: Tensor) => boolean);

/** The roles of the weights of a file, by its signature or by a guess. */
export function planWeights(file: OnnxFile): WeightPlan {
  const signature = signatureOf(file.model.graph);
  // Other tools keep the signature and remove the records of the nodes.
  const isKept = file.model.graph.node.some((node) => operationOf(node) !== undefined);
  const plan =
    signature === undefined || !isKept ? guessWeights(file) : restoreWeights(file, signature);
  const tensors = new Map(plan.graph.initializer.map((raw) => [raw.name, raw]));
  const weights = new Map(plan.weights);
  const kinds = new Map([...(signature?.values() ?? [])].map(({ target, kind }) => [target, kind]));
  for (const weight of kinds.size > 0 ? plan.weights.values() : []) {
    const kind = kinds.get(weight.name);
    const isOther = kind === "buffer" || (kind === undefined && weight.unclear === true);
    if (!isOther || weight.role !== "parameter") continue;
    weights.set(weight.name, {
      ...weight,
      role: "constant",
      why: "not a parameter by the signature",
    });
  }
  const notices = [...plan.notices];
  for (const name of statisticNames(plan.graph, true)) {
    const weight = weights.get(name);
    if (weight === undefined) continue;
    weights.set(name, { ...weight, role: "statistic", why: "a running statistic" });
  }
  for (const weight of plan.weights.values()) {
    const raw = tensors.get(weight.name);
    if (weight.role !== "parameter" || raw === undefined) continue;
    if (!isTableOfSines(file.tensor(raw))) continue;
    weights.set(weight.name, {
      ...weight,
      role: "constant",
      why: "a table of sines",
      unclear: true,
    });
    notices.push(
      `${weight.name} is a table of sines, like fixed positions: it stays constant. Name it in trainable to train it.`,
    );
  }
  const gradients = [...plan.gradients, ...lostUpdates(file, plan)];
  return { ...plan, weights, notices, gradients };
}

/** A sentence about buffers that the module updates in training mode, and this run does not. */
function lostUpdates({ model }: OnnxFile, { graph }: WeightPlan): readonly string[] {
  const updated = statisticNames(graph, false);
  const lost = replacedBuffers(model.graph).filter(
    (name) => !updated.has(name) && !name.endsWith("num_batches_tracked"),
  );
  if (lost.length === 0) return [];
  return [
    `The module updates buffers whenever it runs, which its file does not do: ${list(lost)}. They stay as they are there, ` +
      `so what follows from them differs from PyTorch's after the first step.`,
  ];
}

/**
 * Whether a tensor is a table of sines and cosines (Vaswani et al. 2017): half of position 0 is
 * zeros and half is ones; the next position has neither.
 */
function isTableOfSines({ dtype, shape, bytes }: Tensor): boolean {
  const [rows = 0, columns = 0] = shape;
  if (shape.length !== 2 || rows < 2 || columns < 2 || columns % 2 === 1) return false;
  const width = bytes.byteLength / elementCount(shape);
  const row = (at: number) => {
    const part = bytes.subarray(at * columns * width, (at + 1) * columns * width);
    return toNumbers({ dtype, shape: [columns], bytes: part });
  };
  const [first, second] = [row(0), row(1)];
  const ones = first.filter((value) => value === 1).length;
  const zeros = first.filter((value) => value === 0).length;
  const squares = second.reduce((sum, value) => sum + value * value, 0);
  const isOnCircles = Math.abs(squares - columns / 2) < 1e-3 * columns;
  return ones === columns / 2 && zeros === ones && isOnCircles && second.some((v) => v % 1 !== 0);
}

/** Returns whether a weight is trained. `tensor` has the form that it has in the file. */
export function chooser(
  trainable: Trainable | undefined,
): (weight: Weight, tensor: Tensor) => boolean {
  return (weight, tensor) => {
    if (trainable === undefined || weight.role === "statistic") return false;
    if (weight.role === "constant" && weight.unclear !== true) return false;
    if (trainable === true) return weight.role === "parameter";
    return namesOf(weight).some((name) => matches(trainable, name, tensor));
  };
}

function matches(trainable: Exclude<Trainable, true>, name: string, tensor: Tensor): boolean {
  return typeof trainable === "function" ? trainable(name, tensor) : name.search(trainable) >= 0;
}

function namesOf({ name, given, ties, module = "" }: Weight): readonly string[] {
  return [...new Set([name, given, module, ...ties])].filter((text) => text !== "");
}

/**
 * Refuses a model if parameters that are to be trained were merged into constants.
 * @throws ONNX_UNSUPPORTED naming them
 */
export function checkLost(file: OnnxFile, { lost }: WeightPlan, trainable: Trainable): void {
  const none: Tensor = { dtype: "float32", shape: [0], bytes: new Uint8Array(0) };
  const wanted = lost.filter((name) => trainable === true || matches(trainable, name, none));
  if (wanted.length === 0) return;
  const shown = wanted.slice(0, 5).join(", ");
  if (wanted.some((name) => PROJECTION.test(name))) {
    throw new LockstepError(
      "ONNX_UNSUPPORTED",
      `${file.name}: PyTorch's exporter left out projections of an LSTM (${shown}), so the file computes something else.`,
      { hint: "Make the LSTM without proj_size.", fields: { file: file.name } },
    );
  }
  throw new LockstepError(
    "ONNX_UNSUPPORTED",
    `${file.name}: the exporter computed constants from the parameters ${shown}` +
      `${wanted.length > 5 ? ` and ${wanted.length - 5} more` : ""}, so they are not in the file and cannot be trained.`,
    {
      hint:
        "Export the model with torch.onnx.export(..., dynamo=True, optimize=False), or leave them out with " +
        "trainable: (name) => ….",
      fields: { file: file.name },
    },
  );
}

/**
 * One line that says what is trained: `trains 42 tensors (11.2 M), 3 constants, 1 tie:
 * lm_head.weight = wte.weight`. `trained` has the names and the numbers of elements.
 */
export function summarizeWeights(
  { weights }: WeightPlan,
  trained: readonly (readonly [name: string, elements: number])[],
): string {
  const elements = trained.reduce((sum, [, count]) => sum + count, 0);
  const names = new Set(trained.map(([name]) => name));
  const all = [...weights.values()];
  const rest = all.filter(({ name }) => !names.has(name));
  const frozen = rest.filter(({ role }) => role === "parameter").length;
  const statistics = rest.filter(({ role }) => role === "statistic").length;
  const ties = all.flatMap(({ name, ties: others }) =>
    names.has(name) ? others.map((tie) => `${tie} = ${name}`) : [],
  );
  const shown = ties.length > 3 ? `${ties.slice(0, 3).join(", ")}, …` : ties.join(", ");
  return [
    `trains ${plural(trained.length, "tensor")} (${quantity(elements)})`,
    ...(frozen > 0 ? [`${plural(frozen, "parameter")} frozen`] : []),
    plural(rest.length - frozen - statistics, "constant"),
    ...(statistics > 0 ? [plural(statistics, "running statistic")] : []),
    ...(ties.length > 0 ? [`${plural(ties.length, "tie")}: ${shown}`] : []),
  ].join(", ");
}

function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

/** Formats a number as `11.2 M`. */
function quantity(value: number): string {
  if (value < 1000) return String(value);
  const [divisor, prefix] = value < 1e6 ? [1e3, "k"] : value < 1e9 ? [1e6, "M"] : [1e9, "G"];
  return `${(value / divisor).toPrecision(3)} ${prefix}`;
}
