/**
 * Writes the plan of a run as an ONNX file with multi-device annotations, which Netron and other
 * tools show, and which can be edited and followed (`withDevices`). The graph is the one that is
 * trained, with its loss, at the size of a micro-batch, and not that of `model.onnx`: dropout and
 * normalization are other nodes there, and a sharding is one of tensors whose sizes are known.
 */
import type { Device } from "../engine/index.ts";
import { LockstepError } from "../errors.ts";
import { type Division, type Graph, type Node, typeOf } from "../graph/index.ts";
import {
  type AxisPlacement,
  formatMesh,
  isSampleAxis,
  isShard,
  type Mesh,
  type MeshAxis,
  PIPELINE,
} from "../mesh/index.ts";
import type { Model } from "../nn/index.ts";
import {
  type DeviceAnnotations,
  type RawNodeDevices,
  type RawShardingSpec,
  specOf,
  writeModel,
} from "../onnx/index.ts";
import { expertDivision, tensorDivision } from "../parallel/index.ts";
import { isPiece, type StepGraph, stageRanks } from "../plan/index.ts";
import type { Tensor } from "../tensor/index.ts";
import { initialTensors } from "../train/index.ts";
import { bindWeights } from "./forward.ts";
import { type PlanOptions, planRank } from "./plan.ts";
import type { Run } from "./run.ts";

export interface PlanFileOptions {
  readonly file: string;
  /** It draws the first values of weights, which the file contains. */
  readonly engine: Device;
}

/**
 * @returns what was written, in sentences
 * @throws INVALID_OPTION for a run whose workers do not divide the model, and as `describePlan` does
 */
export async function writePlan(
  run: Run,
  options: PlanOptions,
  { file, engine }: PlanFileOptions,
): Promise<string[]> {
  const { model, parallel, alone, step } = planRank(run, options);
  const axes = parallel.mesh.axes.filter(({ name, size }) => !isSampleAxis(name) && size > 1);
  if (axes.length === 0) {
    throw new LockstepError(
      "INVALID_OPTION",
      `There is no plan to write to ${file}: each worker computes whole micro-batches, so nothing of the model is divided.`,
      { hint: "State what divides it, such as --parallel tensor=2 or --parallel pipeline=2." },
    );
  }
  const weights: Record<string, Tensor> = {};
  for await (const [name, tensor] of initialTensors({ engine, model, seed: run.seed })) {
    weights[name] = { ...tensor, bytes: Uint8Array.from(tensor.bytes) };
  }
  const annotations = new Annotations({ axes, mesh: parallel.mesh, model, alone, step });
  await writeModel(file, bindWeights(model.graph, weights), {
    valueTypes: true,
    devices: annotations.all(),
    metadata: { "lockstep.plan": parallel.reason },
  });
  return annotations.told(file);
}

interface Planned {
  /** Those that divide the model, in the order of the mesh. */
  readonly axes: readonly MeshAxis[];
  readonly mesh: Mesh;
  readonly model: Model;
  readonly alone: StepGraph;
  readonly step: StepGraph;
}

/** How the workers of an axis divide tensors, of the axes of which that is written. */
const DIVISIONS: Readonly<Record<string, typeof tensorDivision>> = {
  tensor: tensorDivision,
  expert: expertDivision,
};

class Annotations {
  readonly #axes: readonly MeshAxis[];
  readonly #graph: Graph;
  readonly #parameters: ReadonlySet<string>;
  /** The nodes of the pass, by their first output. */
  readonly #passNodes = new Map<string, Node>();
  readonly #division: ReadonlyMap<Node, Division>;
  readonly #stages: ReadonlyMap<string, number>;
  /** By stage: its place on the axis of the pipeline. */
  readonly #stageRanks: readonly number[];
  readonly #name: string;
  /** Axes along which tensors are cut in ways that are not written. */
  readonly #leftOut: readonly string[];
  #nodes = 0;
  readonly #left = new Set<string>();
  readonly #cut = new Set<string>();

  constructor({ axes, mesh, model, alone, step }: Planned) {
    this.#axes = axes;
    this.#graph = model.graph;
    this.#parameters = new Set(model.parameters.map(({ name }) => name));
    this.#name = formatMesh({ axes, size: axes.reduce((all, { size }) => all * size, 1) });
    for (const { graph } of alone.tasks.filter(isPiece)) {
      for (const node of alone.graphs.get(graph)?.nodes ?? []) {
        this.#passNodes.set(firstOutput(node), node);
      }
    }
    const cutting = axes.map(({ name }) => name).filter((name) => name !== PIPELINE);
    const [first = "tensor", ...others] = cutting;
    const divisionOf = DIVISIONS[first];
    // Of several axes, one divides what another has left.
    const isKnown = divisionOf !== undefined && others.length === 0;
    this.#leftOut = isKnown ? [] : cutting;
    this.#division = (isKnown ? divisionOf(alone, mesh)?.nodes : undefined) ?? new Map();
    this.#stages = stagesOf(step);
    const { pipeline } = step;
    const ranks = axes.find(({ name }) => name === pipeline?.axis)?.size ?? 1;
    this.#stageRanks = pipeline === undefined ? [] : stageRanks(pipeline.schedule, ranks);
  }

  all(): DeviceAnnotations {
    const all = [...places(this.#axes)];
    const names = all.map((at) => this.#axes.map(({ name }, i) => `${name} ${at[i]}`).join(", "));
    const of = new Map(this.#graph.nodes.map((node) => [node, this.#node(node)]));
    this.#nodes = [...of.values()].filter((found) => found !== undefined).length;
    return {
      configurations: [{ name: this.#name, numDevices: all.length, device: names }],
      of: (node) => {
        const found = of.get(node);
        return found === undefined ? [] : [found];
      },
    };
  }

  told(file: string): string[] {
    const { nodes } = this.#graph;
    const cut = [...this.#cut].filter((name) => this.#parameters.has(name)).length;
    const lines = [
      `Wrote ${file} ("${this.#name}"): ${this.#nodes} of ${nodes.length} nodes are annotated` +
        (this.#division.size === 0
          ? "."
          : `, and ${cut} of ${this.#parameters.size} parameters are cut.`),
    ];
    if (this.#nodes < nodes.length) {
      lines.push("The other nodes are not part of what workers compute for a micro-batch.");
    }
    if (this.#leftOut.length > 0) {
      lines.push(
        `How tensors are cut along ${this.#leftOut.join(" and ")} is left out of the file.`,
      );
    }
    if (this.#left.size > 0) {
      lines.push(
        `For ${this.#left.size} tensors the file says nothing, because ONNX has no words for what workers hold: terms of a sum, or a dim in more than 4,096 pieces.`,
      );
    }
    return lines;
  }

  /** What is said of a node; undefined for one that is not in the pass. */
  #node(node: Node): RawNodeDevices | undefined {
    const own = this.#passNodes.get(firstOutput(node));
    if (own === undefined || !isSame(own, node)) return undefined;
    const division = this.#division.get(own);
    const stage = this.#stages.get(firstOutput(node));
    if (stage === undefined && this.#axes.some(({ name }) => name === PIPELINE)) return undefined;
    const devices = this.#devicesOf(stage);
    const specs = new Map<string, RawShardingSpec | undefined>();
    const add = (name: string, on: AxisPlacement | undefined) => {
      if (name === "" || this.#graph.constants.has(name) || this.#leftOut.length > 0) return;
      const spec = this.#spec(name, on, devices);
      if (spec === undefined) this.#left.add(name);
      // A tensor that a node reads in two ways has no one spec.
      const known = specs.has(name) ? specs.get(name) : spec;
      specs.set(name, JSON.stringify(known) === JSON.stringify(spec) ? spec : undefined);
    };
    for (const [at, name] of node.inputs.entries()) add(name, division?.inputs[at]);
    for (const [at, name] of node.outputs.entries()) add(name, division?.outputs[at]);
    return {
      configurationId: this.#name,
      shardingSpec: [...specs.values()].flatMap((spec) => spec ?? []),
      pipelineStage: stage,
    };
  }

  #spec(name: string, on: AxisPlacement | undefined, devices: readonly number[]) {
    const { shape } = typeOf(this.#graph, name);
    if (on === undefined) return specOf(name, shape, undefined, devices);
    if (!isShard(on) || on.shard === "flat") return undefined;
    this.#cut.add(name);
    const { shard: dim, sections } = on;
    const cut = { dim, parts: devices.length, ...(sections && { sections }) };
    return specOf(name, shape, cut, devices);
  }

  /** The devices of a stage, in the order in which they divide matrices. */
  #devicesOf(stage: number | undefined): number[] {
    const rank = stage === undefined ? undefined : this.#stageRanks[stage];
    return [...places(this.#axes)].flatMap((at, device) => {
      const isHere = this.#axes.every(
        ({ name }, i) => name !== PIPELINE || rank === undefined || at[i] === rank,
      );
      return isHere ? [device] : [];
    });
  }
}

/** The places on the axes of each device, the last axis fastest. */
function* places(axes: readonly MeshAxis[]): Generator<readonly number[]> {
  const [first, ...rest] = axes;
  if (first === undefined) return yield [];
  for (let at = 0; at < first.size; at++) for (const others of places(rest)) yield [at, ...others];
}

/** By value that a forward node makes: its stage. */
function stagesOf(step: StepGraph): ReadonlyMap<string, number> {
  const stages = new Map<string, number>();
  for (const { stage, graph } of step.tasks.filter(isPiece)) {
    if (stage?.direction !== "F") continue;
    for (const node of step.graphs.get(graph)?.nodes ?? []) {
      stages.set(firstOutput(node), stage.stage);
    }
  }
  return stages;
}

function firstOutput({ outputs }: Node): string {
  return outputs.find((name) => name !== "") ?? "";
}

function isSame(one: Node, other: Node): boolean {
  if (one === other) return true;
  const text = ({ op, inputs, outputs }: Node) => JSON.stringify([op, inputs, outputs]);
  return text(one) === text(other);
}
