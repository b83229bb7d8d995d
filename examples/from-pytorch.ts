// A network that PyTorch exported (test/onnx/make_fixtures.py says how) learns handwritten digits,
// without Python. Data: the MNIST files under LOCKSTEP_DATA.
import { adamw, crossEntropy, defineRun, idxImages, onnx } from "lockstep";

const folder = process.env.LOCKSTEP_DATA ?? "data";

export default defineRun({
  name: "from-pytorch",
  model: onnx("examples/assets/digits.onnx", {
    loss: crossEntropy({ logits: "logits", labels: "label" }),
    // To train only the head: trainable: /^head\./
  }),
  data: idxImages({
    images: `${folder}/mnist/t10k-images-idx3-ubyte.gz`,
    labels: `${folder}/mnist/t10k-labels-idx1-ubyte.gz`,
  }),
  optimizer: adamw({ learningRate: 2e-3 }),
  batch: 64,
  steps: 600,
});
