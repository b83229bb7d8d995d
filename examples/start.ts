// `npm start`: a small GPT learns from the type declarations and READMEs that npm installed.
import { cosine, defineRun, gpt, muon, text } from "lockstep";

export default defineRun({
  name: "start",
  model: gpt({ layers: 4, width: 192, heads: 6, context: 128 }),
  data: text(["../node_modules/**/*.d.ts", "../node_modules/**/README.md"]),
  optimizer: muon({ learningRate: 0.02 }),
  schedule: cosine({ warmup: 40, final: 0.02 }),
  clipNorm: 1,
  batch: 16,
  microBatches: 4,
  steps: 1200,
  sample: { prompt: "export interface ", tokens: 400 },
});
