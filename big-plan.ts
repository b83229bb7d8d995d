import { adamw, defineRun, gpt, text } from "./dist/index.js";
export default defineRun({
  model: gpt({ layers: 12, width: 768, heads: 12, context: 1024, vocabulary: 50304 }),
  data: text("*.txt"),
  optimizer: adamw({ learningRate: 1e-3 }),
  batch: +(process.env.MB ?? 1024), microBatches: +(process.env.MB ?? 1024), steps: 4, name: "big",
});
