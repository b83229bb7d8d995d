// An encoder learns to guess hidden bytes of text. Data: tinyshakespeare.txt under LOCKSTEP_DATA.
import { adamw, bert, cosine, defineRun, text } from "lockstep";

const folder = process.env.LOCKSTEP_DATA ?? "data";

export default defineRun({
  name: "bert",
  // Short texts of few kinds of tokens: more of them can be hidden than BERT's 15%.
  model: bert({ layers: 3, width: 96, heads: 4, context: 32, maskRate: 0.3 }),
  data: text(`${folder}/tinyshakespeare.txt`),
  optimizer: adamw({ learningRate: 3e-3, betas: [0.9, 0.98] }),
  schedule: cosine({ warmup: 200, final: 0.1 }),
  clipNorm: 1,
  batch: 32,
  steps: 1500,
});
