/**
 * Finds the weights of files that do not say what their initializers are: files of PyTorch's older
 * exporter, of Keras, JAX and others. The decision follows from names, readers and contents; what
 * they leave open is reported.
 */

import type { OnnxFile, RawGraph, RawNode, RawTensor } from "../onnx/index.ts";
import { elementCount, type Tensor } from "../tensor/index.ts";
import { tieCopies } from "./copies.ts";
import { GraphEdit } from "./edit.ts";
import { MADE_UP, moduleNames, nodeModules, type OwnName, path, WEIGHTS } from "./module-names.ts";
import { tensorflowNotices, WrittenOut } from "./others.ts";
import { ownNames } from "./own-names.ts";
import { Recurrences } from "./recurrent.ts";
import { gatherFrom, type Table, tableOf } from "./tables.ts";
import { unrecorded } from "./training.ts";
import {
  floatInitializers,
  isMask,
  isUniform,
  list,
  nestedReaders,
  type Read,
  type Reader,
  type Weight,
  type WeightPlan,
} from "./weights.ts";

/** The inputs that hold weights, unless they are masks. */
const FACTORS: Readonly<Record<string, readonly number[]>> = {
  MatMul: [0, 1],
  Gather: [0],
  InstanceNormalization: [1, 2],
};
/** Operators of which only the first input can be a weight. */
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

/** Common names of weights in modules. */
const PARAMETER_NAMES =
  /(^|[._/:])(\w*weight\w*|\w*bias|bias_[ih]h\w*|gamma\w*|beta\w*|kernel|\w*token\w*|\w*embed\w*|\w*scale\w*|alpha|slope\w*|\w*bias_table|\w*_emb|query|latents?|temperature|ls\d?|layer_scale\w*|w\d?|b\d?|ReadVariableOp(\/resource)?)(:0)?$/i;
/** Names that only buffers have. */
const BUFFER_NAMES =
  /(inv_freq|freqs|rotary|sinusoid|slopes$|alibi|position_ids|final_logits_bias|running_|moving_(mean|var)|_index$)/i;
/** Names that most often are those of buffers. */
const PERHAPS_BUFFERS = /(^|[._])(mask|cos|sin|anchors?|mean|std|pe|table|ema|buffer\d*)([._]|$)/i;

/**
 * The name of a weight or bias of a convolution into which a normalization was folded: it is no
 * weight of the state dict any more.
 */
const FUSED = /^onnx::Conv_\d+$/;

/** Weights of operators that take them as modules have them: another name is that of a result. */
const COMPUTED = /^onnx::(Gemm|ConvTranspose)_\d+$/;

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
  #unclear: string[] = [];
  readonly #isTorch: boolean;
  readonly #moduleOfNode: (node: string) => string | undefined;
  /** The modules with an InstanceNormalization. */
  readonly #grouping: ReadonlySet<string>;
  readonly #writtenOut: WrittenOut;

  constructor(file: OnnxFile) {
    this.#file = file;
    this.#graph = file.model.graph;
    this.#floats = floatInitializers(file);
    this.#edit = new GraphEdit(this.#graph);
    this.#isTorch = file.model.producerName === "pytorch";
    const identities = this.#graph.node.filter(({ opType }) => opType === "Identity");
    const named = [...this.#floats.keys(), ...identities.flatMap(({ output }) => output)];
    this.#moduleOfNode = nodeModules(named.filter((name) => !MADE_UP.test(name)));
    this.#writtenOut = new WrittenOut(this.#graph);
    const instances = this.#graph.node.filter(({ opType }) => opType === "InstanceNormalization");
    this.#grouping = new Set(instances.map(({ name }) => path(name)));
  }

  plan(): WeightPlan {
    const { names, reads, again } = ownNames(this.#file, this.#floats, this.#moduleOfNode);
    const modules = moduleNames(this.#graph, this.#floats, names);
    const packed = this.#recurrent(reads);
    for (const [given, all] of reads) {
      const places = all.filter((read) => !packed.has(read));
      if (places.length === 0) continue;
      const initializer = names.get(given) ?? given;
      const tensor = this.#file.tensor(this.#floats.get(initializer) as RawTensor);
      const readers = places.map(({ node, input }) => {
        return { node: this.#graph.node[node] as RawNode, input };
      });
      const judged = this.#judge(given, readers, tensor);
      const scope = this.#moduleOfNode(readers[0]?.node.name ?? "");
      const table = this.#tableOf(given, judged, tensor);
      const module = table === undefined ? modules.get(given) : tableName(given, table, scope);
      const wanted = FUSED.test(given) ? given : (module?.name ?? given);
      const name = this.#free(wanted) ? wanted : given;
      const why = table === undefined ? judged.why : "rows of a table that the exporter gathered";
      if (table !== undefined) gatherFrom(this.#edit, table, { name, reads: places, ...tensor });
      else {
        this.#edit.copy(initializer, name);
        for (const place of places) this.#edit.redirect(place, name);
      }
      const layout = module?.layout ?? "same";
      // It can be selected for training by its place in the module, even if its name is not known.
      const isPlaced = module === undefined && MADE_UP.test(given) && scope !== undefined;
      const place = module?.name ?? (isPlaced ? `${scope}.${given}` : name);
      const also = place === name ? {} : { module: place };
      this.#weights.set(name, { name, ...judged, why, given, layout, ties: [], ...also });
    }
    this.#nested(reads);
    const tied = new Set(tieCopies(this.#file, this.#floats, this.#edit, this.#weights));
    this.#unclear = this.#unclear.filter((given) => !tied.has(given));
    this.#say();
    if (again.length > 0) {
      this.#notices.push(
        `${list(again)}: weights of modules that seem to be called again, so each is taken for that of the first call. If they ` +
          `are modules of their own with equal values, export with do_constant_folding=False.`,
      );
    }
    const graph = this.#edit.result();
    const isTrained = (name: string) => this.#weights.get(name)?.role === "parameter";
    const gradients = this.#isTorch ? [unrecorded(graph, isTrained)] : [];
    return { graph, weights: this.#weights, notices: this.#notices, gradients, lost: [] };
  }

  /** The table behind a constant that the exporter gathered and that nobody would write by hand. */
  #tableOf(given: string, { role, unclear }: Judgement, tensor: Tensor): Table | undefined {
    const isOpen = role === "parameter" && unclear === true && MADE_UP.test(given);
    const isVector = tensor.shape.filter((size) => size > 1).length <= 1;
    return isOpen && this.#isTorch && !isVector ? tableOf(tensor) : undefined;
  }

  /**
   * Assigns parameters to recurrent layers, if the file identifies them; returns the reads of
   * those.
   */
  #recurrent(reads: ReadonlyMap<string, readonly Read[]>): ReadonlySet<Read> {
    const recurrences = new Recurrences(this.#file, this.#floats, this.#edit);
    const all = [...reads.values()].flat();
    const found = recurrences.ofScopes(all, this.#isTorch ? this.#moduleOfNode : undefined);
    for (const weight of found.weights) this.#weights.set(weight.name, weight);
    this.#notices.push(...recurrences.notices());
    return found.taken;
  }

  /** Adds weights that only branches and bodies of loops read. */
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

  #judge(name: string, nodes: readonly Reader[], tensor: Tensor): Judgement {
    const reader = nodes.find(({ node, input }) => WEIGHTS[node.opType]?.includes(input));
    if (reader !== undefined) return parameter(`${reader.node.opType} has its weights there`);
    const statistic = nodes.some(
      ({ node, input }) => node.opType === "BatchNormalization" && input > 2,
    );
    if (statistic) return { role: "statistic", why: "a running statistic" };
    if (BUFFER_NAMES.test(name)) return constant("its name is that of a buffer");
    if (isMask(tensor)) return constant("it contains what masks contain");
    const isPerhapsBuffer = PERHAPS_BUFFERS.test(name) && !PARAMETER_NAMES.test(name);
    if (isPerhapsBuffer && !MADE_UP.test(name)) {
      this.#unclear.push(name);
      return { ...constant("its name is that of a buffer"), unclear: true };
    }
    const factor = nodes.find(({ node, input }) => FACTORS[node.opType]?.includes(input));
    const isSetting = nodes.every(
      ({ node, input }) =>
        COMPARISONS.includes(node.opType) || (input > 0 && SETTINGS.includes(node.opType)),
    );
    if (isSetting) return constant(`${nodes[0]?.node.opType} reads it as a setting`);
    const isNamed = PARAMETER_NAMES.test(name) && !MADE_UP.test(name);
    if (isNamed) return parameter("its name is that of a parameter");
    if (factor !== undefined && !isUniform(tensor)) {
      return parameter(`${factor.node.opType} reads it as a factor`);
    }
    // PyTorch keeps the names of biases, so a bias without one was computed.
    const isComputed = MADE_UP.test(name) && this.#isTorch;
    if (!isComputed && nodes.some(({ node }) => this.#isBiasOf(node, tensor))) {
      return parameter("it is a bias");
    }
    // Converters also store the numbers of formulas as weights.
    const isNumber = elementCount(tensor.shape) === 1 && (MADE_UP.test(name) || !this.#isTorch);
    if (isNumber) return constant("a number");
    if (isComputed && nodes.some(({ node }) => this.#isOfGroups(node))) {
      return parameter("a group normalization has its weights there");
    }
    const isScale = nodes.some(({ node }) => this.#writtenOut.scalesOrShifts(node, name));
    if (isScale && !this.#isTorch) return parameter("it scales or shifts what was normalized");
    this.#unclear.push(name);
    if (MADE_UP.test(name) && (!isComputed || tensor.bytes.every((byte) => byte === 0))) {
      return { ...constant("the exporter made it, and does not say of what"), unclear: true };
    }
    return { ...parameter("nothing shows that it is not a parameter"), unclear: true };
  }

  /** Whether a node scales or shifts the result of an InstanceNormalization of the same module. */
  #isOfGroups({ opType, name }: RawNode): boolean {
    return (opType === "Mul" || opType === "Add") && this.#grouping.has(path(name));
  }

  /** Whether a tensor is a vector that is added to a product of weights. */
  #isBiasOf(node: RawNode, tensor: Tensor): boolean {
    if (node.opType !== "Add" || tensor.shape.filter((size) => size > 1).length > 1) return false;
    return node.input.some((input) =>
      this.#graph.node.some(
        ({ opType, output }) =>
          output.includes(input) && (opType === "MatMul" || opType === "Conv"),
      ),
    );
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
    const computed = [...this.#weights.values()].filter(({ role, given }) => {
      return role === "parameter" && COMPUTED.test(given);
    });
    if (this.#isTorch && computed.length > 0) {
      this.#notices.push(
        `The exporter computed ${list(computed.map(({ given }) => given))} from parameters that the file has no more (weight_norm, ` +
          `parts of a parameter, …): what it computed is trained, which may be another model than PyTorch's. Export with ` +
          `do_constant_folding=False to keep them.`,
      );
    }
    const fused = [...this.#weights.values()].filter(({ given }) => FUSED.test(given));
    if (this.#isTorch && fused.length > 0) {
      this.#notices.push(
        `The exporter folded normalization (batch normalization, weight_norm) into ${fused.length} weights of convolutions, so the trained model differs from ` +
          `PyTorch's. Export with training=TrainingMode.PRESERVE and do_constant_folding=False to keep it.`,
      );
    }
  }
}

/** The name that Swin's modules give their relative position biases; other tables have no name. */
function tableName(given: string, { isWhole }: Table, scope: string | undefined): OwnName {
  if (!isWhole || scope === undefined) return { name: `${given}.rows`, layout: "rows" };
  return { name: `${scope}.relative_position_bias_table`, layout: "same" };
}

function parameter(why: string): Judgement {
  return { role: "parameter", why };
}

function constant(why: string): Judgement {
  return { role: "constant", why };
}
