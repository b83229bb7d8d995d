// A layer of your own: a gate for each channel (squeeze and excitation, Hu et al. 2018).
import {
  adamw,
  classify,
  conv2d,
  defineModel,
  defineRun,
  flatten,
  globalAveragePool,
  idxImages,
  linear,
  maxPool,
  mul,
  relu,
  reshape,
  type Scope,
  sigmoid,
  type Value,
} from "lockstep";

const folder = process.env.LOCKSTEP_DATA ?? "data";

/** A layer is a function of scope, input and options. Its gradient follows from its operators. */
function channelGate(scope: Scope, x: Value, { squeeze }: { squeeze: number }): Value {
  return scope.within(() => {
    const [batch = 0, channels = 0] = x.shape;
    if (channels % squeeze !== 0) {
      scope.fail(`${channels} channels cannot be squeezed by ${squeeze}`, "Set a divisor.");
    }
    const mean = globalAveragePool(scope, x);
    const few = relu(linear(scope.child("down"), mean, { outputs: channels / squeeze }));
    const gate = sigmoid(linear(scope.child("up"), few, { outputs: channels }));
    return mul(x, reshape(gate, [batch, channels, 1, 1]));
  });
}

const gated = defineModel("gated", (m) => {
  let x = m.input("image", [m.batch, 1, 28, 28]);
  for (const [index, outputs] of [8, 16].entries()) {
    const stage = m.child("stages").child(index);
    x = relu(conv2d(stage.child("conv"), x, { outputs, kernel: 3, padding: "same" }));
    x = maxPool(stage, channelGate(stage.child("gate"), x, { squeeze: 4 }), { kernel: 2 });
  }
  return classify(m, linear(m.child("head"), flatten(x), { outputs: 10 }));
});

export default defineRun({
  name: "own-layer",
  model: gated,
  data: idxImages({
    images: `${folder}/mnist/t10k-images-idx3-ubyte.gz`,
    labels: `${folder}/mnist/t10k-labels-idx1-ubyte.gz`,
  }),
  optimizer: adamw({ learningRate: 5e-3 }),
  batch: 64,
  steps: 400,
});
