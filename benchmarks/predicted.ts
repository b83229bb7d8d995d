/**
 * What does the cost model say of runs that others have published, with the figures of their
 * hardware put in? Nothing runs here: models are described by their sizes, and `dividedCost` prices
 * the way that was published. Each hardware has one utilisation, the one with which its rows err
 * least (mean of the logarithms), so that only what lies between rows is a witness; no row has a
 * constant of its own.
 */
import { evenTopology } from "../src/mesh/index.ts";
import type { Work } from "../src/ops/index.ts";
import { dividedCost } from "../src/parallel/index.ts";
import { type ScheduleName, type StepFacts, timetableOf } from "../src/plan/index.ts";
import { PUBLISHED, type Published } from "./published.ts";
import { parametersOf, workOfPasses } from "./published-work.ts";
import type { Benchmark, Row } from "./report.ts";

const LATENCY = 2e-5;

/** The most by which a prediction may differ. */
const GOAL = 0.15;

export const predicted: Benchmark = {
  name: "predicted",
  question:
    "what the cost model predicts of published runs on other hardware, and by how much it errs",
  run: () => {
    const rows = PUBLISHED.map((published): Row => {
      const value = predictedOf(published);
      // Of speeds.
      const ratio = published.unit === "s" ? published.value / value : value / published.value;
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

type Turn = { readonly stage: number; readonly direction: "F" | "B" | "W" };

function predictedOf(published: Published): number {
  const { hardware, model, gpus, tensor, context, pipeline, stages, zero, batch } = published;
  const parts = tensor * pipeline;
  // Parameters are sharded over the ranks of `context`, too, as if each had micro-batches of its own.
  const replicas = gpus / parts;
  const { layer, head } = parametersOf(model);
  const held = (model.layers * layer + head * (model.isLlama ? 2 : 1)) / parts;
  const parameters = 2 * held;
  const { F, B } = workOfPasses(published);
  const work = [...F, ...B];
  const pass = { between: 0, within: 0 };
  const facts: StepFacts = {
    microBatches: (batch * context) / published.microBatch,
    parameters,
    // torchtitan sums in 32 bits, and Megatron in 16.
    gradients: (zero === 3 ? 4 : 2) * held,
    slots: 12 * held,
    wholeSlots: 0,
    scratch: 0,
    wholeRule: undefined,
    largestGradient: (4 * head) / parts,
    largestUnit: (2 * layer) / tensor,
    gathered: 2 * parameters,
    flops: work.reduce((sum, { flops }) => sum + flops, 0),
    work,
    pass,
    inPieces: () => pass,
    isRepeating: false,
  };
  const { forward, backward, crossing } = exchangesOf(published);
  const isOne = pipeline === 1;
  const machine = {
    topology: evenTopology(gpus, gpus),
    memory: Number.POSITIVE_INFINITY,
    lanes: 1,
    flopsPerSecond: hardware.peak.half * hardware.utilisation,
    link: { latency: LATENCY, bytesPerSecond: gpus <= 8 ? hardware.within : hardware.between },
    bucketBytes: 2 ** 25,
    memorySpeed: hardware.memorySpeed,
  };
  const exchanged = { seconds: forward + backward, bytes: 0, given: 0 };
  const part = { facts, pass, brought: 0, exchanged, termsRead: 0 };
  const name: ScheduleName = stages === 1 ? "1f1b" : `interleaved-${stages}`;
  const times = (own: readonly Work[]) =>
    own.map(({ flops, bytes }) => ({ flops: flops / stages, bytes: bytes / stages }));
  const [ofF, ofB] = [times(F), times(B)];
  const timeline = {
    timetable: (size: Parameters<typeof timetableOf>[1]) => timetableOf(name, size),
    needs: (turn: Turn) => needsOf(turn, pipeline * stages),
    workOf: ({ direction }: Turn) => (direction === "F" ? ofF : ofB),
    exchangedIn: ({ direction }: Turn) =>
      (direction === "F" ? forward : backward) / stages + crossing,
    keptOf: () => 0,
  };
  const { seconds } = dividedCost(
    {
      parts: Array.from({ length: pipeline }, () => part),
      pipeline: isOne ? undefined : timeline,
    },
    zero === 3 ? { data: 1, shard: replicas, zero } : { data: replicas, shard: 1, zero },
    parts,
    machine,
  );
  if (published.unit === "s") return seconds;
  if (published.unit === "tokens/s") return (batch * published.tokens) / seconds / gpus;
  return (batch * flopsOfSample(published)) / seconds / gpus / 1e12;
}

/** The parts that make what a part of a stage reads. */
function needsOf({ stage, direction }: Turn, stages: number): readonly Turn[] {
  if (direction === "F") return stage === 0 ? [] : [{ stage: stage - 1, direction }];
  const own: Turn = { stage, direction: "F" };
  return stage === stages - 1 ? [own] : [own, { stage: stage + 1, direction }];
}

/** The seconds of exchanges of a micro-batch, in the forward and the backward part of a rank. */
function exchangesOf(published: Published) {
  const { hardware, model, tensor, context, pipeline, microBatch, again } = published;
  const tokens = (microBatch * published.tokens) / context;
  const layers = model.layers / pipeline;
  const value = 2 * tokens * model.width;
  // Two sums in each layer, and two more where it is computed again. Of the two halves of a sum,
  // torchtitan gathers in 8 bits.
  const halves = published.isEighth ? 1.5 : 2;
  const sum = LATENCY + (halves * value * (tensor - 1)) / tensor / hardware.within;
  const sums = tensor === 1 || published.isBeside ? 0 : 2 * layers * sum;
  // Keys and values of all tokens, repeated for each head as in torchtitan (`repeat_kv`), and in the
  // backward part their gradients as well.
  const link = tensor === 1 ? hardware.within : hardware.between;
  const keys = (2 * 2 * microBatch * published.tokens * model.width) / tensor;
  const gathered = LATENCY + (keys * (context - 1)) / context / link;
  const ring = context === 1 ? 0 : layers * gathered;
  return {
    forward: sums + ring,
    backward: (1 + (again === 1 ? 1 : 0)) * sums + (2 + (again === 1 ? 1 : 0)) * ring,
    crossing: pipeline === 1 ? 0 : LATENCY + value / tensor / hardware.between,
  };
}

/** As Narayanan et al. count them, with what is computed again. */
function flopsOfSample({ model, tokens, again }: Published): number {
  const { layer, head } = parametersOf(model);
  const passes = 3 + again;
  const layers = 2 * passes * model.layers * layer * tokens;
  const attention = 4 * passes * model.layers * model.width * tokens ** 2;
  return layers + attention + 6 * head * tokens;
}
