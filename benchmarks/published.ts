/**
 * Runs that others have published, each with its configuration and its speed. What a source does not
 * say is in `assumed`.
 */

/** Figures of data sheets, but for `utilisation`. */
export interface Hardware {
  /** Of dense products of 16 and of 8 bits, in operations per second. */
  readonly peak: { readonly half: number; readonly eighth: number };
  /** The part of the peak that products reach: one for all rows, fitted. */
  readonly utilisation: number;
  readonly memorySpeed: number;
  /** One way, in bytes per second: between the GPUs of a machine, and of each over the network. */
  readonly within: number;
  readonly between: number;
}

export interface Model {
  readonly layers: number;
  readonly width: number;
  readonly heads: number;
  /** Of keys and of values, each. */
  readonly keyWidth: number;
  readonly hidden: number;
  /** Whether the feed-forward part has a gate (SwiGLU), and its head is a matrix of its own. */
  readonly isLlama: boolean;
  readonly vocabulary: number;
}

export interface Published {
  readonly case: string;
  readonly source: string;
  readonly assumed?: string;
  readonly hardware: Hardware;
  readonly model: Model;
  /** Of a sample. */
  readonly tokens: number;
  readonly gpus: number;
  readonly tensor: number;
  readonly context: number;
  readonly pipeline: number;
  /** Stages of a rank; 1: `1f1b`, else `interleaved`. */
  readonly stages: number;
  readonly zero: 0 | 3;
  /** Samples of a step and of a micro-batch. */
  readonly batch: number;
  readonly microBatch: number;
  /** The part of the forward pass that is computed again. */
  readonly again: 0 | 0.5 | 1;
  readonly isEighth: boolean;
  /** Whether scores of attention never lie in memory. */
  readonly isFlash: boolean;
  /** Whether ranks that divide matrices divide what is between them, too (sequence parallelism). */
  readonly dividesRest: boolean;
  /** Whether exchanges of `tensor` run beside the products. */
  readonly isBeside: boolean;
  /**
   * What was published: tokens per second and GPU, TFLOP/s per GPU with what is computed again, or
   * seconds of a step.
   */
  readonly value: number;
  readonly unit: "tokens/s" | "TFLOP/s" | "s";
}

/** H100 with HBM2e at 500 W, as torchtitan's report says. */
const H100: Hardware = {
  peak: { half: 989e12, eighth: 1979e12 },
  utilisation: 0.455,
  memorySpeed: 2.4e12,
  within: 450e9,
  between: 50e9,
};
const A100: Hardware = {
  peak: { half: 312e12, eighth: 312e12 },
  utilisation: 0.65,
  memorySpeed: 2e12,
  within: 300e9,
  between: 25e9,
};

const LLAMA = { keyWidth: 1024, isLlama: true, vocabulary: 128_256 } as const;
const LLAMA_8B: Model = { ...LLAMA, layers: 32, width: 4096, heads: 32, hidden: 14_336 };
const LLAMA_70B: Model = { ...LLAMA, layers: 80, width: 8192, heads: 64, hidden: 28_672 };
const LLAMA_405B: Model = { ...LLAMA, layers: 126, width: 16_384, heads: 128, hidden: 53_248 };

const TITAN = {
  source: "torchtitan, benchmarks/llama3_h100_202412_torchtitan.md",
  hardware: H100,
  unit: "tokens/s",
  tokens: 8192,
  tensor: 1,
  context: 1,
  pipeline: 1,
  stages: 1,
  zero: 3,
  isFlash: true,
  dividesRest: true,
  isBeside: false,
} as const;

/** Tables 1 and 3. Half of the products are computed again (selective checkpointing by operator). */
const SMALL: readonly Published[] = (
  [
    [8, 16, false, 6667],
    [8, 16, true, 8532],
    [128, 256, false, 6514],
    [128, 256, true, 8380],
  ] as const
).map(([gpus, batch, isEighth, value]) => ({
  ...TITAN,
  case: `8B, ${gpus} GPUs, ${isEighth ? "float8" : "compile"}`,
  model: LLAMA_8B,
  gpus,
  batch,
  microBatch: 2,
  again: 0.5,
  isEighth,
  value,
}));

const LARGE = { ...TITAN, again: 1, isEighth: true, tensor: 8 } as const;

/** Table 4. */
const MIDDLE: readonly Published[] = (
  [
    ["", false, 829],
    [", async", true, 876],
  ] as const
).map(([name, isBeside, value]) => ({
  ...LARGE,
  case: `70B, 256 GPUs, tensor 8${name}, float8`,
  model: LLAMA_70B,
  gpus: 256,
  batch: 512,
  microBatch: 16,
  isBeside,
  value,
}));

const DEEP = {
  ...LARGE,
  model: LLAMA_405B,
  gpus: 512,
  pipeline: 8,
  isBeside: true,
} as const;

/** Table 5. */
const PIPELINES: readonly Published[] = (
  [
    ["1f1b", 1, 100],
    ["interleaved", 2, 128],
  ] as const
).map(([name, stages, value]) => ({
  ...DEEP,
  case: `405B, 512 GPUs, tensor 8, pipeline 8 (${name}), float8`,
  assumed: `8 micro-batches, torchtitan's default${stages === 1 ? "" : ", and 2 stages a rank"}`,
  stages,
  batch: 256,
  microBatch: 4,
  value,
}));

/** Tables 2 and 6. */
const LONG: readonly Published[] = (
  [
    [32_768, 1, 3890, 76],
    [65_536, 2, 2540, 47],
    [131_072, 4, 1071, 31],
    [262_144, 8, 548, 16],
  ] as const
).flatMap(([tokens, context, small, large]): Published[] => [
  {
    ...TITAN,
    case: `8B, 8 GPUs, ${tokens} tokens, context ${context}, float8`,
    model: LLAMA_8B,
    gpus: 8,
    tokens,
    context,
    batch: 8 / context,
    microBatch: 1,
    again: 1,
    isEighth: true,
    value: small,
  },
  {
    ...DEEP,
    case: `405B, 512 GPUs, ${tokens} tokens, tensor 8, pipeline 8 (1f1b), context ${context}, float8`,
    assumed: "8 micro-batches, torchtitan's default",
    tokens,
    context,
    batch: 64 / context,
    microBatch: 1,
    value: large,
  },
]);

const MEGATRON = {
  hardware: A100,
  tokens: 2048,
  context: 1,
  zero: 0,
  again: 1,
  isEighth: false,
  isFlash: false,
  dividesRest: false,
  isBeside: false,
} as const;

function megatron([layers, width, heads]: readonly [number, number, number]): Model {
  const sizes = { layers, width, heads, keyWidth: width, hidden: 4 * width };
  return { ...sizes, isLlama: false, vocabulary: 51_200 };
}

/** Narayanan et al., 2021, table 1; micro-batches and stages: examples/sc21/run_table_1.sh. */
const WEAK_SCALING: readonly Published[] = (
  [
    ["1.7B", [24, 2304, 24], 1, 1, 1, 32, 512, 16, 137],
    ["3.6B", [30, 3072, 32], 2, 1, 1, 64, 512, 16, 138],
    ["7.5B", [36, 4096, 32], 4, 1, 1, 128, 512, 16, 142],
    ["18B", [40, 6144, 48], 8, 1, 1, 256, 1024, 8, 135],
    ["39B", [48, 8192, 64], 8, 2, 1, 512, 1536, 4, 138],
    ["76B", [60, 10_240, 80], 8, 4, 3, 1024, 1792, 2, 140],
    ["145B", [80, 12_288, 96], 8, 8, 2, 1536, 2304, 2, 148],
    ["310B", [96, 16_384, 128], 8, 16, 2, 1920, 2160, 1, 155],
    ["530B", [105, 20_480, 128], 8, 35, 3, 2520, 2520, 1, 163],
    ["1T", [128, 25_600, 160], 8, 64, 1, 3072, 3072, 1, 163],
  ] as const
).map(([name, sizes, tensor, pipeline, stages, gpus, batch, microBatch, value]) => ({
  ...MEGATRON,
  case: `Megatron ${name}, ${gpus} GPUs, tensor ${tensor}, pipeline ${pipeline}${stages > 1 ? ` (interleaved-${stages})` : ""}`,
  source: "Narayanan et al., 2021, table 1, and Megatron-LM, examples/sc21/run_table_1.sh",
  model: megatron(sizes),
  tensor,
  pipeline,
  stages,
  gpus,
  batch,
  microBatch,
  value,
  unit: "TFLOP/s",
}));

/**
 * Korthikanti et al., 2022, tables 3 and 5: seconds of a step with full recomputation. They were
 * written down from memory, and have still to be compared with the paper.
 */
const RECOMPUTED: readonly Published[] = (
  [
    ["22B", [48, 6144, 64], 1, 1, 4, 4, 1.42],
    ["175B", [96, 12_288, 96], 8, 3, 64, 1, 18.13],
    ["530B", [105, 20_480, 128], 35, 3, 280, 1, 49.05],
    ["1T", [128, 25_600, 160], 64, 1, 512, 1, 94.42],
  ] as const
).map(([name, sizes, pipeline, stages, batch, microBatch, value]) => ({
  ...MEGATRON,
  case: `Megatron ${name}, ${8 * pipeline} GPUs, tensor 8, pipeline ${pipeline}${stages > 1 ? ` (interleaved-${stages})` : ""}, a step`,
  source: "Korthikanti et al., 2022, tables 3 and 5",
  model: megatron(sizes),
  tensor: 8,
  pipeline,
  stages,
  gpus: 8 * pipeline,
  batch,
  microBatch,
  value,
  unit: "s",
}));

export const PUBLISHED: readonly Published[] = [
  ...SMALL,
  ...MIDDLE,
  ...PIPELINES,
  ...LONG,
  ...WEAK_SCALING,
  ...RECOMPUTED,
];
