/** The models of the comparison with one process: small ones, of each kind, and exports of PyTorch. */
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { crossEntropy, mse, onnx } from "../src/import/index.ts";
import { bert, dlrm, gpt, type ModelDefinition, resnet } from "../src/nn/index.ts";

export interface ComparedModel {
  readonly name: string;
  readonly definition: ModelDefinition;
  /** Integers of its batch are below it. */
  readonly classes: number;
  /**
   * Whether its objective depends on the number of micro-batches, as that of batch normalization
   * does.
   */
  readonly hasGhosts?: boolean;
  /** Whether real processes train it, too, in the ways for which that is stated. */
  readonly inProcesses?: boolean;
}

const fixtures = join(dirname(fileURLToPath(import.meta.url)), "../../test/onnx/fixtures");
const VOCABULARY = 24;
const size = { layers: 2, width: 32, heads: 8, context: 16, vocabulary: VOCABULARY };
const exported = (name: string, loss: "mse" | "classes", labels = "target"): ModelDefinition => {
  const [file, length] = name.split(" of length ") as [string, string | undefined];
  const output = file.startsWith("trained/") ? "out" : "output";
  return onnx(join(fixtures, `${file}.onnx`), {
    ...(length === undefined ? {} : { dims: { length: Number(length) } }),
    loss:
      loss === "mse"
        ? mse({ prediction: output, target: labels })
        : crossEntropy({ logits: output, labels }),
  });
};

export const MODELS: readonly ComparedModel[] = [
  { name: "GPT, tied", definition: gpt({ ...size, dropout: 0.1 }), classes: VOCABULARY },
  {
    name: "Llama, grouped queries",
    definition: gpt({
      ...size,
      kvHeads: 4,
      positions: "rotary",
      activation: "swiglu",
      norm: "rms",
      tied: false,
      bias: false,
    }),
    classes: VOCABULARY,
    inProcesses: true,
  },
  {
    name: "BERT",
    definition: bert({ ...size, vocabulary: VOCABULARY + 1, dropout: 0.1, segments: 2 }),
    classes: 2,
  },
  {
    name: "ResNet",
    definition: resnet({
      image: [3, 8, 8],
      classes: 12,
      blocks: [1, 2],
      channels: [8, 16],
      stem: "small",
    }),
    classes: 12,
    hasGhosts: true,
    inProcesses: true,
  },
  {
    name: "DLRM",
    definition: dlrm({
      dense: 5,
      categories: [24, 32, 40, 28],
      width: 8,
      bottom: [16],
      top: [16, 8],
    }),
    classes: 24,
  },
  {
    name: "experts, dropless",
    definition: gpt({ ...size, experts: { count: 4, zLoss: 1e-3 } }),
    classes: VOCABULARY,
  },
  {
    name: "experts, with a capacity",
    definition: gpt({
      ...size,
      activation: "swiglu",
      norm: "rms",
      experts: { count: 4, capacity: 1.25, every: 2 },
    }),
    classes: VOCABULARY,
    inProcesses: true,
  },
  { name: "export: MLP", definition: exported("mlp-17", "mse"), classes: 2 },
  {
    name: "export: CNN with normalization",
    definition: exported("cnn-train-15", "classes", "labels"),
    classes: 4,
    hasGhosts: true,
  },
  {
    name: "export: GPT-like encoder",
    definition: exported("encoder-17 of length 8", "classes", "labels"),
    classes: 20,
    inProcesses: true,
  },
  {
    name: "export: nn.TransformerEncoder",
    definition: exported("torch-encoder-16 of length 8", "mse"),
    classes: 2,
  },
  {
    name: "export: LSTM, GRU and RNN",
    definition: exported("trained/recurrent.new", "mse"),
    classes: 2,
  },
  {
    name: "export: windows of attention",
    definition: exported("trained/windows.new", "mse"),
    classes: 2,
  },
  { name: "export: tied embedding", definition: exported("trained/tied.new", "mse"), classes: 7 },
];
