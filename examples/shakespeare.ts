// A small GPT learns to write like Shakespeare, byte by byte. Data: tinyshakespeare.txt under
// LOCKSTEP_DATA.
import { adamw, cosine, defineRun, gpt, text } from "lockstep";

const folder = process.env.LOCKSTEP_DATA ?? "data";

export default defineRun({
  name: "shakespeare",
  model: gpt({
    layers: 4,
    width: 128,
    heads: 4,
    context: 128,
    positions: "rotary",
    norm: "rms",
    activation: "swiglu",
    bias: false,
    dropout: 0.1,
  }),
  data: text(`${folder}/tinyshakespeare.txt`),
  optimizer: adamw({ learningRate: 2e-3 }),
  schedule: cosine({ warmup: 50, final: 0.1 }),
  clipNorm: 1,
  batch: 16,
  steps: 1000,
  sample: { prompt: "ROMEO:", tokens: 400 },
});
