/**
 * What does the cost model say of runs that others have published, with the figures of their
 * hardware put in? Nothing runs here: models are described by their sizes, and `dividedCost` prices
 * the way that was published. Each hardware has one utilisation, the one with which its rows err
 * least (mean of the logarithms), so that only what lies between rows is a witness; no row has a
 * constant of its own.
 */
import { evenTopology } from "../src/mesh/index.ts";
import { dividedCost } from "../src/parallel/index.ts";
import type { StepFacts } from "../src/plan/index.ts";
import type { Benchmark, Row } from "./report.ts";

/** Figures of data sheets, but for `utilisation`. */
interface Hardware {
  /** Of dense products of 16 and of 8 bits, in operations per second. */
  readonly peak: { readonly half: number; readonly eighth: number };
  /** The part of the peak that products reach. */
  readonly utilisation: number;
  readonly memorySpeed: number;
  /** One way, in bytes per second: between the GPUs of a machine, and of each over the network. */
  readonly within: number;
  readonly between: number;
}

/** H100 with HBM2e at 500 W, as torchtitan's report says. */
const H100: Hardware = {
  peak: { half: 989e12, eighth: 1979e12 },
  utilisation: 0.36,
  memorySpeed: 2.4e12,
  within: 450e9,
  between: 50e9,
};
const A100: Hardware = {
  peak: { half: 312e12, eighth: 312e12 },
  utilisation: 0.54,
  memorySpeed: 2e12,
  within: 300e9,
  between: 25e9,
};
const LATENCY = 2e-5;

interface Model {
  readonly layers: number;
  readonly width: number;
  /** Of one layer. */
  readonly parameters: number;
  readonly vocabulary: number;
  readonly tokens: number;
  /** Whether the head is a matrix of its own. */
  readonly hasOwnHead: boolean;
}

interface Published {
  readonly case: string;
  readonly hardware: Hardware;
  readonly model: Model;
  readonly gpus: number;
  readonly tensor: number;
  readonly pipeline: number;
  readonly zero: 0 | 3;
  /** Samples of a step and of a micro-batch. */
  readonly batch: number;
  readonly microBatch: number;
  /** Whether the whole forward pass is computed again. */
  readonly again: boolean;
  readonly isEighth: boolean;
  /** What was published: tokens per second and GPU, or TFLOP/s per GPU with what is computed again. */
  readonly value: number;
  readonly unit: "tokens/s" | "TFLOP/s";
}

function llama(layers: number, width: number, hidden: number): Model {
  // Eight heads of keys and values, of 128 each.
  const attention = 2 * width * width + 2 * width * 8 * 128;
  return {
    layers,
    width,
    parameters: attention + 3 * width * hidden,
    vocabulary: 128_256,
    tokens: 8192,
    hasOwnHead: true,
  };
}

function megatron(layers: number, width: number): Model {
  const parameters = 12 * width * width;
  return { layers, width, parameters, vocabulary: 51_200, tokens: 2048, hasOwnHead: false };
}

const SMALL = { model: llama(32, 4096, 14_336), tensor: 1, pipeline: 1, zero: 3 } as const;
const TITAN = { hardware: H100, unit: "tokens/s", again: false, microBatch: 2 } as const;

/** torchtitan, benchmarks/llama3_h100_202412_torchtitan.md, 8,192 tokens. */
const TORCHTITAN: readonly Published[] = [
  {
    ...TITAN,
    ...SMALL,
    case: "8B, 8 GPUs, compile",
    gpus: 8,
    batch: 16,
    isEighth: false,
    value: 6667,
  },
  {
    ...TITAN,
    ...SMALL,
    case: "8B, 8 GPUs, float8",
    gpus: 8,
    batch: 16,
    isEighth: true,
    value: 8532,
  },
  {
    ...TITAN,
    ...SMALL,
    case: "8B, 128 GPUs, compile",
    gpus: 128,
    batch: 256,
    isEighth: false,
    value: 6514,
  },
  {
    ...TITAN,
    ...SMALL,
    case: "8B, 128 GPUs, float8",
    gpus: 128,
    batch: 256,
    isEighth: true,
    value: 8380,
  },
  {
    ...TITAN,
    case: "70B, 256 GPUs, tensor 8, float8",
    model: llama(80, 8192, 28_672),
    gpus: 256,
    tensor: 8,
    pipeline: 1,
    zero: 3,
    batch: 512,
    microBatch: 16,
    again: true,
    isEighth: true,
    value: 829,
  },
  {
    // Its micro-batches are not published: as many as stages, torchtitan's default.
    ...TITAN,
    case: "405B, 512 GPUs, tensor 8, pipeline 8 (1f1b), float8",
    model: llama(126, 16_384, 53_248),
    gpus: 512,
    tensor: 8,
    pipeline: 8,
    zero: 3,
    batch: 256,
    microBatch: 4,
    again: true,
    isEighth: true,
    value: 100,
  },
];

/** Narayanan et al., 2021, table 1; its micro-batches are not published: 1 sample is assumed. */
const WEAK_SCALING: readonly Published[] = (
  [
    ["1.7B", 24, 2304, 1, 1, 32, 512, 137],
    ["3.6B", 30, 3072, 2, 1, 64, 512, 138],
    ["7.5B", 36, 4096, 4, 1, 128, 512, 142],
    ["18B", 40, 6144, 8, 1, 256, 1024, 135],
    ["39B", 48, 8192, 8, 2, 512, 1536, 138],
    ["76B", 60, 10_240, 8, 4, 1024, 1792, 140],
    ["145B", 80, 12_288, 8, 8, 1536, 2304, 148],
    ["310B", 96, 16_384, 8, 16, 1920, 2160, 155],
    ["530B", 105, 20_480, 8, 35, 2520, 2520, 163],
    ["1T", 128, 25_600, 8, 64, 3072, 3072, 163],
  ] as const
).map(([name, layers, width, tensor, pipeline, gpus, batch, value]) => ({
  case: `Megatron ${name}, ${gpus} GPUs, tensor ${tensor}, pipeline ${pipeline}`,
  hardware: A100,
  model: megatron(layers, width),
  gpus,
  tensor,
  pipeline,
  zero: 0,
  batch,
  microBatch: 1,
  again: true,
  isEighth: false,
  value,
  unit: "TFLOP/s",
}));

/** The most by which a prediction may differ. */
const GOAL = 0.15;

export const predicted: Benchmark = {
  name: "predicted",
  question:
    "what the cost model predicts of published runs on other hardware, and by how much it errs",
  run: () => {
    const rows = [...TORCHTITAN, ...WEAK_SCALING].map((published): Row => {
      const value = predictedOf(published);
      const ratio = value / published.value;
      return {
        case: published.case,
        value,
        unit: published.unit,
        peer: "published",
        peerValue: published.value,
        ratio,
        goal: "0.85 to 1.15",
        reached: Math.abs(ratio - 1) <= GOAL,
      };
    });
    return Promise.resolve({ rows, missing: [] });
  },
};

/** The operations of a sample, in products of 16 bits: of all matrices, and of attention. */
function flopsOfSample({ model, again }: Published) {
  const { layers, width, parameters, vocabulary, tokens } = model;
  const passes = again ? 4 : 3;
  return {
    layers: 2 * passes * layers * parameters * tokens,
    attention: 4 * passes * layers * width * tokens * tokens,
    head: 6 * width * vocabulary * tokens,
  };
}

function predictedOf(published: Published): number {
  const { hardware, model, gpus, tensor, pipeline, zero, batch, microBatch, isEighth } = published;
  const parts = tensor * pipeline;
  const replicas = gpus / parts;
  const { half, eighth } = hardware.peak;
  const { layers, attention, head } = flopsOfSample(published);
  const products = (layers + head) * (isEighth ? half / eighth : 1);
  const flops = (microBatch * (products + attention)) / parts;
  const matrices = model.vocabulary * model.width * (model.hasOwnHead ? 2 : 1);
  const held = (model.layers * model.parameters + matrices) / parts;
  const parameters = 2 * held;
  const facts: StepFacts = {
    microBatches: batch / microBatch,
    parameters,
    // torchtitan sums in 32 bits, and Megatron in 16.
    gradients: (zero === 3 ? 4 : 2) * held,
    slots: 12 * held,
    wholeSlots: 0,
    scratch: 0,
    wholeRule: undefined,
    largestGradient: (4 * matrices) / parts,
    largestUnit: (2 * model.parameters) / tensor,
    gathered: 2 * parameters,
    flops,
    pass: { between: 0, within: 0 },
    inPieces: () => ({ between: 0, within: 0 }),
    isRepeating: false,
  };
  // Two sums forward and two backward in each layer, and two more where it is computed again.
  const sums = (published.again ? 6 : 4) * (model.layers / pipeline);
  const value = 2 * microBatch * model.tokens * model.width;
  const each = LATENCY + (2 * value * (tensor - 1)) / tensor / hardware.within;
  const exchanged = tensor === 1 ? 0 : sums * each;
  const share = { F: 1 / (published.again ? 4 : 3), B: 0, W: 0 };
  const partOf = (direction: "F" | "B" | "W") => (direction === "F" ? share.F : 1 - share.F);
  const crossing = pipeline === 1 ? 0 : LATENCY + value / tensor / hardware.between;
  const machine = {
    topology: evenTopology(gpus, gpus),
    memory: Number.POSITIVE_INFINITY,
    lanes: 1,
    flopsPerSecond: half * hardware.utilisation,
    link: { latency: LATENCY, bytesPerSecond: gpus <= 8 ? hardware.within : hardware.between },
    bucketBytes: 2 ** 25,
    memorySpeed: hardware.memorySpeed,
  };
  const part = {
    facts,
    pass: facts.pass,
    brought: 0,
    exchanged: { seconds: exchanged, bytes: 0, given: 0 },
  };
  const timeline = {
    schedule: "1f1b",
    needs: ({
      stage,
      direction,
    }: {
      readonly stage: number;
      readonly direction: "F" | "B" | "W";
    }) => [
      ...(direction === "F" && stage > 0 ? [{ stage: stage - 1, direction: "F" as const }] : []),
      ...(direction === "B" ? [{ stage, direction: "F" as const }] : []),
      ...(direction === "B" && stage < pipeline - 1
        ? [{ stage: stage + 1, direction: "B" as const }]
        : []),
    ],
    flopsOf: ({ direction }: { readonly direction: "F" | "B" | "W" }) => flops * partOf(direction),
    exchangedIn: ({ direction }: { readonly direction: "F" | "B" | "W" }) =>
      exchanged * partOf(direction) + crossing,
  };
  const { seconds } = dividedCost(
    {
      parts: Array.from({ length: pipeline }, () => part),
      pipeline: pipeline === 1 ? undefined : timeline,
    },
    zero === 3 ? { data: 1, shard: replicas, zero } : { data: replicas, shard: 1, zero },
    parts,
    machine,
  );
  if (published.unit === "tokens/s") return (batch * model.tokens) / seconds / gpus;
  return (batch * (layers + attention + head)) / seconds / gpus / 1e12;
}
