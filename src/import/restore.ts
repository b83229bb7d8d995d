/**
 * Restores the weights of a file by PyTorch's newer exporter. Its optimizer merges equal initial
 * values, folds transposed copies and omits biases of zeros; but each node still says which
 * parameters its operation had. So each place where a node reads an initializer is assigned to its
 * original parameter.
 */

import type { OnnxFile, RawNode } from "../onnx/index.ts";
import type { Tensor } from "../tensor/index.ts";
import { tieReads } from "./copies.ts";
import { GraphEdit } from "./edit.ts";
import { type Operation, operationOf, type Placeholder } from "./exported.ts";
import { lostBuffers, MOVES, restoreFolded, stemOf } from "./folded.ts";
import { layoutOf, operands, outputChannels } from "./forms.ts";
import { layersOf, Recurrences } from "./recurrent.ts";
import { areTransposed } from "./same.ts";
import { restoreTraining } from "./training.ts";
import { restoreUnfused } from "./unfused.ts";
import {
  floatInitializers,
  isUniform,
  type Layout,
  list,
  moduleOf,
  nestedReaders,
  type Read,
  readsOf,
  type Weight,
  type WeightPlan,
} from "./weights.ts";

/** A place that belongs to a weight, and the layout of the weight there. */
interface Place extends Read {
  readonly layout: Layout;
}

export function restoreWeights(
  file: OnnxFile,
  signature: ReadonlyMap<string, Placeholder>,
): WeightPlan {
  return new Restoration(file, signature).plan();
}

class Restoration {
  readonly #file: OnnxFile;
  readonly #signature: ReadonlyMap<string, Placeholder>;
  readonly #floats;
  readonly #edit: GraphEdit;
  readonly #operations: readonly (Operation | undefined)[];
  readonly #places = new Map<Placeholder, Place[]>();
  readonly #others: Read[] = [];
  readonly #weights = new Map<string, Weight>();
  readonly #notices: string[] = [];
  readonly #recurrences: Recurrences;

  constructor(file: OnnxFile, signature: ReadonlyMap<string, Placeholder>) {
    this.#file = file;
    this.#signature = signature;
    this.#floats = floatInitializers(file);
    this.#edit = new GraphEdit(file.model.graph);
    this.#operations = file.model.graph.node.map(operationOf);
    this.#recurrences = new Recurrences(file, this.#floats, this.#edit);
  }

  plan(): WeightPlan {
    const all = readsOf(this.#file.model.graph, this.#floats);
    const unfused = restoreUnfused({
      file: this.#file,
      floats: this.#floats,
      edit: this.#edit,
      reads: all,
      operations: this.#operations,
      signature: this.#signature,
    });
    for (const weight of unfused.weights) this.#weights.set(weight.name, weight);
    this.#notices.push(...unfused.notices);
    for (const reads of this.#groups(all.filter(({ node }) => !unfused.nodes.has(node)))) {
      this.#assign(reads);
    }
    this.#orphans();
    for (const [placeholder, places] of this.#places) this.#place(placeholder, places);
    const nested = nestedReaders(this.#file.model.graph);
    for (const placeholder of this.#signature.values()) {
      const { target, kind } = placeholder;
      if (this.#weights.has(target) || !nested.has(target) || !this.#floats.has(target)) continue;
      this.#record(placeholder, target, "same", `a ${kind} by the file's signature`);
    }
    const { lost, unused } = this.#rest();
    const gradients = restoreTraining(this.#file.model.graph, this.#operations, this.#edit);
    this.#notices.push(...this.#recurrences.notices());
    if (unused.length > 0) {
      this.#notices.push(
        `The graph does not read these parameters (they are unused, or the graph reads them under other names): ${list(unused)}.`,
      );
    }
    const graph = this.#edit.result();
    return { graph, weights: this.#weights, notices: this.#notices, gradients, lost };
  }

  /** Groups reads by the operation of their nodes; a read without an operation is its own group. */
  #groups(reads: readonly Read[]): Iterable<readonly Read[]> {
    const groups = new Map<string, Read[]>();
    for (const read of reads) {
      const key = this.#operations[read.node]?.name ?? `node ${read.node}`;
      groups.set(key, [...(groups.get(key) ?? []), read]);
    }
    // An operation whose nodes read no weight any more can have lost a bias of zeros only together
    // with its weight.
    return groups.values();
  }

  /** Assigns the reads of one operation to its parameters. */
  #assign(reads: readonly Read[]): void {
    const operation = this.#operations[(reads[0] as Read).node];
    const layers = layersOf(this.#file.model.graph, operation);
    const isRecurrent = operation !== undefined && layers.length > 0;
    const rest = isRecurrent ? this.#recurrent(layers, reads, operation) : reads;
    const wanted = operands(operation).flatMap((name) => this.#signature.get(name) ?? []);
    const open = new Set(wanted);
    const left: Read[] = [];
    // A name that is read again may stand for another parameter that was merged with it, such as
    // the statistics of a fresh normalization.
    const again = new Map<Read, Placeholder>();
    for (const read of rest) {
      const own = wanted.find(({ target }) => target === read.initializer);
      if (own !== undefined && open.delete(own)) this.#give(own, read, operation);
      else {
        left.push(read);
        if (own !== undefined) again.set(read, own);
      }
    }
    // The weights of recurrent layers are already known.
    const missing = isRecurrent ? [] : [...new Set(wanted)].filter((item) => open.has(item));
    const chosen = this.#choose(missing.length, left, operation);
    for (const [read, own] of again) if (!chosen.includes(read)) this.#give(own, read, operation);
    for (const [index, placeholder] of missing.entries()) {
      const read = chosen[index];
      if (read !== undefined) this.#give(placeholder, read, operation);
    }
    if (chosen.length === 0 && missing.length === 1) {
      this.#restoreBias(missing[0] as Placeholder, reads[0] as Read, operation);
    }
    this.#others.push(...left.filter((read) => !chosen.includes(read) && !again.has(read)));
  }

  /** Restores the weights of recurrent layers; returns the reads that belong to others. */
  #recurrent(layers: readonly number[], reads: readonly Read[], operation: Operation): Read[] {
    const found = this.#recurrences.ofOperation(layers, reads, operation, this.#signature);
    for (const weight of found.weights) this.#weights.set(weight.name, weight);
    for (const { placeholder, read } of found.places) this.#give(placeholder, read, operation);
    return reads.filter((read) => !found.taken.has(read));
  }

  /** The reads that can be those of `count` weights, in order: the narrowest plausible set. */
  #choose(count: number, left: readonly Read[], operation: Operation | undefined): readonly Read[] {
    if (count === 0) return [];
    const targets = new Set([...this.#signature.values()].map(({ target }) => target));
    const unnamed = left.filter(
      ({ initializer, node }) =>
        operation?.reads.includes(initializer) !== true &&
        // Group normalizations are normalized as instances with scales of ones, and then scaled.
        !(operation?.operator === "group_norm" && this.#opType(node) === "InstanceNormalization"),
    );
    const several = unnamed.filter(({ initializer }) => this.#size(initializer) > 1);
    const named = unnamed.filter(({ initializer }) => targets.has(initializer));
    const once = (reads: readonly Read[]) =>
      reads.filter(
        ({ initializer }, at) => reads.findIndex((o) => o.initializer === initializer) === at,
      );
    const sets = [unnamed, several, named, once(unnamed), once(several)];
    return sets.find(({ length }) => length === count) ?? [];
  }

  #give(placeholder: Placeholder, read: Read, operation: Operation | undefined): void {
    const node = this.#file.model.graph.node[read.node] as RawNode;
    const rank = this.#floats.get(read.initializer)?.dims.length ?? 0;
    const layout =
      read.initializer === placeholder.target && node.opType !== "MatMul"
        ? "same"
        : layoutOf(node, read.input, rank, operation);
    const places = this.#places.get(placeholder) ?? [];
    this.#places.set(placeholder, [...places, { ...read, layout }]);
  }

  /** Assigns reads without an operation to the parameter of that name, or to a merged constant. */
  #orphans(): void {
    const byTarget = new Map([...this.#signature.values()].map((item) => [item.target, item]));
    for (const read of this.#others) {
      const placeholder = byTarget.get(read.initializer);
      if (placeholder === undefined) continue;
      const known = this.#operations[read.node] !== undefined;
      if (!known || !isUniform(this.#tensor(read.initializer))) {
        this.#give(placeholder, read, this.#operations[read.node]);
      } else {
        const name = `${read.initializer}.constant`;
        this.#edit.copy(read.initializer, name);
        this.#edit.redirect(read, name);
      }
    }
  }

  /** Restores a bias of zeros, which the exporter omits. */
  #restoreBias(placeholder: Placeholder, read: Read, operation: Operation | undefined): void {
    const node = this.#file.model.graph.node[read.node] as RawNode;
    const weight = this.#floats.get(read.initializer);
    if (weight === undefined || placeholder.kind !== "parameter" || read.input !== 1) return;
    const channels = outputChannels(node, weight.dims);
    if (channels === undefined || node.input[2] !== undefined || operation === undefined) return;
    const like = this.#tensor(read.initializer);
    const width = like.bytes.byteLength / this.#size(read.initializer);
    const bytes = new Uint8Array(channels * width);
    this.#edit.add(placeholder.target, { dtype: like.dtype, shape: [channels], bytes });
    this.#edit.redirect({ ...read, input: 2 }, placeholder.target);
    this.#record(placeholder, "", "same", "a bias of zeros that the exporter left out");
  }

  /** Lets all places of a weight read one initializer with its name. */
  #place(placeholder: Placeholder, places: readonly Place[]): void {
    const { target } = placeholder;
    const first = places.find(({ layout }) => layout === "same") ?? places[0];
    if (first === undefined) return;
    this.#edit.copy(first.initializer, target);
    let turned: string | undefined;
    for (const place of places) {
      if (place.layout === first.layout || place.initializer === first.initializer) {
        this.#edit.redirect(place, target);
        continue;
      }
      if (!areTransposed(this.#tensor(first.initializer), this.#tensor(place.initializer))) {
        this.#notices.push(
          `"${place.initializer}" is in the place of ${target}, but has other values: it stays constant.`,
        );
        continue;
      }
      turned ??= this.#edit.prepend("Transpose", [target], `${target}/transposed`, {
        perm: [1, 0],
      });
      this.#edit.redirect(place, turned);
    }
    const what = placeholder.kind === "parameter" ? "a parameter" : "a buffer";
    this.#record(placeholder, first.initializer, first.layout, `${what} by the file's signature`);
  }

  #record({ kind, target }: Placeholder, given: string, layout: Layout, why: string): void {
    const role = kind === "parameter" ? "parameter" : "constant";
    this.#weights.set(target, { name: target, role, why, given, layout, ties: [] });
  }

  /** Handles parameters without a place: ties to others, folded into constants, or not used. */
  #rest(): { readonly lost: readonly string[]; readonly unused: readonly string[] } {
    const names = new Set(
      [...this.#signature.values()]
        .filter(({ kind, target }) => kind === "parameter" && !this.#weights.has(target))
        .filter(({ target }) => !this.#recurrences.consumed.has(target))
        .map(({ target }) => target),
    );
    for (const operation of this.#operations) {
      for (const read of operation?.reads ?? []) {
        const known = this.#weights.get(this.#signature.get(read)?.target ?? "");
        if (known === undefined || operation === undefined) continue;
        const other = join(
          operation.module,
          known.name.slice(moduleOf(known.name).length).replace(".", ""),
        );
        if (!names.delete(other)) continue;
        this.#weights.set(known.name, { ...known, ties: [...known.ties, other] });
      }
    }
    const others = this.#others.filter(({ initializer }) => !this.#weights.has(initializer));
    const isMoved = (initializer: string) => MOVES.test(stemOf(initializer));
    const untied = tieReads(this.#file, this.#floats, this.#edit, this.#weights, others, isMoved);
    const folded = restoreFolded({
      file: this.#file,
      floats: this.#floats,
      edit: this.#edit,
      reads: untied.reads,
      operations: this.#operations,
      names,
      buffers: lostBuffers(
        this.#signature,
        (name) => this.#weights.has(name) || this.#floats.has(name),
      ),
      weights: this.#weights,
    });
    for (const weight of folded.weights) this.#weights.set(weight.name, weight);
    this.#notices.push(...folded.notices);
    const normalizations = [...names].filter((name) => this.#isNormalization(name));
    const lost = [
      ...untied.lost,
      ...folded.lost,
      ...normalizations,
      ...this.#recurrences.projections,
    ];
    return { lost: [...new Set(lost)], unused: [...names].filter((name) => !lost.includes(name)) };
  }

  /** Whether a parameter belongs to a normalization that was folded into the layer before it. */
  #isNormalization(name: string): boolean {
    const statistic = `${moduleOf(name)}.running_var`;
    const isKnown = [...this.#signature.values()].some(({ target }) => target === statistic);
    return isKnown && !this.#weights.has(statistic);
  }

  #tensor(name: string): Tensor {
    return this.#file.tensor(this.#floats.get(name) as never);
  }

  #opType(node: number): string | undefined {
    return this.#file.model.graph.node[node]?.opType;
  }

  #size(name: string): number {
    return this.#floats.get(name)?.dims.reduce((product, size) => product * size, 1) ?? 0;
  }
}

function join(module: string, name: string): string {
  return module === "" ? name : `${module}.${name}`;
}
