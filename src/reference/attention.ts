import { type Kernel, type KernelContext, ravel, unravel } from "./kernel.ts";
import { fill, type ReferenceTensor } from "./tensor.ts";

/**
 * Reads element (batch, head, position, i) of a tensor (B, heads, T, size) or (B, T, heads · size).
 */
function headReader(
  { data, shape }: ReferenceTensor,
  heads: number,
): {
  places: number;
  size: number;
  read: (b: number, head: number, place: number, i: number) => number;
} {
  if (shape.length === 4) {
    const [, , places, size] = shape as unknown as [number, number, number, number];
    return {
      places,
      size,
      read: (b, h, t, i) => data[((b * heads + h) * places + t) * size + i] as number,
    };
  }
  const [, places, width] = shape as unknown as [number, number, number];
  const size = width / heads;
  return {
    places,
    size,
    read: (b, h, t, i) => data[(b * places + t) * width + h * size + i] as number,
  };
}

/** Puts the positions of `past` before those of `present`. */
function withPast(past: ReferenceTensor | undefined, present: ReferenceTensor, heads: number) {
  const now = headReader(present, heads);
  if (past === undefined) return now;
  const before = headReader(past, heads);
  return {
    size: now.size,
    places: before.places + now.places,
    read: (b: number, h: number, t: number, i: number) =>
      t < before.places ? before.read(b, h, t, i) : now.read(b, h, t - before.places, i),
  };
}

export const attention: Kernel = (context) => {
  const { input, inputs, outputs, attributes } = context;
  const flat = input(0).shape.length === 3;
  const heads = flat ? attributes.number("q_num_heads") : (input(0).shape[1] as number);
  const shared = flat ? attributes.number("kv_num_heads") : (input(1).shape[1] as number);
  const batch = input(0).shape[0] as number;
  const q = headReader(input(0), heads);
  const k = withPast(inputs[4], input(1), shared);
  const v = withPast(inputs[5], input(2), shared);
  const scale = attributes.has("scale") ? attributes.number("scale") : 1 / Math.sqrt(q.size);
  const full = [batch, heads, q.places, k.places];
  const stages = scores(context, full, (b, h, t, s) => {
    let sum = 0;
    for (let i = 0; i < q.size; i++) {
      sum += q.read(b, h, t, i) * k.read(b, Math.floor((h * shared) / heads), s, i);
    }
    return sum * scale;
  });
  const p = stages.at(-1) as ReferenceTensor;
  const at = (b: number, h: number, t: number, i: number) => {
    let sum = 0;
    for (let s = 0; s < k.places; s++) {
      sum +=
        (p.data[ravel([b, h, t, s], full)] as number) *
        v.read(b, Math.floor((h * shared) / heads), s, i);
    }
    return sum;
  };
  const { dtype, shape } = context.output(0);
  const result = fill(dtype, shape, (index) => {
    const position = unravel(index, shape) as [number, number, number, number];
    if (!flat) return at(...position);
    const [b, t, rest] = position;
    return at(b, Math.floor(rest / v.size), t, rest % v.size);
  });
  const copies = [k, v].map((source, i) => {
    const to = [batch, shared, source.places, source.size];
    return (
      outputs[i + 1] &&
      fill(dtype, to, (index) => {
        const [b, h, t, e] = unravel(index, to) as [number, number, number, number];
        return source.read(b, h, t, e);
      })
    );
  });
  const mode = attributes.number("qk_matmul_output_mode");
  const products = outputs[3] && stages[mode];
  return [result, ...copies, products].filter((tensor) => tensor !== undefined);
};

/**
 * The scores in the four modes of output 3: scaled products, then masked, then capped, then
 * probabilities.
 */
function scores(
  { inputs, input, attributes }: KernelContext,
  full: readonly number[],
  product: (b: number, h: number, t: number, s: number) => number,
): ReferenceTensor[] {
  const mask = inputs[3];
  const causal = attributes.number("is_causal") === 1;
  const cap = attributes.number("softcap");
  const past = inputs[4]?.shape[2] ?? 0;
  const { dtype } = input(0);
  const raw = fill(dtype, full, (i) =>
    product(...(unravel(i, full) as [number, number, number, number])),
  );
  const masked = fill(dtype, full, (i) => {
    const position = unravel(i, full);
    const [t, s] = position.slice(2) as [number, number];
    let value = raw.data[i] as number;
    if (causal && s > t + past) value = Number.NEGATIVE_INFINITY;
    if (mask === undefined) return value;
    const own = position
      .slice(4 - mask.shape.length)
      .map((place, dim) => (mask.shape[dim] === 1 ? 0 : place));
    const extra = mask.data[ravel(own, mask.shape)] as number;
    if (mask.dtype === "bool") return extra === 0 ? Number.NEGATIVE_INFINITY : value;
    return value + extra;
  });
  const capped =
    cap === 0
      ? masked
      : { ...masked, data: masked.data.map((value) => cap * Math.tanh(value / cap)) };
  const width = full[3] as number;
  const tops = Array.from({ length: raw.data.length / width }, (_, row) =>
    Math.max(...capped.data.subarray(row * width, (row + 1) * width)),
  );
  const powers = capped.data.map((value, i) =>
    Math.exp(value - (tops[Math.floor(i / width)] as number)),
  );
  const totals = tops.map((_, row) =>
    powers.subarray(row * width, (row + 1) * width).reduce((a, b) => a + b, 0),
  );
  const p = {
    ...capped,
    data: powers.map((e, i) => e / (totals[Math.floor(i / width)] as number)),
  };
  return [raw, masked, capped, p];
}

export const rotaryEmbedding: Kernel = ({ input, inputs, output, attributes }) => {
  const x = input(0);
  const [cosines, sines, ids] = [input(1), input(2), inputs[3]];
  const flat = x.shape.length === 3;
  const heads = flat ? attributes.number("num_heads") : (x.shape[1] as number);
  const source = headReader(x, heads);
  const turned = attributes.number("rotary_embedding_dim") || source.size;
  const half = turned / 2;
  const interleaved = attributes.number("interleaved") === 1;
  const angle = (table: ReferenceTensor, b: number, t: number, pair: number) => {
    const row =
      ids === undefined
        ? (table.shape[0] === 1 ? 0 : b) * source.places + t
        : (ids.data[b * source.places + t] as number);
    return table.data[row * half + pair] as number;
  };
  const at = (b: number, h: number, t: number, i: number) => {
    if (i >= turned) return source.read(b, h, t, i);
    const isFirst = interleaved ? i % 2 === 0 : i < half;
    const pair = interleaved ? Math.floor(i / 2) : i % half;
    const step = interleaved ? 1 : half;
    const other = source.read(b, h, t, isFirst ? i + step : i - step);
    const sine = angle(sines, b, t, pair) * (isFirst ? -1 : 1);
    return source.read(b, h, t, i) * angle(cosines, b, t, pair) + other * sine;
  };
  const { dtype, shape } = output(0);
  return [
    fill(dtype, shape, (index) => {
      const position = unravel(index, shape) as [number, number, number, number];
      if (!flat) return at(...position);
      const [b, t, rest] = position;
      return at(b, Math.floor(rest / source.size), t, rest % source.size);
    }),
  ];
};
