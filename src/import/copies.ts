/**
 * Ties copies that an exporter folded (transposed, reshaped, cut out) to the weight that they were
 * made of, if the file has that too: the head that is an embedding, a decoder with the weights of
 * its encoder.
 */
import type { OnnxFile, RawTensor } from "../onnx/index.ts";
import {
  bytesPerElement,
  elementCount,
  type Tensor,
  tensorFrom,
  transpose,
} from "../tensor/index.ts";
import type { GraphEdit } from "./edit.ts";
import { MADE_UP } from "./module-names.ts";
import { areTransposed, sameBytes } from "./same.ts";
import { isMask, isUniform, type Read, readsOf, type Weight } from "./weights.ts";

/** How a copy follows from a weight: a part along one dim, turned, in the copy's shape. */
interface Form {
  readonly part?: { readonly dim: number; readonly start: number; readonly end: number };
  readonly isTurned: boolean;
}

/**
 * Ties the copies of a file of PyTorch's older exporter. Removes them from `weights`; returns their
 * names in the file.
 */
export function tieCopies(
  file: OnnxFile,
  floats: ReadonlyMap<string, RawTensor>,
  edit: GraphEdit,
  weights: Map<string, Weight>,
): readonly string[] {
  const { graph, producerName } = file.model;
  const parameters = [...weights.values()].filter(({ role }) => role === "parameter");
  const tied: string[] = [];
  for (const copy of parameters) {
    const raw = floats.get(copy.given);
    const isMadeUp = producerName === "pytorch" && MADE_UP.test(copy.given);
    if (raw === undefined || (copy.layout !== "transposed" && !isMadeUp)) continue;
    // Where a module reads its matrix as it is, another one may have equal values: layers are often
    // copied. A copy without a place in a module was folded.
    const isNameless = isMadeUp && copy.name === copy.given;
    const others = parameters.filter(({ name, given }) => {
      return name !== copy.name && (!isNameless || !MADE_UP.test(given));
    });
    const found = sourceOf(file, floats, others, file.tensor(raw), isNameless);
    if (found === undefined) continue;
    const present = { ...graph, node: edit.nodes };
    const reads = readsOf(present, new Map([[copy.name, raw]]));
    redirect(edit, found, file.tensor(raw), reads);
    weights.delete(copy.name);
    tied.push(copy.given);
    const known = weights.get(found.source.name) ?? found.source;
    const ties = copy.name === copy.given ? known.ties : [...known.ties, copy.name];
    weights.set(known.name, { ...known, ties });
  }
  return tied;
}

/** The reads of other constants, and the parameters of which some of these were made. */
export interface Untied {
  readonly reads: readonly Read[];
  readonly lost: readonly string[];
}

/** Lets those of `reads` that read a copy of a known parameter read the parameter. */
export function tieReads(
  file: OnnxFile,
  floats: ReadonlyMap<string, RawTensor>,
  edit: GraphEdit,
  weights: ReadonlyMap<string, Weight>,
  reads: readonly Read[],
  mayBeMade: (initializer: string) => boolean,
): Untied {
  const parameters = [...weights.values()].filter(({ role }) => role === "parameter");
  const lost: string[] = [];
  const groups = new Map<string, Read[]>();
  for (const read of reads) {
    groups.set(read.initializer, [...(groups.get(read.initializer) ?? []), read]);
  }
  const tied = new Set<string>();
  for (const [initializer, own] of groups) {
    const tensor = file.tensor(floats.get(initializer) as RawTensor);
    const found = sourceOf(file, floats, parameters, tensor, true);
    if (found !== undefined) {
      redirect(edit, found, tensor, own);
      tied.add(initializer);
    } else if (mayBeMade(initializer)) {
      const source = parameters.find(({ given }) => {
        const raw = floats.get(given);
        return raw !== undefined && isMadeOf(file.tensor(raw), tensor);
      });
      if (source !== undefined) lost.push(source.name);
    }
  }
  return { reads: reads.filter(({ initializer }) => !tied.has(initializer)), lost };
}

const ELEMENTS_SOUGHT = 8;
// Fewer may be equal by chance: ones, halves.
const ELEMENTS_NEEDED = 4;

/** Whether elements of a weight are those of a constant, in whatever order. */
function isMadeOf(weight: Tensor, constant: Tensor): boolean {
  if (weight.dtype !== constant.dtype) return false;
  const width = bytesPerElement(weight.dtype);
  const count = elementCount(constant.shape);
  const step = Math.max(1, Math.floor(count / ELEMENTS_SOUGHT));
  const own = Buffer.from(weight.bytes.buffer, weight.bytes.byteOffset, weight.bytes.byteLength);
  const found = new Set<string>();
  for (let at = 0; at < count; at += step) {
    const element = Buffer.from(constant.bytes.subarray(at * width, (at + 1) * width));
    let place = own.indexOf(element);
    while (place >= 0 && place % width !== 0) place = own.indexOf(element, place + 1);
    if (place < 0) return false;
    found.add(element.toString("hex"));
  }
  return found.size >= ELEMENTS_NEEDED;
}

interface Source {
  readonly source: Weight;
  readonly form: Form;
}

function sourceOf(
  file: OnnxFile,
  floats: ReadonlyMap<string, RawTensor>,
  among: readonly Weight[],
  copy: Tensor,
  mayBePart: boolean,
): Source | undefined {
  if (elementCount(copy.shape) < 2 || isUniform(copy) || isMask(copy)) return undefined;
  for (const source of among) {
    const raw = source.layout === "same" ? floats.get(source.given) : undefined;
    if (raw === undefined) continue;
    const form = formOf(file.tensor(raw), copy, mayBePart);
    if (form !== undefined) return { source, form };
  }
  return undefined;
}

function formOf(weight: Tensor, copy: Tensor, mayBePart: boolean): Form | undefined {
  if (weight.dtype !== copy.dtype) return undefined;
  if (areTransposed(weight, copy)) return { isTurned: true };
  if (!mayBePart) return undefined;
  if (sameBytes(weight, copy)) return { isTurned: false };
  for (const isTurned of copy.shape.length === 2 ? [false, true] : [false]) {
    const part = partOf(weight, isTurned ? transpose(copy) : copy);
    if (part !== undefined) return { part, isTurned };
  }
  return undefined;
}

/** The part of a weight along one dim that a tensor is, whatever its shape. */
function partOf(weight: Tensor, copy: Tensor): Form["part"] {
  const width = bytesPerElement(weight.dtype);
  const share = elementCount(copy.shape) / elementCount(weight.shape);
  for (const [dim, size] of share < 1 ? weight.shape.entries() : []) {
    const places = share * size;
    if (!Number.isInteger(places)) continue;
    const inner = elementCount(weight.shape.slice(dim + 1)) * width;
    const outer = elementCount(weight.shape.slice(0, dim));
    const [whole, block] = [size * inner, places * inner];
    for (let start = 0; start + places <= size; start++) {
      const isSame = (at: number) => {
        const from = at * whole + start * inner;
        const own = weight.bytes.subarray(from, from + block);
        return Buffer.compare(own, copy.bytes.subarray(at * block, (at + 1) * block)) === 0;
      };
      let at = 0;
      while (at < outer && isSame(at)) at++;
      if (at === outer) return { dim, start, end: start + places };
    }
  }
  return undefined;
}

/** Computes the copy from the weight, before all nodes, and lets nodes read it. */
function redirect(
  edit: GraphEdit,
  { source, form }: Source,
  { shape }: Tensor,
  reads: readonly Read[],
): void {
  const { name } = source;
  const list = (label: string, numbers: readonly number[]): string => {
    const own = `${name}/${label}_${numbers.join("_")}`;
    edit.add(own, tensorFrom("int64", [numbers.length], numbers));
    return own;
  };
  let value = name;
  if (form.part !== undefined) {
    const { dim, start, end } = form.part;
    const [from, to, axes] = [list("start", [start]), list("end", [end]), list("dim", [dim])];
    value = edit.prepend("Slice", [value, from, to, axes], `${name}/part`);
  }
  if (form.isTurned && form.part !== undefined) {
    value = edit.prepend("Reshape", [value, list("shape", shape.toReversed())], `${name}/matrix`);
  }
  value = form.isTurned
    ? edit.prepend("Transpose", [value], `${name}/transposed`, { perm: [1, 0] })
    : edit.prepend("Reshape", [value, list("shape", shape)], `${name}/reshaped`);
  for (const read of reads) edit.redirect(read, value);
}
