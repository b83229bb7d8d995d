/**
 * Says where the bytes of a tensor lie in the shards of a checkpoint, whoever wrote them. Pure: it
 * reads no file.
 */
import { byteLength, type TensorType } from "../tensor/index.ts";

/** Bytes [start, end) of a shard's file are those of a tensor from its byte `from` on. */
export interface StoredPart {
  /** The index of the shard. */
  readonly shard: number;
  readonly start: number;
  readonly end: number;
  readonly from: number;
}

/** A tensor of a checkpoint: its parts in order, without a gap. */
export interface StoredTensor extends TensorType {
  readonly parts: readonly StoredPart[];
}

/** Bytes to read from a shard, and where they belong in what was asked for. */
export interface Read {
  readonly shard: number;
  readonly start: number;
  readonly byteLength: number;
  readonly into: number;
}

/** Returns what to read for the bytes [from, to) of a tensor, in order. */
export function readsFor({ parts }: StoredTensor, from: number, to: number): Read[] {
  return parts.flatMap((part) => {
    const first = Math.max(from, part.from);
    const last = Math.min(to, part.from + part.end - part.start);
    if (first >= last) return [];
    const { shard } = part;
    const start = part.start + first - part.from;
    return [{ shard, start, byteLength: last - first, into: first - from }];
  });
}

/**
 * Returns what is wrong with the parts of a tensor, as the end of a sentence; undefined if they give
 * each of its bytes once, out of shards of these sizes.
 */
export function faultOf(tensor: StoredTensor, shardBytes: readonly number[]): string | undefined {
  let at = 0;
  for (const { shard, start, end, from } of tensor.parts) {
    if (from !== at) return `gives byte ${at} not once`;
    if (start >= end || end > (shardBytes[shard] ?? -1)) return "lies outside of its shard";
    at += end - start;
  }
  const bytes = byteLength(tensor);
  return at === bytes ? undefined : `has ${at} bytes instead of ${bytes}`;
}
