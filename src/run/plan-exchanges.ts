/** Lines about what workers that divide a model give each other in the pass of a micro-batch. */
import { isShard } from "../mesh/index.ts";
import {
  bytesOf,
  cutAtExchanges,
  type ExchangeTask,
  isOfKind,
  type StepGraph,
} from "../plan/index.ts";
import { columns, size } from "./columns.ts";

export function exchangeLines(step: StepGraph): string[] {
  const cut = cutAtExchanges(step);
  const found = new Map<string, { kind: string; axis: string; count: number; bytes: number }>();
  for (const task of cut.tasks.filter(isOfKind("exchange"))) {
    const { axis, inputs } = task;
    for (const [index, input] of inputs.entries()) {
      const kind = kindOf(task, index);
      const key = `${kind} ${axis}`;
      const { count, bytes } = found.get(key) ?? { count: 0, bytes: 0 };
      found.set(key, { kind, axis, count: count + 1, bytes: bytes + bytesOf(cut, [input]) });
    }
  }
  if (found.size === 0) return [];
  const rows = [...found.values()].map(({ kind, axis, count, bytes }) => [
    `  ${kind} over ${axis}`,
    `${count}`,
    `${size(bytes)} that this rank has`,
  ]);
  return ["exchanges in the pass of a micro-batch", ...columns(rows)];
}

function kindOf({ from, to, shifted }: ExchangeTask, index: number): string {
  if (shifted?.[index] === true) return "to the next rank";
  const [before, after] = [from[index], to[index]];
  if (isShard(before)) return after === undefined ? "all-gather" : "all-to-all";
  return after === undefined ? "all-reduce" : "reduce-scatter";
}
