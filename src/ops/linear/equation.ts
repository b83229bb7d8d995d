/** Parses the equation of an Einsum into labels: `bij,bjk->bik`. */
import type { Shape } from "../../tensor/index.ts";

/**
 * A label for each dim: a letter; the dims of an ellipsis are `...0`, `...1`, counted from its last
 * dim.
 */
export type Labels = readonly string[];

export interface Terms {
  readonly operands: readonly Labels[];
  readonly result: Labels;
}

/** The labels of each operand and of the result, or what is wrong with the equation. */
export function parseEquation(equation: string, shapes: readonly Shape[]): Terms | string {
  const [left, right, ...rest] = equation.replaceAll(/\s/g, "").split("->");
  const terms = (left ?? "").split(",");
  if (rest.length > 0 || terms.length !== shapes.length) {
    return `the equation "${equation}" has ${terms.length} operands, got ${shapes.length}`;
  }
  const operands: Labels[] = [];
  for (const [index, term] of terms.entries()) {
    const labels = labelsOf(term, (shapes[index] as Shape).length);
    if (labels === undefined) {
      return `"${term}" does not name the ${shapes[index]?.length} dims of operand ${index}`;
    }
    if (new Set(labels).size !== labels.length) {
      return `a label twice in one operand ("${term}", a diagonal) is not supported`;
    }
    operands.push(labels);
  }
  const all = operands.flat();
  const conflict = sizeConflict(operands, shapes);
  if (conflict !== undefined) return `sizes of label "${conflict}" differ`;
  const hidden = [...new Set(all.filter((label) => label.startsWith("...")))].sort(byPlace);
  if (right === undefined) {
    const single = all.filter((label) => label.length === 1 && count(all, label) === 1);
    return { operands, result: [...hidden, ...single.sort()] };
  }
  const result = right.includes("...")
    ? splitTerm(right).flatMap((part) => (part === "..." ? hidden : [part]))
    : right.split("");
  if (new Set(result).size !== result.length || result.some((label) => !all.includes(label))) {
    return `"${right}" is not a result of "${left}"`;
  }
  return { operands, result };
}

/** Splits `a...b` into `a`, `...`, `b`. */
function splitTerm(term: string): string[] {
  const [before, after] = term.split("...") as [string, string];
  return [...before.split(""), "...", ...after.split("")];
}

function labelsOf(term: string, rank: number): Labels | undefined {
  if (!/^[A-Za-z]*(\.\.\.[A-Za-z]*)?$/.test(term)) return undefined;
  if (!term.includes("...")) return term.length === rank ? term.split("") : undefined;
  const hidden = rank - (term.length - 3);
  if (hidden < 0) return undefined;
  const dims = Array.from({ length: hidden }, (_, i) => `...${hidden - 1 - i}`);
  return splitTerm(term).flatMap((part) => (part === "..." ? dims : [part]));
}

/** Finds a letter with two sizes; under an ellipsis, a size of 1 fits any other. */
function sizeConflict(operands: readonly Labels[], shapes: readonly Shape[]): string | undefined {
  const sizes = new Map<string, number>();
  for (const [index, labels] of operands.entries()) {
    for (const [dim, label] of labels.entries()) {
      const size = shapes[index]?.[dim] as number;
      const known = sizes.get(label);
      const free = label.length > 1 && (size === 1 || known === 1);
      if (known !== undefined && known !== size && !free) return label;
      sizes.set(label, Math.max(size, known ?? 1));
    }
  }
  return undefined;
}

function byPlace(a: string, b: string): number {
  return Number(b.slice(3)) - Number(a.slice(3));
}

function count(labels: Labels, label: string): number {
  return labels.filter((other) => other === label).length;
}
