// A perceptron reads handwritten digits. Data: the MNIST files under LOCKSTEP_DATA.
import { adamw, defineRun, idxImages, linearSchedule, mlp } from "lockstep";

const folder = process.env.LOCKSTEP_DATA ?? "data";

export default defineRun({
  name: "mnist-mlp",
  model: mlp({ inputs: [1, 28, 28], hidden: [256, 128], outputs: 10, dropout: 0.1 }),
  data: idxImages({
    images: `${folder}/mnist/t10k-images-idx3-ubyte.gz`,
    labels: `${folder}/mnist/t10k-labels-idx1-ubyte.gz`,
  }),
  optimizer: adamw({ learningRate: 2e-3 }),
  schedule: linearSchedule(),
  batch: 64,
  steps: 1000,
});
