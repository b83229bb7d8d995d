/**
 * Where the values between tasks lie: one arena that peers can map, for what collectives read and write, and a private one.
 * Two values share a place only if every task that uses one is done before any that uses the other can start, whatever
 * runs at the same time.
 */
import { byteLength } from "../tensor/index.ts";
import type { RankProgram, Task } from "./partition.ts";

const ALIGNMENT = 64; // bytes

export interface PlannedValue {
  readonly name: string;
  /** In memory that peers map: a collective reads or writes it. */
  readonly shared: boolean;
  readonly byteOffset: number;
  readonly byteLength: number;
}

export interface MemoryPlan {
  readonly values: ReadonlyMap<string, PlannedValue>;
  /** Bytes of each arena. */
  readonly shared: number;
  readonly private: number;
  /** Bytes that the arenas would have without reuse. */
  readonly withoutReuse: number;
}

interface Use {
  readonly name: string;
  readonly bytes: number;
  readonly shared: boolean;
  /** Indices of the tasks that make or read it, ascending. */
  readonly tasks: readonly number[];
}

/** Plans what tasks make, but for the values in `placed`: those have places of their own (parameters, gradients). */
export function planMemory(program: RankProgram, placed: ReadonlySet<string>): MemoryPlan {
  const before = ancestorsOf(program.tasks);
  const uses = usesOf(program, placed);
  uses.sort((a, b) => b.bytes - a.bytes || (a.name < b.name ? -1 : 1));
  const values = new Map<string, PlannedValue>();
  const sizes = { shared: 0, private: 0 };
  const arenas: Record<"shared" | "private", { use: Use; start: number; end: number }[]> = {
    shared: [],
    private: [],
  };
  for (const use of uses) {
    const kind = use.shared ? "shared" : "private";
    const rivals = arenas[kind].filter((other) => mayOverlap(use, other.use, before));
    const start = firstGap(rivals, use.bytes);
    const end = start + use.bytes;
    arenas[kind].push({ use, start, end });
    sizes[kind] = Math.max(sizes[kind], end);
    const { name, shared } = use;
    values.set(name, { name, shared, byteOffset: start, byteLength: use.bytes });
  }
  const withoutReuse = uses.reduce((sum, { bytes }) => sum + bytes, 0);
  return { values, ...sizes, withoutReuse };
}

function usesOf({ tasks, outputs, types }: RankProgram, placed: ReadonlySet<string>): Use[] {
  const touched = new Map<string, number[]>();
  const made = new Set<string>();
  const shared = new Set<string>();
  for (const [index, task] of tasks.entries()) {
    for (const name of task.outputs) made.add(name);
    for (const name of [...task.inputs, ...task.outputs]) {
      if (task.kind === "collective") shared.add(name);
      const list = touched.get(name) ?? [];
      touched.set(name, list);
      list.push(index);
    }
  }
  // What the program gives is read after its last task.
  for (const name of outputs) touched.get(name)?.push(tasks.length);
  return [...touched].flatMap(([name, list]) => {
    const type = types.get(name);
    if (!made.has(name) || placed.has(name) || type === undefined) return [];
    const bytes = Math.ceil(byteLength(type) / ALIGNMENT) * ALIGNMENT;
    return [{ name, bytes, shared: shared.has(name), tasks: list }];
  });
}

/** For each task, all that are done before it starts. */
function ancestorsOf(tasks: readonly Task[]): ReadonlySet<number>[] {
  const all: Set<number>[] = [];
  for (const { after } of tasks) {
    const own = new Set(after);
    for (const index of after) for (const earlier of all[index] ?? []) own.add(earlier);
    all.push(own);
  }
  return all;
}

function mayOverlap(a: Use, b: Use, before: readonly ReadonlySet<number>[]): boolean {
  const isBefore = (first: Use, second: Use) =>
    second.tasks.every((late) =>
      first.tasks.every((early) => late >= before.length || before[late]?.has(early) === true),
    );
  const ends = (use: Use) => use.tasks.at(-1) === before.length;
  return (ends(a) || !isBefore(a, b)) && (ends(b) || !isBefore(b, a));
}

function firstGap(taken: readonly { start: number; end: number }[], bytes: number): number {
  let at = 0;
  for (const { start, end } of taken.toSorted((a, b) => a.start - b.start)) {
    if (start - at >= bytes) return at;
    at = Math.max(at, end);
  }
  return at;
}
