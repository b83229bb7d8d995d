// A residual network with batch normalization reads handwritten digits. Data: the MNIST files under
// LOCKSTEP_DATA.
import { cosine, defineRun, idxImages, resnet, sgd } from "lockstep";

const folder = process.env.LOCKSTEP_DATA ?? "data";

export default defineRun({
  name: "mnist-resnet",
  model: resnet({
    image: [1, 28, 28],
    classes: 10,
    blocks: [1, 1, 1],
    channels: [8, 16, 32],
    stem: "small",
  }),
  data: idxImages({
    images: `${folder}/mnist/t10k-images-idx3-ubyte.gz`,
    labels: `${folder}/mnist/t10k-labels-idx1-ubyte.gz`,
  }),
  optimizer: sgd({ learningRate: 0.2, momentum: 0.9, nesterov: true, weightDecay: 5e-4 }),
  schedule: cosine({ warmup: 20 }),
  batch: 64,
  steps: 300,
});
