// An encoder learns to guess hidden bytes of text. Data: tinyshakespeare.txt under LOCKSTEP_DATA.
import { adamw, bert, cosine, defineRun, text } from "lockstep";

const folder = process.env.LOCKSTEP_DATA ?? "data";

export default defineRun({
  name: "bert",
  model: bert({ layers: 4, width: 128, heads: 4, context: 64 }),
  data: text(`${folder}/tinyshakespeare.txt`),
  optimizer: adamw({ learningRate: 2e-3 }),
  schedule: cosine({ warmup: 100, final: 0.1 }),
  clipNorm: 1,
  batch: 32,
  steps: 1500,
});
