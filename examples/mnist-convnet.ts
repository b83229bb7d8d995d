// A convolutional network reads handwritten digits. Data: the MNIST files under LOCKSTEP_DATA.
import { adamw, convnet, defineRun, idxImages, linearSchedule } from "lockstep";

const folder = process.env.LOCKSTEP_DATA ?? "data";

export default defineRun({
  name: "mnist-convnet",
  model: convnet({ image: [1, 28, 28], classes: 10, channels: [16, 32], hidden: 64 }),
  data: idxImages({
    images: `${folder}/mnist/t10k-images-idx3-ubyte.gz`,
    labels: `${folder}/mnist/t10k-labels-idx1-ubyte.gz`,
  }),
  optimizer: adamw({ learningRate: 2e-3 }),
  schedule: linearSchedule(),
  batch: 64,
  steps: 600,
});
