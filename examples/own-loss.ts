// A loss of your own: the quantile loss, so that a network learns the range in which nine of ten
// values lie. A loss is one number made of sums and means over the batch: also of quotients of them
// (a mean over a mask), several of them added, and penalties of weights. It is the loss of the
// whole batch in any number of micro-batches; a loss for which this is impossible is refused before
// the first step.
import {
  adamw,
  add,
  arrays,
  defineModel,
  defineRun,
  maximum,
  mul,
  perceptron,
  reduceMean,
  slice,
  sub,
  tensorFrom,
  type Value,
} from "lockstep";

/**
 * Returns a scalar that is smallest if `quantile` of the targets lie below the prediction (Koenker
 * and Bassett 1978).
 */
function quantileLoss(prediction: Value, target: Value, quantile: number): Value {
  const error = sub(target, prediction);
  const cost = maximum(mul(error, quantile), mul(error, quantile - 1));
  return reduceMean(cost, { keepdims: false });
}

const range = defineModel("range", (m) => {
  const x = m.input("x", [m.batch, 1]);
  const y = m.input("y", [m.batch, 1]);
  const both = perceptron(m.child("network"), x, [32, 32, 2], { activation: "tanh" });
  const low = slice(both, [{ axis: 1, start: 0, end: 1 }]);
  const high = slice(both, [{ axis: 1, start: 1, end: 2 }]);
  return { loss: add(quantileLoss(low, y, 0.05), quantileLoss(high, y, 0.95)), low, high };
});

/** y = sin(3x) and noise that grows with |x|. */
const samples = 4096;
const x = Array.from({ length: samples }, (_, i) => (2 * i) / samples - 1);
const noise = (i: number): number => ((i * 7919) % 1000) / 500 - 1;
const y = x.map((value, i) => Math.sin(3 * value) + (0.1 + 0.4 * Math.abs(value)) * noise(i));

export default defineRun({
  name: "own-loss",
  model: range,
  data: arrays({
    x: tensorFrom("float32", [samples, 1], x),
    y: tensorFrom("float32", [samples, 1], y),
  }),
  optimizer: adamw({ learningRate: 1e-2 }),
  batch: 256,
  steps: 500,
});
