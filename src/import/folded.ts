/**
 * Finds parameters that the newer exporter's optimizer computed with, so that the file only has the
 * result: rows of a table of positions, a token repeated for each sample of a fixed batch, the
 * exponential of a scale. If the computation can be undone, it is; otherwise the parameter is
 * reported as lost.
 */

import type { RawTensor } from "../onnx/index.ts";
import { evaluateNode, fromTensor, toTensor } from "../reference/index.ts";
import { formatShape, scalar, type Tensor, tensorFrom } from "../tensor/index.ts";
import type { GraphEdit } from "./edit.ts";
import type { Operation, Placeholder } from "./exported.ts";
import { isOfKnown } from "./known.ts";
import type { RestoreContext } from "./restore-context.ts";
import { repeated } from "./same.ts";
import { gatherFrom, tableOf } from "./tables.ts";
import { isMask, isUniform, list, moduleOf, type Read, type Weight } from "./weights.ts";

export interface FoldedContext extends RestoreContext {
  /** The names of parameters that the file does not have; those that are found are removed. */
  readonly names: Set<string>;
  /** The names of buffers that the file does not have. */
  readonly buffers: ReadonlySet<string>;
  /** The parameters that the file has. */
  readonly weights: ReadonlyMap<string, Weight>;
}

export interface Folded {
  readonly weights: readonly Weight[];
  readonly notices: readonly string[];
  /** The names of parameters from which constants were computed in a way that cannot be undone. */
  readonly lost: readonly string[];
}

/** Operations that only move elements. */
export const MOVES =
  /^(expand|view|reshape|unsqueeze|squeeze|permute|transpose|t|slice|select|index|index_select|embedding|repeat|clone|contiguous|alias|to|_to_copy|flatten|unflatten|gather|narrow|getitem|repeat_interleave|unsafe_view|cat)$/;
/** Those of them that may omit some elements. */
const PICKS = /^(slice|select|index|index_select|embedding|gather|narrow|getitem|cat)$/;
const REPEATS = /^(expand|repeat)$/;
/**
 * Operations whose results are not made of parameters: masks, positions, tables of angles,
 * infinities.
 */
const MADE =
  /^(where|zeros|ones|full|arange|new_\w+|\w+_like|eye|tril|triu|sin|cos|eq|ne|lt|le|gt|ge|logical_\w+|bitwise_\w+|isin|linspace|scalar_tensor|masked_fill|lift_fresh_copy|_tensor_constant\d*|c_\w+|val|polar|outer|pow|cumsum)$/;

/** Operations that always compute with parameters of their module. */
const COMPUTES = /^(linear|addmm|conv\w*|convolution|\w*_norm|prelu)$/;

export function restoreFolded(context: FoldedContext): Folded {
  const weights: Weight[] = [];
  const notices: string[] = [];
  const lost = new Set<string>();
  const computed = new Set<string>();
  let open = byModule(context).filter(([initializer, reads]) => {
    const operation = operationAt(context, (reads[0] as Read).node);
    if (operation === undefined || !COMPUTES.test(stemOf(initializer))) return true;
    return !isOfKnown(context, { initializer, reads, module: operation.module }, computed);
  });
  // A result that is assigned leaves fewer candidates for the others, so this repeats until no more
  // can be assigned.
  for (let count = -1; count !== open.length; ) {
    count = open.length;
    lost.clear();
    open = open.filter(([initializer, reads]) => {
      const operation = context.operations[(reads[0] as Read).node];
      const operator = stemOf(initializer);
      const tensor = context.file.tensor(context.floats.get(initializer) as RawTensor);
      if (operation === undefined || MADE.test(operator) || isMask(tensor)) return false;
      const { candidates, buffers } = candidatesFor(context, operation);
      const name = choose(candidates, buffers, operation, operator);
      if (name !== undefined && context.buffers.has(name)) return false;
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
      if (buffers.length > 0 && spokenOf([...candidates, ...buffers], operation).length !== 1) {
        notices.push(
          `"${initializer}" was computed from ${name} or from a buffer (${list(buffers)}): it is treated as ${name}. ` +
            `With optimize=False the export has both.`,
        );
      }
      return false;
    });
  }
  const left = [...lost].filter((name) => context.names.has(name));
  return { weights, notices, lost: [...left, ...computed] };
}

/** The operation of a node, or of one that reads its result: nodes that split have no record. */
function operationAt({ file, operations }: FoldedContext, node: number): Operation | undefined {
  const { node: nodes } = file.model.graph;
  const made = nodes[node]?.output ?? [];
  const next = nodes.findIndex(({ input }) =>
    input.some((name) => name !== "" && made.includes(name)),
  );
  return operations[node] ?? operations[next];
}

/** Names of buffers that hold no floats, and of statistics, which only normalizations read. */
const OTHERS = /(_index|_ids|num_batches_tracked|running_mean|running_var)$/;

/** The buffers from which constants may have been computed. `isThere` says what the file has. */
export function lostBuffers(
  signature: ReadonlyMap<string, Placeholder>,
  isThere: (name: string) => boolean,
): ReadonlySet<string> {
  const buffers = [...signature.values()].filter(({ kind }) => kind !== "parameter");
  const names = buffers.map(({ target }) => target);
  return new Set(names.filter((name) => !isThere(name) && !OTHERS.test(name)));
}

/**
 * Equal results of several modules are one initializer, so the reads of each module count
 * separately, unless equality cannot be chance.
 */
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

/** The name without its number: `embedding_2` → `embedding`. */
export function stemOf(name: string): string {
  return name.replace(/_\d+$/, "");
}

/**
 * The candidates for a result: what the file lacks of the parameters of the module that reads the
 * result or its parts; if there is none, of the modules around it.
 */
function candidatesFor(
  { names, buffers }: FoldedContext,
  { module }: Operation,
): { readonly candidates: readonly string[]; readonly buffers: readonly string[] } {
  for (let around = module; ; around = moduleOf(around)) {
    const inside = (all: ReadonlySet<string>) =>
      [...all].filter((name) => around === "" || name.startsWith(`${around}.`));
    const candidates = inside(names);
    if (candidates.length > 0 || around === "") return { candidates, buffers: inside(buffers) };
  }
}

/**
 * Chooses the candidate that the line of source mentions; if there is none, the parameter whose
 * name suits the operation (tokens are repeated for each sample, positions are not); if there is
 * none, the only candidate.
 */
function choose(
  candidates: readonly string[],
  buffers: readonly string[],
  operation: Operation,
  operator: string,
): string | undefined {
  if (candidates.length === 1 && buffers.length === 0) return candidates[0];
  const spoken = spokenOf([...candidates, ...buffers], operation);
  if (spoken.length === 1) return spoken[0];
  const usual = REPEATS.test(operator) ? /token|query|queries|latent/ : /pos(ition)?_?emb|position/;
  const called = candidates.filter((name) => usual.test(name));
  const found = candidates.length === 1 ? candidates : called;
  return found.length === 1 ? found[0] : undefined;
}

/** The candidates whose own name, or the name of their module, occurs in the line of source. */
function spokenOf(names: readonly string[], { trace }: Operation): readonly string[] {
  const line = trace.trimEnd().split("\n").at(-1) ?? "";
  return names.filter((name) => {
    const parts = name.split(".").slice(-2);
    return parts.some((part) => part !== "weight" && part !== "bias" && line.includes(part));
  });
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

/** Restores a table from the rows that were gathered from it, each row once. */
function ungather(
  context: FoldedContext,
  found: Case,
  tensor: Tensor,
  weight: (why: string, layout?: Weight["layout"]) => Weight,
): Undone | undefined {
  const { initializer, name, operator, reads } = found;
  const why = `the file has what the exporter computed from it: "${initializer}"`;
  const isRepeated = REPEATS.test(operator);
  const isVector = tensor.shape.filter((size) => size > 1).length <= 1;
  const first = isRepeated ? repeated(tensor) : undefined;
  if (first !== undefined) {
    // One row for each sample of the batch: the row itself, with its original rank.
    replace(context, found, first, (edit, own) => {
      edit.add(`${name}/shape`, tensorFrom("int64", [tensor.shape.length], tensor.shape));
      return edit.prepend("Expand", [own, `${name}/shape`], `${name}/expanded`);
    });
    return { weight: weight(why) };
  }
  const table = isVector ? undefined : tableOf(tensor);
  if (table !== undefined) {
    // The table does not get the name of the whole, because its rows are not in the order of the
    // original.
    const own = table.isWhole ? name : `${name}.rows`;
    gatherFrom(context.edit, table, { name: own, reads, shape: tensor.shape });
    if (table.isWhole) return { weight: weight(why) };
    return inPart(found, table.rows, { ...weight(why, "rows"), name: own });
  }
  // Rows that are equal by chance, as in a table of zeros, cannot be distinguished from one row
  // that is read twice.
  if (!isVector && isUniform(tensor)) return undefined;
  replace(context, found, tensor, (_, own) => own);
  if (PICKS.test(operator)) return inPart(found, tensor, weight(why, "rows"));
  return { weight: weight(why, isVector ? "flat" : "same") };
}

/** The file may have only a part of the parameter. */
function inPart({ name, initializer }: Case, { shape }: Tensor, weight: Weight): Undone {
  const notice =
    `The file has only the part of ${name} that "${initializer}" was made of, ${formatShape(shape)}: ` +
    `that part is trained. With optimize=False the export keeps the whole.`;
  return { weight, notice };
}

/**
 * Makes the parameter an initializer with its name, and lets all reads use the value that `make`
 * computes from it.
 */
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
