/** The sizes of an attention, from inputs of 3 or 4 dims. */
import type { InferContext } from "../../graph/index.ts";
import type { Shape } from "../../tensor/index.ts";

export interface Geometry {
  readonly batch: number;
  readonly heads: number;
  /** The number of heads of K and V. */
  readonly shared: number;
  readonly queries: number;
  readonly keys: number;
  readonly size: number;
  readonly valueSize: number;
}

/** The sizes of an attention. Fails if they do not fit. */
export function attentionGeometry(
  context: Pick<InferContext, "attributes" | "inputs"> & Failing,
): Geometry {
  const [q, k, v] = context.inputs.map((type) => type?.shape) as [Shape, Shape, Shape];
  const { attributes } = context;
  const rank = q.length;
  if ((rank !== 3 && rank !== 4) || k.length !== rank || v.length !== rank) {
    context.fail("takes Q, K and V of 3 or 4 dims");
  }
  const heads = rank === 4 ? (q[1] as number) : attributes.number("q_num_heads");
  const shared = rank === 4 ? (k[1] as number) : attributes.number("kv_num_heads");
  if (heads < 1 || shared < 1 || heads % shared !== 0) {
    context.fail(`${heads} heads of Q are not a multiple of ${shared} heads of K`);
  }
  const per = (shape: Shape, count: number) =>
    rank === 4 ? (shape[3] as number) : (shape[2] as number) / count;
  const places = (shape: Shape) => shape[rank - 2] as number;
  const [size, keySize, valueSize] = [per(q, heads), per(k, shared), per(v, shared)];
  if (size !== keySize || places(k) !== places(v)) {
    context.fail("sizes of Q and K, or numbers of K and V, differ");
  }
  const batch = q[0] as number;
  return { batch, heads, shared, queries: places(q), keys: places(k), size, valueSize };
}

interface Failing {
  fail(what: string): never;
}
