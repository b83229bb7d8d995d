/**
 * One process that measures whole training steps of a char-LSTM, and prints one JSON object.
 * Started by `recurrent.ts`.
 */
import { createOrtEngine } from "../src/engine/index.ts";
import { crossEntropy } from "../src/functional/index.ts";
import { defineModel, embedding, linear, lstm } from "../src/nn/index.ts";
import { adamw } from "../src/optimizer/index.ts";
import { createTrainer } from "../src/train/create.ts";
import type { LstmSizes } from "./peers.ts";
import { median } from "./report.ts";

export interface LstmMeasurement {
  readonly tokensPerSecond: number;
  /** The seconds for building, differentiating and compiling everything. */
  readonly startSeconds: number;
}

interface Request {
  readonly sizes: LstmSizes;
  readonly threads: number;
  readonly repeats: number;
  readonly microBatches: number;
}

const request = JSON.parse(process.argv[2] ?? "{}") as Request;
console.log(JSON.stringify(await measure(request)));

async function measure({ sizes, threads, repeats, microBatches }: Request) {
  const { hidden, context, batch, vocabulary } = sizes;
  const definition = defineModel("char-lstm", (m) => {
    const ids = m.input("ids", [m.batch, context], "int32");
    const targets = m.input("targets", [m.batch, context], "int32");
    const x = embedding(m.child("characters"), ids, { vocabulary, width: hidden });
    const { y } = lstm(m.child("lstm"), x, { hidden });
    const logits = linear(m.child("head"), y, { outputs: vocabulary });
    return { loss: crossEntropy(logits, targets) };
  });
  const engine = createOrtEngine({ threads });
  const start = performance.now();
  const model = definition.build({ batch: batch / microBatches, mode: "train" });
  const optimizer = adamw({});
  const trainer = await createTrainer({ engine, model, optimizer, microBatches, clip: 1, seed: 1 });
  const startSeconds = (performance.now() - start) / 1000;
  const fill = tokens(vocabulary);
  const positions = { start: 0, end: batch };
  for (let i = 0; i < 3; i++) await trainer.step({ positions, fill });
  const times: number[] = [];
  for (let i = 0; i < repeats; i++) {
    const from = performance.now();
    await trainer.step({ positions, fill });
    times.push((performance.now() - from) / 1000);
  }
  trainer.close();
  await engine.close();
  const result: LstmMeasurement = {
    tokensPerSecond: (batch * context) / median(times),
    startSeconds,
  };
  return result;
}

/** Fixed pseudo-random ids, which are the same for every run. */
function tokens(vocabulary: number) {
  return (into: Readonly<Record<string, { readonly bytes: Uint8Array }>>): void => {
    for (const { bytes } of Object.values(into)) {
      const ids = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
      for (let i = 0; i < ids.length; i++) ids[i] = ((i * 7919) % 100_003) % vocabulary;
    }
  };
}
