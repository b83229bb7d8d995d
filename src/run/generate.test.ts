import assert from "node:assert/strict";
import { after, test } from "node:test";
import { byteTokenizer } from "../data/index.ts";
import { createOrtEngine, createReferenceEngine, evaluate } from "../engine/index.ts";
import { gather, reduceMean } from "../functional/index.ts";
import { type Graph, typeOf } from "../graph/index.ts";
import { defineModel, gpt, mlp } from "../nn/index.ts";
import { sgd } from "../optimizer/index.ts";
import { formatType, type Tensor, tensorFrom, toNumbers } from "../tensor/index.ts";
import { createTrainer } from "../train/create.ts";
import { bindWeights, forwardGraph } from "./forward.ts";
import { type GenerateOptions, generateText } from "./generate.ts";

const engine = createOrtEngine({ threads: 2 });
const reference = createReferenceEngine();
after(async () => {
  await engine.close();
  await reference.close();
});
const tokenizer = byteTokenizer();

/** Returns a small model with its initial weights, for one sample. */
async function smallModel(): Promise<Graph> {
  const definition = gpt({ layers: 1, width: 16, heads: 2, context: 8 });
  const model = definition.build({ batch: 1, mode: "train" });
  const optimizer = sgd({ learningRate: 1 });
  const trainer = await createTrainer({ engine, model, optimizer, seed: 3 });
  try {
    const copies = Object.entries((await trainer.read()).parameters).map(
      ([name, { dtype, shape, bytes }]) =>
        [name, { dtype, shape, bytes: Uint8Array.from(bytes) }] as const,
    );
    return bindWeights(
      forwardGraph(definition.build({ batch: 1, mode: "eval" })),
      Object.fromEntries(copies),
    );
  } finally {
    trainer.close();
  }
}

/**
 * Returns a "language model" that knows one text by heart: it predicts the byte that follows each
 * byte. Bytes must not repeat.
 */
function parrot(bytes: readonly number[]): Graph {
  const model = defineModel("parrot", (m) => {
    const ids = m.input("ids", [m.batch, 4], "int32");
    const table = m.parameter("table", [256, 256], { kind: "zeros" });
    const logits = gather(table, ids);
    return { loss: reduceMean(logits, { keepdims: false }), logits };
  }).build({ batch: 1, mode: "eval" });
  const scores = new Array<number>(256 * 256).fill(0);
  for (const [index, byte] of bytes.entries()) {
    const before = index === 0 ? tokenizer.separator : (bytes[index - 1] as number);
    scores[256 * before + byte] = 50;
  }
  return bindWeights(forwardGraph(model), { table: tensorFrom("float32", [256, 256], scores) });
}

async function pieces(options: Omit<GenerateOptions, "engine" | "tokenizer">): Promise<string[]> {
  const made: string[] = [];
  for await (const piece of generateText({ engine, tokenizer, ...options })) made.push(piece);
  return made;
}

test("the forward graph has weights as constants, and no loss, label or random key", async () => {
  const graph = await smallModel();
  assert.deepEqual(graph.inputs, ["ids"]);
  assert.deepEqual(graph.outputs, ["logits"]);
  assert.equal(formatType(typeOf(graph, "logits")), "float32[1, 8, 256]");
});

test("at temperature 0 each token is the most likely one, also beyond the end of the context", async () => {
  const graph = await smallModel();
  const history = [tokenizer.separator, ...tokenizer.encode("ab")];
  const tokens = 14;
  for (let made = 0; made < tokens; made++) {
    const seen = history.slice(-8);
    const ids: Tensor = tensorFrom(
      "int32",
      [1, 8],
      [...seen, ...new Array(8 - seen.length).fill(0)],
    );
    const logits = toNumbers((await evaluate(reference, graph, { ids }))["logits"] as Tensor);
    const row = logits.slice(256 * (seen.length - 1), 256 * seen.length);
    history.push(row.indexOf(Math.max(...row)));
  }
  const text = (await pieces({ graph, prompt: "ab", tokens, temperature: 0 })).join("");
  assert.equal(text, tokenizer.decode(history.slice(1)));
  const other = await pieces({ graph, prompt: "ab", tokens, temperature: 0, seed: 9 });
  assert.equal(other.join(""), text, "no seed has a say");
});

test("the same seed gives the same text, and another seed a different one", async () => {
  const graph = await smallModel();
  const make = async (seed: number) =>
    (await pieces({ graph, prompt: "", tokens: 12, temperature: 1, seed })).join("");
  assert.equal(await make(1), await make(1));
  assert.notEqual(await make(1), await make(2));
});

test("a character is emitted when its last byte is there, never in parts", async () => {
  const text = "aé€😀z";
  const bytes = [...Buffer.from(text, "utf8")];
  assert.equal(new Set(bytes).size, bytes.length);
  const graph = parrot(bytes);
  const made = await pieces({ graph, prompt: "", tokens: bytes.length, temperature: 0.5 });
  assert.deepEqual(
    made.filter((piece) => piece !== ""),
    ["a", "é", "€", "😀", "z"],
  );
  const cut = await pieces({ graph, prompt: "a", tokens: 3, temperature: 0 });
  assert.equal(
    cut.join(""),
    "aé\ufffd",
    "the rest of an unfinished character is said to be missing",
  );
});

test("a model that is not a language model is refused", async () => {
  const model = mlp({ inputs: 4, hidden: [], outputs: 2 }).build({ batch: 1, mode: "eval" });
  const weights = model.parameters.map(({ name, type }) => {
    const values = new Array<number>(type.shape.reduce((a, b) => a * b, 1)).fill(0);
    return [name, tensorFrom(type.dtype, type.shape, values)] as const;
  });
  const graph = bindWeights(forwardGraph(model), Object.fromEntries(weights));
  await assert.rejects(pieces({ graph, prompt: "", tokens: 1 }), { code: "INVALID_OPTION" });
});
