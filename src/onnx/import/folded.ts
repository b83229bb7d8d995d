/**
 * Parameters that the newer exporter's optimizer computed with, so that the file has only the result: rows of a table of
 * positions, a token for each place in a fixed batch, the exponential of a scale. Where the way back is clear it is taken;
 * where it is not, the parameter is said to be lost.
 */
import { evaluateNode, fromTensor, toTensor } from "../../reference/index.ts";
import { elementCount, formatShape, scalar, type Tensor, tensorFrom } from "../../tensor/index.ts";
import type { OnnxFile } from "../read.ts";
import type { RawTensor } from "../schema.ts";
import type { GraphEdit } from "./edit.ts";
import type { Operation } from "./exported.ts";
import { asGathered, sameBytes } from "./same.ts";
import { isUniform, moduleOf, type Read, type Weight } from "./weights.ts";

export interface FoldedContext {
  readonly file: OnnxFile;
  readonly floats: ReadonlyMap<string, RawTensor>;
  readonly edit: GraphEdit;
  /** Of initializers that are no parameters as they stand. */
  readonly reads: readonly Read[];
  /** Of each node. */
  readonly operations: readonly (Operation | undefined)[];
  /** Parameters that the file does not have; those found are taken out. */
  readonly names: Set<string>;
  /** Those that it has. */
  readonly weights: ReadonlyMap<string, Weight>;
}

export interface Folded {
  readonly weights: readonly Weight[];
  readonly notices: readonly string[];
  /** Parameters that constants were made of in a way that cannot be undone. */
  readonly lost: readonly string[];
}

/** Operations that move elements and compute nothing. */
const MOVES =
  /^(expand|view|reshape|unsqueeze|squeeze|permute|transpose|t|slice|select|index|index_select|embedding|repeat|clone|contiguous|alias|to|_to_copy|flatten|unflatten|gather|narrow|getitem|repeat_interleave|unsafe_view|cat)$/;
/** Those that may leave something out. */
const PICKS = /^(slice|select|index|index_select|embedding|gather|narrow|getitem|cat)$/;
const REPEATS = /^(expand|repeat)$/;
/** Operations whose results are made of no parameter: masks, positions, tables of angles, infinities. */
const MADE =
  /^(where|zeros|ones|full|arange|new_\w+|\w+_like|eye|tril|triu|sin|cos|eq|ne|lt|le|gt|ge|logical_\w+|bitwise_\w+|isin|linspace|scalar_tensor|masked_fill|lift_fresh_copy|_tensor_constant\d*|c_\w+|val|polar|outer|pow|cumsum)$/;

/** Operations that always compute with parameters of their module. */
const COMPUTES = /^(linear|addmm|conv\w*|convolution|\w*_norm|prelu)$/;

export function restoreFolded(context: FoldedContext): Folded {
  const weights: Weight[] = [];
  const notices: string[] = [];
  const lost = new Set<string>();
  const computed = new Set<string>();
  let open = byModule(context).filter((group) => !isOfKnown(context, group, computed));
  // One that is placed leaves fewer candidates for the others: until no more can be placed.
  for (let count = -1; count !== open.length; ) {
    count = open.length;
    lost.clear();
    open = open.filter(([initializer, reads]) => {
      const operation = context.operations[(reads[0] as Read).node];
      const operator = stemOf(initializer);
      if (operation === undefined || MADE.test(operator)) return false;
      const candidates = candidatesFor(context.names, operation);
      const name = candidates.length > 1 ? named(candidates, operation, operator) : candidates[0];
      const found =
        name === undefined
          ? undefined
          : undo(context, { initializer, reads, operator, name, operation });
      if (found === undefined || name === undefined) {
        for (const candidate of candidates) lost.add(candidate);
        return true;
      }
      context.names.delete(name);
      weights.push(found.weight);
      if (found.notice !== undefined) notices.push(found.notice);
      return false;
    });
  }
  const left = [...lost].filter((name) => context.names.has(name));
  return { weights, notices, lost: [...left, ...computed] };
}

/**
 * Whether an initializer is a result of parameters that the file has at other places too. That of a matrix and zeros (the first
 * state of a recurrence that was written out) is the bias, for each row again; of others the parameters are added to `lost`.
 */
function isOfKnown(
  context: FoldedContext,
  [initializer, reads]: readonly [string, readonly Read[]],
  lost: Set<string>,
): boolean {
  const operation = context.operations[(reads[0] as Read).node];
  if (operation === undefined || !COMPUTES.test(stemOf(initializer))) return false;
  const own = [...context.weights.values()].filter(
    ({ name, role }) => role === "parameter" && moduleOf(name) === operation.module,
  );
  if (own.length === 0) return false;
  const tensor = context.file.tensor(context.floats.get(initializer) as RawTensor);
  const biases = own.filter(({ given, layout }) => {
    const raw = context.floats.get(given);
    return layout === "same" && raw !== undefined && isRepeated(context.file.tensor(raw), tensor);
  });
  const [bias] = biases;
  if (bias === undefined || biases.length > 1) {
    for (const { name } of own) lost.add(name);
    return true;
  }
  const shape = tensorFrom("int64", [tensor.shape.length], tensor.shape);
  context.edit.add(`${initializer}/shape`, shape);
  const value = context.edit.prepend(
    "Expand",
    [bias.name, `${initializer}/shape`],
    `${bias.name}/expanded`,
  );
  for (const read of reads) context.edit.redirect(read, value);
  return true;
}

/** Whether `whole` is a vector, again and again along its last dim. */
function isRepeated(vector: Tensor, whole: Tensor): boolean {
  if (vector.shape.length !== 1 || whole.shape.at(-1) !== vector.shape[0]) return false;
  const rows = {
    ...whole,
    shape: [elementCount(whole.shape) / (vector.shape[0] ?? 1), vector.shape[0] ?? 1],
  };
  const first = repeated(rows);
  return first !== undefined && sameBytes(first, vector);
}

/** Equal results of several modules are one initializer, so reads of each module count alone, unless equality is no chance. */
function byModule({ file, floats, reads, operations }: FoldedContext): [string, Read[]][] {
  const groups = new Map<string, [string, Read[]]>();
  for (const read of reads) {
    const { initializer } = read;
    const mayBeMerged =
      !MOVES.test(stemOf(initializer)) ||
      isUniform(file.tensor(floats.get(initializer) as RawTensor));
    const key = mayBeMerged ? `${initializer} ${operations[read.node]?.module}` : initializer;
    const group = groups.get(key) ?? [initializer, []];
    group[1].push(read);
    groups.set(key, group);
  }
  return [...groups.values()];
}

/** `embedding_2` → `embedding`. */
function stemOf(name: string): string {
  return name.replace(/_\d+$/, "");
}

/** Parameters of the module that reads the result, or of its parts; if there are none, of the modules around it. */
function candidatesFor(names: ReadonlySet<string>, { module }: Operation): string[] {
  for (let around = module; ; around = moduleOf(around)) {
    const inside = [...names].filter((name) => around === "" || name.startsWith(`${around}.`));
    if (inside.length > 0 || around === "") return inside;
  }
}

/**
 * The one candidate that the line of source speaks of, by its own name or its module's; if none, the one that is called as
 * what is done with it: tokens are repeated for each sample, positions are not.
 */
function named(
  candidates: readonly string[],
  { trace }: Operation,
  operator: string,
): string | undefined {
  const line = trace.trimEnd().split("\n").at(-1) ?? "";
  const spoken = candidates.filter((name) => {
    const parts = name.split(".").slice(-2);
    return parts.some((part) => part !== "weight" && part !== "bias" && line.includes(part));
  });
  if (spoken.length === 1) return spoken[0];
  const usual = REPEATS.test(operator) ? /token|query|queries|latent/ : /pos(ition)?_?emb|position/;
  const called = candidates.filter((name) => usual.test(name));
  return called.length === 1 ? called[0] : undefined;
}

interface Case {
  readonly initializer: string;
  readonly reads: readonly Read[];
  readonly operator: string;
  readonly name: string;
  readonly operation: Operation;
}

interface Undone {
  readonly weight: Weight;
  readonly notice?: string;
}

function undo(context: FoldedContext, found: Case): Undone | undefined {
  const { initializer, operator, name, operation } = found;
  const tensor = context.file.tensor(context.floats.get(initializer) as RawTensor);
  const weight = (why: string, layout: Weight["layout"] = "same"): Weight => {
    return { name, role: "parameter", why, given: initializer, layout, ties: [] };
  };
  if (MOVES.test(operator)) return ungather(context, found, tensor, weight);
  if (operator === "exp") {
    const parameter = unary("Log", tensor);
    replace(context, found, parameter, (edit, own) => edit.prepend("Exp", [own], `${name}/exp`));
    return { weight: weight(`the file has its exponential "${initializer}"`) };
  }
  const field = name.slice(moduleOf(name).length).replace(".", "");
  const [, offset] =
    new RegExp(`\\(?(\\d+(?:\\.\\d+)?) \\+ self\\.${field}\\b`).exec(operation.trace) ?? [];
  if (operator !== "add" || offset === undefined) return undefined;
  const shift = scalar(tensor.dtype, Number(offset));
  const parameter = binary("Sub", tensor, shift);
  replace(context, found, parameter, (edit, own) => {
    edit.add(`${name}/offset`, shift);
    return edit.prepend("Add", [own, `${name}/offset`], `${name}/sum`);
  });
  return { weight: weight(`the file has ${offset} + it as "${initializer}"`) };
}

/** A table again from what was gathered from it, each row once. */
function ungather(
  context: FoldedContext,
  found: Case,
  tensor: Tensor,
  weight: (why: string, layout?: Weight["layout"]) => Weight,
): Undone | undefined {
  const { initializer, name, operator } = found;
  const why = `the file has what the exporter made of it: "${initializer}"`;
  const isRepeated = REPEATS.test(operator);
  const isVector = tensor.shape.filter((size) => size > 1).length <= 1;
  const first = isRepeated ? repeated(tensor) : undefined;
  if (first !== undefined) {
    // One row for each place in the batch: the row, with the rank that it had.
    replace(context, found, first, (edit, own) => {
      edit.add(`${name}/shape`, tensorFrom("int64", [tensor.shape.length], tensor.shape));
      return edit.prepend("Expand", [own, `${name}/shape`], `${name}/expanded`);
    });
    return { weight: weight(why) };
  }
  const gathered = isVector ? undefined : asGathered(tensor);
  if (gathered === undefined || elementCount(gathered.table.shape) === elementCount(tensor.shape)) {
    replace(context, found, tensor, (_, own) => own);
    if (PICKS.test(operator)) return inPart(found, tensor, weight(why, "rows"));
    return { weight: weight(why, isVector ? "flat" : "same") };
  }
  const { table, index, dim } = gathered;
  // Rows that are equal by chance, as in a table of zeros, cannot be told from one row read twice.
  if (isUniform(tensor)) return undefined;
  // Not the name of the whole: their order is not that of the table.
  const rows = { ...found, name: `${name}.rows` };
  replace(context, rows, table, (edit, own) => {
    const places = tensor.shape.filter((_, at) => at !== dim);
    edit.add(`${rows.name}/index`, tensorFrom("int64", places, index));
    const picked = edit.prepend("Gather", [own, `${rows.name}/index`], `${rows.name}/gathered`, {
      axis: 0,
    });
    if (dim === places.length) return picked;
    const perm = [...places.keys()];
    perm.splice(dim, 0, places.length);
    return edit.prepend("Transpose", [picked], `${rows.name}/turned`, { perm });
  });
  return inPart(found, table, { ...weight(why, "rows"), name: rows.name });
}

/** The file may have less than the whole of the parameter. */
function inPart({ name, initializer }: Case, { shape }: Tensor, weight: Weight): Undone {
  const notice =
    `Of ${name} the file has only what "${initializer}" was made of, ${formatShape(shape)}: ` +
    `that is trained. With optimize=False the export keeps the whole.`;
  return { weight, notice };
}

/** The first of the slices along the leading dim, if all are equal. */
function repeated({ dtype, shape, bytes }: Tensor): Tensor | undefined {
  const [count = 1, ...rest] = shape;
  const block = bytes.byteLength / Math.max(1, count);
  const moved = bytes.subarray(block);
  if (Buffer.compare(moved, bytes.subarray(0, moved.byteLength)) !== 0) return undefined;
  return { dtype, shape: [1, ...rest], bytes: bytes.subarray(0, block) };
}

/** The parameter as an initializer with its name, and all reads from what `make` computes of it. */
function replace(
  { edit }: FoldedContext,
  { name, reads }: Case,
  parameter: Tensor,
  make: (edit: GraphEdit, own: string) => string,
): void {
  edit.add(name, parameter);
  const value = make(edit, name);
  for (const read of reads) edit.redirect(read, value);
}

function unary(op: string, tensor: Tensor): Tensor {
  return evaluated(op, [tensor], tensor);
}

function binary(op: string, left: Tensor, right: Tensor): Tensor {
  return evaluated(op, [left, right], left);
}

function evaluated(op: string, inputs: readonly Tensor[], like: Tensor): Tensor {
  const type = { dtype: like.dtype, shape: like.shape };
  const [result] = evaluateNode({ op, name: op, attributes: {} }, inputs.map(fromTensor), [type]);
  return toTensor(result as NonNullable<typeof result>);
}
