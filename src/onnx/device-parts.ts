/**
 * How a tensor lies on devices, between ONNX's words (sharded dims and a list of devices, part by
 * part) and those of a mesh: one dim, in sections that are each cut evenly.
 */
import type { RawShardedDim, RawShardingSpec } from "./device-schema.ts";

/** A dim that is cut. */
export interface DimCut {
  readonly dim: number;
  readonly parts: number;
  /**
   * The sizes of consecutive sections, each of which is cut evenly: part p is the p-th piece of
   * every section. Default: one section, the whole dim.
   */
  readonly sections?: readonly number[];
}

/** A tensor on devices, as a file says it, checked. */
export interface TensorOnDevices {
  readonly tensor: string;
  readonly dims: readonly ShardedDim[];
  /** The devices of each part, the last dim fastest. */
  readonly parts: readonly (readonly number[])[];
}

export interface ShardedDim {
  readonly axis: number;
  /** Dims in one, the first one slowest. A size may be open, as the batch is. */
  readonly factors: readonly { readonly size: number | undefined; readonly shards: number }[];
}

/** A dim in more runs than this is not looked at, and not written. */
const MOST_RUNS = 4096;

/** Consecutive elements of a dim that are in one part. */
interface Run {
  readonly part: number;
  readonly length: number;
}

/**
 * Returns how devices hold a tensor: `whole` if all hold all of it, and undefined if they hold it in
 * another way than one dim in even sections, the lowest device first.
 */
export function cutOf(on: TensorOnDevices): DimCut | "whole" | undefined {
  const cut = on.dims.filter(({ factors }) => factors.some(({ shards }) => shards > 1));
  const [own, ...others] = cut;
  if (own === undefined) return "whole";
  const runs = others.length > 0 ? undefined : runsOf(own);
  if (runs === undefined) return undefined;
  const groups = new Map<string, readonly number[]>();
  const keyOf = (part: number) => {
    const devices = [...(on.parts[part] ?? [])].sort((a, b) => a - b);
    groups.set(devices.join(), devices);
    return devices.join();
  };
  const keyed = runs.map(({ part, length }) => ({ key: keyOf(part), length }));
  if (groups.size === 1) return "whole";
  const all = [...groups.values()].flat();
  if (new Set(all).size < all.length) return undefined;
  const order = [...groups.keys()].sort(
    (a, b) => (groups.get(a)?.[0] as number) - (groups.get(b)?.[0] as number),
  );
  const merged = mergedRuns(keyed.map(({ key, length }) => ({ part: order.indexOf(key), length })));
  const sections = sectionsIn(merged, order.length);
  if (sections === undefined) return undefined;
  const { axis: dim } = own;
  return { dim, parts: order.length, ...(sections.length > 1 && { sections }) };
}

/** The runs of a dim that is dims in one; undefined for sizes that are open, or too many runs. */
function runsOf({ factors }: ShardedDim): Run[] | undefined {
  let runs: Run[] = [{ part: 0, length: 1 }];
  let parts = 1;
  for (const { size, shards } of factors.toReversed()) {
    if (size === undefined || size % shards !== 0) return undefined;
    const [first, ...rest] = runs;
    const each = size / shards;
    const count = rest.length === 0 ? 1 : each * runs.length;
    if (count * shards > MOST_RUNS) return undefined;
    const piece =
      rest.length === 0 && first !== undefined
        ? [{ part: 0, length: first.length * each }]
        : Array.from({ length: each }, () => runs).flat();
    const inner = parts;
    runs = Array.from({ length: shards }, (_, at) =>
      piece.map(({ part, length }) => ({ part: at * inner + part, length })),
    ).flat();
    parts *= shards;
  }
  return runs;
}

function mergedRuns(runs: readonly Run[]): Run[] {
  const merged: Run[] = [];
  for (const { part, length } of runs) {
    const last = merged.at(-1);
    if (last?.part === part) merged[merged.length - 1] = { part, length: last.length + length };
    else merged.push({ part, length });
  }
  return merged;
}

/** The sections of runs in which parts take turns, evenly. */
function sectionsIn(runs: readonly Run[], parts: number): number[] | undefined {
  if (runs.length % parts !== 0) return undefined;
  const isEven = runs.every(({ part, length }, at) => {
    return part === at % parts && length === runs[at - (at % parts)]?.length;
  });
  if (!isEven) return undefined;
  return runs.filter((_, at) => at % parts === 0).map(({ length }) => length * parts);
}

/**
 * Writes how devices hold a tensor. Sections of one size are a dim that is two dims in one, of which
 * the second is cut. Other sections are cut into blocks of one size, and a device that has several
 * blocks is named for each.
 * @param cut undefined: each device holds all of it
 * @param devices by part
 * @returns undefined for sections that make too many blocks
 */
export function specOf(
  tensor: string,
  shape: readonly number[],
  cut: DimCut | undefined,
  devices: readonly number[],
): RawShardingSpec | undefined {
  if (cut === undefined) return wholeSpec(tensor, devices);
  const { dim, parts } = cut;
  const size = shape[dim] as number;
  const { sections = [size] } = cut;
  const spec = (simpleSharding: RawShardedDim["simpleSharding"], device: readonly number[]) => {
    const shardedDim = [{ axis: dim, simpleSharding }];
    return { tensorName: tensor, device: [...device], deviceGroups: [], shardedDim };
  };
  const [first = size] = sections;
  if (sections.length === 1) return spec([evenly(size, parts)], devices);
  if (sections.every((own) => own === first)) {
    return spec([evenly(sections.length, 1), evenly(first, parts)], devices);
  }
  const unit = sections.map((own) => own / parts).reduce(divisor, 0);
  if (size / unit > MOST_RUNS) return undefined;
  const blocks = sections.flatMap((own) => {
    const each = own / parts / unit;
    return devices.flatMap((device) => Array.from({ length: each }, () => device));
  });
  return spec([evenly(size, blocks.length)], blocks);
}

function wholeSpec(tensorName: string, devices: readonly number[]): RawShardingSpec {
  const [only = 0, ...others] = devices;
  const isOne = others.length === 0;
  return {
    tensorName,
    device: [isOne ? only : -1],
    deviceGroups: isOne ? [] : [{ key: -1, value: [...devices] }],
    shardedDim: [],
  };
}

function evenly(dimValue: number, numShards: number): RawShardedDim["simpleSharding"][number] {
  return { dimValue, dimParam: "", numShards };
}

function divisor(a: number, b: number): number {
  return b === 0 ? a : divisor(b, a % b);
}
