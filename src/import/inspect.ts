/** Inspects a model: its operators, parameters and cost, and what prevents training it. */

import { LockstepError } from "../errors.ts";
import type { GradientRule, Graph } from "../graph/index.ts";
import type { RawGraph, RawNode, RawValueInfo } from "../onnx/index.ts";
import { elementTypeName, type OnnxFile, readModel } from "../onnx/index.ts";
import { flopsOfNode, operatorTable } from "../ops/index.ts";
import { checkOptions } from "../options.ts";
import { bytesPerElement, dtypeFromOnnx, elementCount, isFloat } from "../tensor/index.ts";
import { describeDevices } from "./devices.ts";
import { DIM_OPTIONS, type DimOptions } from "./dims.ts";
import { importGraph } from "./import.ts";
import { describeWeights, type InspectedWeights, inspectWeights } from "./inspect-weights.ts";
import { domainOf } from "./scope.ts";
import { rulesFor } from "./upgrade/index.ts";

export interface Inspection {
  readonly file: string;
  readonly producer: string;
  readonly irVersion: number;
  readonly opsets: Readonly<Record<string, number>>;
  readonly inputs: readonly InspectedValue[];
  readonly outputs: readonly InspectedValue[];
  /** The number of elements and bytes of all weights, and the number of tensors. */
  readonly weights: { readonly tensors: number; readonly elements: number; readonly bytes: number };
  /** What training does with each weight. */
  readonly roles: InspectedWeights;
  /** How devices are to share the model: a line for each configuration. */
  readonly devices: readonly string[];
  /** The operators as they are in the file, the most frequent first. */
  readonly operators: readonly InspectedOperator[];
  /** The operators that are not supported. */
  readonly unknown: readonly string[];
  /** What training would use, if the model can be imported with the given dims. */
  readonly imported: ImportedSummary | undefined;
  /** Outputs that need something unsupported, and why: a loss on other outputs can be trained. */
  readonly leftOut: Readonly<Record<string, string>>;
  /** Why the model cannot be imported. */
  readonly problem: { readonly code: string; readonly message: string } | undefined;
}

export interface InspectedValue {
  readonly name: string;
  readonly dtype: string;
  /** Sizes, names of dims, or `?`; undefined if the file gives no shape. */
  readonly shape: readonly (number | string)[] | undefined;
}

export interface InspectedOperator {
  readonly name: string;
  readonly count: number;
}

export interface ImportedSummary {
  /** The operators that remain after the import, most flops first. */
  readonly operators: readonly (InspectedOperator & {
    /** The floating-point operations of one forward execution; a multiply-add counts as 2. */
    readonly flops: number;
    /** `yes`, `zero` (constant almost everywhere), or the reason why there is none. */
    readonly gradient: string;
  })[];
  readonly flops: number;
  /** The operators without a gradient, with the advice in their definitions. */
  readonly withoutGradient: readonly string[];
}

/**
 * Reads a model for `lockstep inspect`. Dims without a size count as 1. Throws what `readModel`
 * throws.
 */
export function inspectModel(path: string, options: DimOptions = {}): Inspection {
  checkOptions("inspectModel", options, DIM_OPTIONS);
  const file = readModel(path);
  const { model } = file;
  const { graph } = model;
  const operators = count(allNodes(graph, model.functions).map(operatorName));
  const initial = new Set(graph.initializer.map(({ name }) => name));
  return {
    file: path,
    producer: [model.producerName, model.producerVersion].filter((text) => text !== "").join(" "),
    irVersion: model.irVersion,
    opsets: Object.fromEntries(
      model.opsetImport.map(({ domain, version }) => [domainOf(domain) || "ai.onnx", version]),
    ),
    inputs: graph.input.filter(({ name }) => !initial.has(name)).map(inspectValue),
    outputs: graph.output.map(inspectValue),
    weights: weightsOf(graph),
    roles: inspectWeights(file),
    devices: devicesIn(file),
    operators,
    unknown: operators.map(({ name }) => name).filter((name) => !isKnown(file, name)),
    ...importForInspection(file, options),
  };
}

/** Annotations that are wrong are said, and the rest of the file is described. */
function devicesIn(file: OnnxFile): readonly string[] {
  try {
    return describeDevices(file);
  } catch (error) {
    if (!(error instanceof LockstepError)) throw error;
    return [error.message.split("\n")[0] ?? ""];
  }
}

function importForInspection(
  file: OnnxFile,
  options: DimOptions,
): Pick<Inspection, "imported" | "leftOut" | "problem"> {
  const dims: Record<string, number> = {};
  for (const info of file.model.graph.input) {
    for (const { dimParam } of info.type?.tensorType?.shape?.dim ?? []) {
      if (dimParam !== "") dims[dimParam] = 1;
    }
  }
  try {
    const { graph, leftOut } = importGraph(file, {
      partial: true,
      batch: 1,
      ...options,
      dims: { ...dims, ...options.dims },
    });
    const reasons = [...leftOut].map(([name, { message }]) => [name, message.split("\n")[0] ?? ""]);
    return {
      imported: summarize(graph),
      leftOut: Object.fromEntries(reasons),
      problem: undefined,
    };
  } catch (error) {
    if (!(error instanceof LockstepError)) throw error;
    return {
      imported: undefined,
      leftOut: {},
      problem: { code: error.code, message: error.message },
    };
  }
}

function inspectValue(info: RawValueInfo): InspectedValue {
  const tensor = info.type?.tensorType;
  return {
    name: info.name,
    dtype: tensor === undefined ? "not a tensor" : elementTypeName(tensor.elemType),
    shape: tensor?.shape?.dim.map(
      ({ dimValue, dimParam }) => dimValue ?? (dimParam === "" ? "?" : dimParam),
    ),
  };
}

function weightsOf(graph: RawGraph): Inspection["weights"] {
  let tensors = 0;
  let elements = 0;
  let bytes = 0;
  for (const { dims, dataType } of graph.initializer) {
    const dtype = dtypeFromOnnx(dataType);
    if (dtype === undefined || !isFloat(dtype)) continue;
    tensors += 1;
    elements += elementCount(dims);
    bytes += elementCount(dims) * bytesPerElement(dtype);
  }
  return { tensors, elements, bytes };
}

/** The nodes of the graph, of its branches, and of the functions of the file. */
function allNodes(graph: RawGraph, functions: readonly { node: RawNode[] }[]): RawNode[] {
  const inside = (nodes: readonly RawNode[]): RawNode[] =>
    nodes.flatMap((node) => [
      node,
      ...node.attribute.flatMap(({ g, graphs }) =>
        [...(g === undefined ? [] : [g]), ...graphs].flatMap((branch) => inside(branch.node)),
      ),
    ]);
  return [...inside(graph.node), ...functions.flatMap(({ node }) => inside(node))];
}

function operatorName({ domain, opType }: Pick<RawNode, "domain" | "opType">): string {
  return domainOf(domain) === "" ? opType : `${domain}::${opType}`;
}

/** Whether an operator has a definition, a rule, or a function in the file. */
function isKnown(file: OnnxFile, op: string): boolean {
  return (
    ["If", "Loop", "Scan"].includes(op) ||
    operatorTable.find(op) !== undefined ||
    rulesFor(op).length > 0 ||
    file.model.functions.some((item) => operatorName({ ...item, opType: item.name }) === op)
  );
}

function count(names: readonly string[]): InspectedOperator[] {
  const counts = new Map<string, number>();
  for (const name of names) counts.set(name, (counts.get(name) ?? 0) + 1);
  return [...counts]
    .map(([name, times]) => ({ name, count: times }))
    .sort((a, b) => b.count - a.count || (a.name < b.name ? -1 : 1));
}

function summarize(graph: Graph): ImportedSummary {
  const flops = new Map<string, number>();
  for (const node of graph.nodes) {
    flops.set(node.op, (flops.get(node.op) ?? 0) + flopsOfNode(graph, node));
  }
  const operators = count(graph.nodes.map(({ op }) => op))
    .map((operator) => ({
      ...operator,
      flops: flops.get(operator.name) ?? 0,
      gradient: describeGradient(operatorTable.find(operator.name)?.gradient),
    }))
    .sort((a, b) => b.flops - a.flops);
  return {
    operators,
    flops: operators.reduce((sum, operator) => sum + operator.flops, 0),
    withoutGradient: operators
      .filter(({ gradient }) => gradient !== "yes" && gradient !== "zero")
      .map(({ name, gradient }) => `${name}: ${gradient}`),
  };
}

function describeGradient(rule: GradientRule | undefined): string {
  if (rule === undefined) return "no definition";
  if (typeof rule === "function") return "yes";
  return "zero" in rule ? "zero" : rule.missing;
}

/** The inspection as lines for a terminal. */
export function formatInspection(inspection: Inspection): string {
  const { weights, imported, problem } = inspection;
  const roles = describeWeights(inspection.roles);
  const value = ({ name, dtype, shape }: InspectedValue) =>
    `  ${name}: ${dtype}${shape === undefined ? "" : `[${shape.join(", ")}]`}`;
  const opsets = Object.entries(inspection.opsets).map(
    ([domain, version]) => `${domain} ${version}`,
  );
  const lines = [
    inspection.file,
    `  operator sets: ${opsets.join(", ")}; IR version ${inspection.irVersion}; ${inspection.producer === "" ? "unknown producer" : inspection.producer}`,
    "Inputs",
    ...inspection.inputs.map(value),
    "Outputs",
    ...inspection.outputs.map(value),
    `Weights: ${quantity(weights.elements)} in ${weights.tensors} tensors, ${quantity(weights.bytes)}B`,
    roles.title,
    ...table(roles.rows),
    ...roles.lines.map((line) => `  ${line}`),
    ...inspection.devices,
    "Operators in the file",
    ...table(inspection.operators.map(({ name, count: times }) => [name, String(times)])),
  ];
  if (imported !== undefined) {
    lines.push(
      `Operators as trained: ${quantity(imported.flops)}FLOP for a forward pass`,
      ...table([
        ["operator", "nodes", "FLOP", "gradient"],
        ...imported.operators.map(({ name, count: times, flops, gradient }) => [
          name,
          String(times),
          quantity(flops),
          gradient,
        ]),
      ]),
      imported.withoutGradient.length === 0
        ? "Every operator has a gradient."
        : `Without a gradient: ${imported.withoutGradient.join("; ")}`,
    );
  }
  if (inspection.unknown.length > 0) lines.push(`Unknown: ${inspection.unknown.join(", ")}`);
  for (const [name, reason] of Object.entries(inspection.leftOut)) {
    lines.push(`The output ${name} would be left out of training: ${reason}`);
  }
  if (problem !== undefined) lines.push(`Cannot be trained: ${problem.message}`);
  return `${lines.join("\n")}\n`;
}

function table(rows: readonly (readonly string[])[]): string[] {
  const widths = (rows[0] ?? []).map((_, column) =>
    Math.max(...rows.map((row) => row[column]?.length ?? 0)),
  );
  return rows.map((row) =>
    `  ${row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join("  ")}`.trimEnd(),
  );
}

/** Formats a number with an SI prefix: `1.23 M`. */
function quantity(value: number): string {
  const prefixes = ["", "k", "M", "G", "T", "P"];
  let rest = value;
  let at = 0;
  for (; rest >= 1000 && at < prefixes.length - 1; at++) rest /= 1000;
  return `${at === 0 ? rest : rest.toPrecision(3)} ${prefixes[at] ?? ""}`;
}
