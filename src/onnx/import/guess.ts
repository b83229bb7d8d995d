/**
 * The weights of files that do not say what their initializers are: by the older exporter of PyTorch, by Keras, JAX and
 * others. Names, who reads a weight and what is in it decide; what they leave open is said.
 */
import { elementCount, type Tensor, toNumbers } from "../../tensor/index.ts";
import type { OnnxFile } from "../read.ts";
import type { RawGraph, RawNode, RawTensor } from "../schema.ts";
import { GraphEdit } from "./edit.ts";
import { MADE_UP, moduleNames, path, WEIGHTS } from "./module-names.ts";
import { tensorflowNotices, WrittenOut } from "./others.ts";
import { Recurrences } from "./recurrent.ts";
import { areTransposed } from "./same.ts";
import {
  floatInitializers,
  isUniform,
  moduleOf,
  nestedReaders,
  type Read,
  type Reader,
  readsOf,
  type Weight,
  type WeightPlan,
} from "./weights.ts";

/** Inputs that hold weights if they are no masks. */
const FACTORS: Readonly<Record<string, readonly number[]>> = {
  MatMul: [0, 1],
  Gather: [0],
  InstanceNormalization: [1, 2],
};
/** Operators of which no input but the first can be a weight. */
const SETTINGS = [
  "Where",
  "Clip",
  "Pad",
  "Resize",
  "Upsample",
  "Range",
  "Dropout",
  "Tile",
  "OneHot",
];
const COMPARISONS = ["Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Min", "Max"];

/** Names of weights in the modules that people write. */
const PARAMETER_NAMES =
  /(^|[._/:])(\w*weight\w*|\w*bias|bias_[ih]h\w*|gamma\w*|beta\w*|kernel|\w*token\w*|\w*embed\w*|\w*scale\w*|alpha|slope\w*|\w*bias_table|\w*_emb|query|latents?|temperature|ls\d?|layer_scale\w*|w\d?|b\d?|ReadVariableOp(\/resource)?)(:0)?$/i;
/** Names of what modules keep as buffers. */
const BUFFER_NAMES =
  /(mask|inv_freq|freqs|cos|sin|rotary|sinusoid|slopes$|alibi|anchor|(^|[._])(mean|std|pe)$|(^|\.)table$|position_ids|final_logits_bias|running_|moving_(mean|var)|_index$|\bbuffer)/i;

/** A weight or bias of a convolution that a normalization was folded into: no weight of the state dict any more. */
const FUSED = /^onnx::Conv_\d+$/;

type Judgement = Pick<Weight, "role" | "why" | "unclear">;

export function guessWeights(file: OnnxFile): WeightPlan {
  return new Guess(file).plan();
}

class Guess {
  readonly #file: OnnxFile;
  readonly #graph: RawGraph;
  readonly #floats: ReadonlyMap<string, RawTensor>;
  readonly #edit: GraphEdit;
  readonly #weights = new Map<string, Weight>();
  readonly #notices: string[] = [];
  readonly #unclear: string[] = [];
  readonly #isTorch: boolean;
  /** Modules with an InstanceNormalization. */
  readonly #grouping: ReadonlySet<string>;
  readonly #writtenOut: WrittenOut;

  constructor(file: OnnxFile) {
    this.#file = file;
    this.#graph = file.model.graph;
    this.#floats = floatInitializers(file);
    this.#edit = new GraphEdit(this.#graph);
    this.#isTorch = file.model.producerName === "pytorch";
    this.#writtenOut = new WrittenOut(this.#graph);
    const instances = this.#graph.node.filter(({ opType }) => opType === "InstanceNormalization");
    this.#grouping = new Set(instances.map(({ name }) => path(name)));
  }

  plan(): WeightPlan {
    const { names, reads } = this.#ownNames();
    const modules = moduleNames(this.#graph, this.#floats, names);
    const packed = this.#recurrent(reads, names);
    for (const [given, all] of reads) {
      const places = all.filter((read) => !packed.has(read));
      if (places.length === 0) continue;
      const initializer = names.get(given) ?? given;
      const tensor = this.#file.tensor(this.#floats.get(initializer) as RawTensor);
      const readers = places.map(({ node, input }) => {
        return { node: this.#graph.node[node] as RawNode, input };
      });
      const judged = this.#judge(given, readers, tensor);
      const module = modules.get(given);
      const wanted = FUSED.test(given) ? given : (module?.name ?? given);
      const name = this.#free(wanted) ? wanted : given;
      this.#edit.copy(initializer, name);
      for (const place of places) this.#edit.redirect(place, name);
      const layout = module?.layout ?? "same";
      const also = module === undefined || name === module.name ? {} : { module: module.name };
      this.#weights.set(name, { name, ...judged, given, layout, ties: [], ...also });
    }
    this.#nested(reads);
    this.#tie();
    this.#say();
    return { graph: this.#edit.result(), weights: this.#weights, notices: this.#notices, lost: [] };
  }

  /** Gives recurrent layers their parameters, where the file tells of them; returns the reads of those. */
  #recurrent(
    reads: ReadonlyMap<string, readonly Read[]>,
    names: ReadonlyMap<string, string>,
  ): ReadonlySet<Read> {
    const recurrences = new Recurrences(this.#file, this.#floats, this.#edit);
    const real = [...this.#floats.keys(), ...names.keys()].filter((name) => !MADE_UP.test(name));
    const all = [...reads.values()].flat();
    const found = recurrences.ofScopes(all, new Set(real.map(moduleOf)), this.#isTorch);
    for (const weight of found.weights) this.#weights.set(weight.name, weight);
    this.#notices.push(...recurrences.notices());
    return found.taken;
  }

  /** Weights that only branches and bodies of loops read. */
  #nested(reads: ReadonlyMap<string, unknown>): void {
    const readers = nestedReaders(this.#graph);
    for (const [name, raw] of this.#floats) {
      const nodes = readers.get(name);
      if (nodes === undefined || reads.has(name) || !this.#free(name)) continue;
      const judged = this.#judge(name, nodes, this.#file.tensor(raw));
      this.#weights.set(name, { name, ...judged, given: name, layout: "same", ties: [] });
    }
  }

  #free(name: string): boolean {
    return !this.#weights.has(name);
  }

  /**
   * The older exporter merges equal initial values and keeps the other name as that of an Identity. A weight that modules
   * really share has one name only, so these are weights of their own; copies that it made of one weight are not.
   */
  #ownNames(): { names: Map<string, string>; reads: Map<string, Read[]> } {
    const names = new Map<string, string>();
    const reads = new Map<string, Read[]>();
    const source = (name: string): string => names.get(name) ?? name;
    for (const { opType, input, output } of this.#graph.node) {
      const [from = ""] = input;
      const [to = ""] = output;
      const raw = opType === "Identity" ? this.#floats.get(source(from)) : undefined;
      // Others than PyTorch may have tied them on purpose, unless all their elements are equal.
      if (raw !== undefined && (this.#isTorch || isUniform(this.#file.tensor(raw)))) {
        names.set(to, source(from));
      }
    }
    const modules = moduleNames(this.#graph, this.#floats, names);
    for (const [node, { input, opType, output }] of this.#graph.node.entries()) {
      if (opType === "Identity" && names.has(output[0] ?? "")) continue;
      for (const [index, read] of input.entries()) {
        const initializer = source(read);
        if (!this.#floats.has(initializer)) continue;
        const isCopy = modules.get(read)?.name === modules.get(initializer)?.name;
        const own = read !== initializer && MADE_UP.test(read) && isCopy ? initializer : read;
        reads.set(own, [...(reads.get(own) ?? []), { node, input: index, initializer }]);
      }
    }
    return { names, reads };
  }

  #judge(name: string, nodes: readonly Reader[], tensor: Tensor): Judgement {
    const reader = nodes.find(({ node, input }) => WEIGHTS[node.opType]?.includes(input));
    if (reader !== undefined) return parameter(`${reader.node.opType} has its weights there`);
    const statistic = nodes.some(
      ({ node, input }) => node.opType === "BatchNormalization" && input > 2,
    );
    if (statistic) return { role: "statistic", why: "a running statistic" };
    if (BUFFER_NAMES.test(name)) return constant("it is named as buffers are");
    if (isMask(tensor)) return constant("it holds what masks hold");
    const factor = nodes.find(({ node, input }) => FACTORS[node.opType]?.includes(input));
    const isSetting = nodes.every(
      ({ node, input }) =>
        COMPARISONS.includes(node.opType) || (input > 0 && SETTINGS.includes(node.opType)),
    );
    if (isSetting) return constant(`${nodes[0]?.node.opType} reads it as a setting`);
    const isNamed = PARAMETER_NAMES.test(name) && !MADE_UP.test(name);
    if (isNamed) return parameter("it is named as parameters are");
    if (factor !== undefined && !isUniform(tensor)) {
      return parameter(`${factor.node.opType} reads it as a factor`);
    }
    // PyTorch keeps the names of biases: what has none there was computed.
    const isComputed = MADE_UP.test(name) && this.#isTorch;
    if (!isComputed && nodes.some(({ node }) => this.#isBiasOf(node, tensor))) {
      return parameter("it is a bias");
    }
    // Converters write numbers of formulas as weights too.
    const isNumber = elementCount(tensor.shape) === 1 && (MADE_UP.test(name) || !this.#isTorch);
    if (isNumber) return constant("a number");
    if (isComputed && nodes.some(({ node }) => this.#isOfGroups(node))) {
      return parameter("a group normalization has its weights there");
    }
    const isScale = nodes.some(({ node }) => this.#writtenOut.scalesOrShifts(node, name));
    if (isScale && !this.#isTorch) return parameter("it scales or shifts what was normalized");
    this.#unclear.push(name);
    if (MADE_UP.test(name) && (!isComputed || tensor.bytes.every((byte) => byte === 0))) {
      return { ...constant("the exporter made it; nothing says of what"), unclear: true };
    }
    return { ...parameter("nothing says that it is not"), unclear: true };
  }

  /** Whether a node scales or shifts what an InstanceNormalization of the same module gave. */
  #isOfGroups({ opType, name }: RawNode): boolean {
    return (opType === "Mul" || opType === "Add") && this.#grouping.has(path(name));
  }

  /** A vector that is added to the product of weights. */
  #isBiasOf(node: RawNode, tensor: Tensor): boolean {
    if (node.opType !== "Add" || tensor.shape.filter((size) => size > 1).length > 1) return false;
    return node.input.some((input) =>
      this.#graph.node.some(
        ({ opType, output }) =>
          output.includes(input) && (opType === "MatMul" || opType === "Conv"),
      ),
    );
  }

  /** A folded transposed copy of a weight that the file has too is that weight. */
  #tie(): void {
    const matrices = [...this.#weights.values()].filter(({ role }) => role === "parameter");
    for (const copy of matrices) {
      if (copy.layout !== "transposed") continue;
      const own = this.#tensor(copy.given);
      if (own === undefined || isUniform(own)) continue;
      const source = matrices.find(({ name, layout, given }) => {
        const other = layout === "same" && name !== copy.name ? this.#tensor(given) : undefined;
        return other !== undefined && areTransposed(other, own);
      });
      if (source === undefined) continue;
      const turned = this.#edit.prepend("Transpose", [source.name], `${source.name}/transposed`, {
        perm: [1, 0],
      });
      for (const place of readsOf(
        { ...this.#graph, node: this.#edit.nodes },
        new Map([[copy.name, this.#floats.get(copy.given) as RawTensor]]),
      )) {
        this.#edit.redirect(place, turned);
      }
      this.#weights.delete(copy.name);
      this.#weights.set(source.name, { ...source, ties: [...source.ties, copy.name] });
    }
  }

  #tensor(given: string): Tensor | undefined {
    const raw = this.#floats.get(given);
    return raw === undefined || raw.dims.length !== 2 ? undefined : this.#file.tensor(raw);
  }

  #say(): void {
    if (this.#unclear.length > 0) {
      const roles = this.#unclear.map((given) => {
        const role = [...this.#weights.values()].find((weight) => weight.given === given)?.role;
        return `${given} (${role === "parameter" ? "trained" : "constant"})`;
      });
      this.#notices.push(
        `The file does not say which of these are parameters: ${roles.slice(0, 8).join(", ")}` +
          `${roles.length > 8 ? ", …" : ""}. Say it with parameters or trainable.`,
      );
    }
    if (this.#file.model.producerName === "tf2onnx") {
      this.#notices.push(...tensorflowNotices(this.#graph, this.#floats));
    }
    const fused = [...this.#weights.values()].filter(({ given }) => FUSED.test(given));
    if (this.#isTorch && fused.length > 0) {
      this.#notices.push(
        `The exporter folded normalization into ${fused.length} weights of convolutions, so another model is trained than ` +
          `PyTorch's. Export with training=TrainingMode.TRAINING and do_constant_folding=False to keep it.`,
      );
    }
  }
}

function parameter(why: string): Judgement {
  return { role: "parameter", why };
}

function constant(why: string): Judgement {
  return { role: "constant", why };
}

// A look at so many elements tells a mask.
const MOST_LOOKED_AT = 4096;

/** Zeros and ones, or something as good as infinite. */
function isMask(tensor: Tensor): boolean {
  const count = Math.min(elementCount(tensor.shape), MOST_LOOKED_AT);
  const width = tensor.bytes.byteLength / Math.max(1, elementCount(tensor.shape));
  const bytes = tensor.bytes.subarray(0, count * width);
  const values = new Set(toNumbers({ dtype: tensor.dtype, shape: [count], bytes }));
  if ([...values].some((value) => value < -1e4 || value === Infinity)) return true;
  return values.size === 2 && values.has(0) && values.has(1);
}
