/**
 * Reads the multi-device annotations of a file, and checks them: which devices there are, and for
 * each node its pipeline stage and how its tensors lie on devices.
 */
import { LockstepError } from "../errors.ts";
import type { ShardedDim, TensorOnDevices } from "./device-parts.ts";
import type { RawDeviceGroup, RawShardedDim, RawShardingSpec } from "./device-schema.ts";
import type { RawAttribute, RawGraph, RawModel, RawNode } from "./schema.ts";

export interface FileDevices {
  readonly configurations: readonly FileConfiguration[];
  /** Annotated nodes of branches, of bodies of loops and of functions, which are only counted. */
  readonly nested: number;
}

export interface FileConfiguration {
  readonly name: string;
  readonly devices: number;
  /** The annotated nodes of the graph, in its order. */
  readonly nodes: readonly NodeOnDevices[];
}

export interface NodeOnDevices {
  readonly node: RawNode;
  /** Undefined: the file does not say it. */
  readonly stage: number | undefined;
  readonly tensors: readonly TensorOnDevices[];
}

type Wrong = (what: string, code?: "ONNX_PARSE" | "ONNX_UNSUPPORTED") => never;

/**
 * @param name of the file, for messages
 * @throws ONNX_PARSE for annotations that contradict themselves or the graph; ONNX_UNSUPPORTED for
 * a dim that does not divide evenly
 */
export function devicesOf(
  model: RawModel & { readonly graph: RawGraph },
  name: string,
): FileDevices {
  const wrong: Wrong = (what, code = "ONNX_PARSE") => {
    throw new LockstepError(code, `${name}: its multi-device annotations are wrong: ${what}.`, {
      hint: "Correct them in the file, or train without them: onnx(…, { devices: false }).",
      fields: { file: name },
    });
  };
  const configurations = new Map<string, { devices: number; nodes: NodeOnDevices[] }>();
  for (const { name: id, numDevices = 0, device } of model.configuration) {
    if (id === "") wrong("a configuration has no name");
    if (configurations.has(id)) wrong(`two configurations are named "${id}"`);
    if (numDevices < 1) wrong(`the configuration "${id}" has ${numDevices} devices`);
    if (device.length > 0 && device.length !== numDevices) {
      wrong(`the configuration "${id}" has ${numDevices} devices and ${device.length} names`);
    }
    configurations.set(id, { devices: numDevices, nodes: [] });
  }
  const shapes = shapesOf(model.graph);
  for (const node of model.graph.node) {
    const label = node.name !== "" ? node.name : (node.output[0] ?? node.opType);
    const seen = new Set<string>();
    for (const { configurationId: id, shardingSpec, pipelineStage } of node.deviceConfigurations) {
      const inNode: Wrong = (what, code) => wrong(`node "${label}", ${what}`, code);
      const own = configurations.get(id);
      if (own === undefined) return inNode(`names the configuration "${id}", which is not there`);
      if (seen.has(id)) inNode(`names the configuration "${id}" twice`);
      seen.add(id);
      if (pipelineStage !== undefined && pipelineStage < 0) {
        inNode(`is in the pipeline stage ${pipelineStage}`);
      }
      const names = new Set<string>();
      const tensors = shardingSpec.map((spec) => {
        const { tensorName } = spec;
        const there = [...node.input, ...node.output].includes(tensorName);
        if (tensorName === "" || !there) {
          inNode(`shards "${tensorName}", which it neither reads nor makes`);
        }
        if (names.has(tensorName)) inNode(`shards "${tensorName}" twice`);
        names.add(tensorName);
        const inSpec: Wrong = (what, code) => inNode(`tensor "${tensorName}": ${what}`, code);
        return tensorOnDevices(spec, own.devices, shapes.get(tensorName), inSpec);
      });
      own.nodes.push({ node, stage: pipelineStage, tensors });
    }
  }
  const found = [...configurations].map(([id, own]) => ({ name: id, ...own }));
  return { configurations: found, nested: nestedIn(model) };
}

function tensorOnDevices(
  spec: RawShardingSpec,
  count: number,
  shape: readonly (number | undefined)[] | undefined,
  wrong: Wrong,
): TensorOnDevices {
  const dims = spec.shardedDim.map((own) => shardedDim(own, shape, wrong));
  const axes = dims.map(({ axis }) => axis);
  if (new Set(axes).size < axes.length) wrong("shards one axis twice");
  const shards = dims
    .flatMap(({ factors }) => factors.map((factor) => factor.shards))
    .reduce((product, own) => product * own, 1);
  const lists = devicesIn(spec, count, wrong);
  if (lists.length === 0) wrong("names no device");
  if (shards === 1) return { tensor: spec.tensorName, dims, parts: [[...new Set(lists.flat())]] };
  if (lists.length !== shards) wrong(`has ${shards} shards, but names ${lists.length} devices`);
  return { tensor: spec.tensorName, dims, parts: lists };
}

/** The devices of each entry. A key of the map stands for all of its devices. */
function devicesIn(
  { device, deviceGroups }: RawShardingSpec,
  count: number,
  wrong: Wrong,
): readonly (readonly number[])[] {
  const check = (index: number) => {
    if (index >= 0 && index < count) return index;
    return wrong(`names the device ${index}, but the configuration has ${count} (from 0)`);
  };
  const groups = new Map<number, readonly number[]>();
  for (const { key, value } of deviceGroups) groups.set(keyOf(key, groups, wrong), value);
  for (const [key, value] of groups) {
    if (value.length === 0) wrong(`the device group ${key} is empty`);
    value.forEach(check);
  }
  return device.map((index) => groups.get(index) ?? [check(index)]);
}

function keyOf(
  key: RawDeviceGroup["key"],
  groups: ReadonlyMap<number, unknown>,
  wrong: Wrong,
): number {
  if (key === undefined) return wrong("a device group has no key");
  return groups.has(key) ? wrong(`has two device groups ${key}`) : key;
}

function shardedDim(
  { axis, simpleSharding }: RawShardedDim,
  shape: readonly (number | undefined)[] | undefined,
  wrong: Wrong,
): ShardedDim {
  if (axis === undefined) return wrong("a sharded dim has no axis");
  const rank = shape?.length;
  if (rank !== undefined && !(axis >= -rank && axis < rank)) {
    return wrong(`shards axis ${axis} of a tensor of ${rank} dims`);
  }
  const at = axis < 0 && rank !== undefined ? axis + rank : axis;
  const whole = shape?.[at];
  if (simpleSharding.length === 0) return wrong(`axis ${axis} has no shards`);
  const factors = simpleSharding.map(({ dimValue, numShards }) => {
    if (numShards === undefined || numShards < 1) {
      return wrong(`axis ${axis} is cut into ${numShards ?? "no"} shards`);
    }
    if (dimValue !== undefined && dimValue < 1) return wrong(`axis ${axis} has ${dimValue} blocks`);
    return { size: dimValue, shards: numShards };
  });
  const filled = withSizes(factors, whole);
  const product = filled.reduce((all, { size = Number.NaN }) => all * size, 1);
  if (whole !== undefined && product !== whole && !Number.isNaN(product)) {
    return wrong(`axis ${axis} has ${whole} elements, but its sharding counts ${product}`);
  }
  for (const { size, shards } of filled) {
    if (size === undefined || size % shards === 0) continue;
    const what = `${size} elements along axis ${axis} do not divide evenly into ${shards} shards`;
    return wrong(what, "ONNX_UNSUPPORTED");
  }
  return { axis: at, factors: filled };
}

/** One size that is not said follows from the others. */
function withSizes(
  factors: ShardedDim["factors"],
  whole: number | undefined,
): ShardedDim["factors"] {
  const open = factors.filter(({ size }) => size === undefined);
  if (open.length !== 1 || whole === undefined) return factors;
  const rest = whole / factors.reduce((product, { size = 1 }) => product * size, 1);
  if (!Number.isInteger(rest)) return factors;
  return factors.map(({ size = rest, shards }) => ({ size, shards }));
}

/** The sizes of dims, as far as the file says them. */
function shapesOf(graph: RawGraph): ReadonlyMap<string, readonly (number | undefined)[]> {
  const shapes = new Map<string, readonly (number | undefined)[]>();
  for (const { name, type } of [...graph.input, ...graph.valueInfo, ...graph.output]) {
    const shape = type?.tensorType?.shape;
    if (shape !== undefined) {
      shapes.set(
        name,
        shape.dim.map(({ dimValue }) => dimValue),
      );
    }
  }
  for (const { name, dims } of graph.initializer) shapes.set(name, dims);
  return shapes;
}

function nestedIn({ graph, functions }: RawModel & { readonly graph: RawGraph }): number {
  const inAttributes = (attributes: readonly RawAttribute[]): number =>
    attributes
      .flatMap(({ g, graphs }) => (g === undefined ? graphs : [g, ...graphs]))
      .reduce((sum, inner) => sum + inNodes(inner.node), 0);
  const inNodes = (nodes: readonly RawNode[]): number =>
    nodes.reduce((sum, { deviceConfigurations, attribute }) => {
      return sum + Math.min(1, deviceConfigurations.length) + inAttributes(attribute);
    }, 0);
  const inFunctions = functions.reduce((sum, { node }) => sum + inNodes(node), 0);
  return inFunctions + graph.node.reduce((sum, node) => sum + inAttributes(node.attribute), 0);
}
