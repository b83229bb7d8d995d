// A char-LSTM learns to write like Shakespeare, byte by byte. Data: tinyshakespeare.txt under
// LOCKSTEP_DATA.
import {
  adamw,
  cosine,
  crossEntropy,
  defineModel,
  defineRun,
  embedding,
  linear,
  lstm,
  text,
} from "lockstep";

const folder = process.env.LOCKSTEP_DATA ?? "data";
const context = 48;

const charLstm = defineModel("char-lstm", (m) => {
  const ids = m.input("ids", [m.batch, context], "int32");
  const targets = m.input("targets", [m.batch, context], "int32");

  const initializer = { kind: "normal", standardDeviation: 1 } as const;
  const x = embedding(m.child("bytes"), ids, { vocabulary: 256, width: 32, initializer });
  const { y } = lstm(m.child("lstm"), x, { hidden: 128 });
  const logits = linear(m.child("head"), y, { outputs: 256 });
  return { loss: crossEntropy(logits, targets), logits };
});

export default defineRun({
  name: "char-lstm",
  model: charLstm,
  data: text(`${folder}/tinyshakespeare.txt`),
  optimizer: adamw({ learningRate: 1e-2 }),
  schedule: cosine({ warmup: 10, final: 0.05 }),
  clipNorm: 1,
  batch: 32,
  steps: 1200,
  sample: { prompt: "ROMEO:", tokens: 400 },
});
