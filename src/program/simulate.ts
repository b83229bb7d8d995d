/**
 * All ranks of a program in this process: every segment runs on an engine, every collective is a graph over the tensors of
 * its group. For tests of strategies (parallel equals sequential) and for finding ranks that wait for each other.
 */
import { type Device, evaluate } from "../engine/index.ts";
import { assert, LockstepError } from "../errors.ts";
import { add, concat, maximum, minimum, slice } from "../functional/index.ts";
import { type Graph, type Node, readAttributes, type Value } from "../graph/index.ts";
import { newBuilder, operatorTable } from "../ops/index.ts";
import type { Tensor } from "../tensor/index.ts";
import type { CollectiveTask, RankProgram, Task } from "./partition.ts";

export interface SimulatedRank {
  readonly program: RankProgram;
  readonly inputs: Readonly<Record<string, Tensor>>;
  /** The ranks of this rank's group on an axis, itself among them, by their place. */
  groupOf(axis: string): readonly number[];
}

interface RankState extends SimulatedRank {
  readonly rank: number;
  readonly values: Map<string, Tensor>;
  readonly done: Set<number>;
}

/** Outputs of each rank, by name. @throws ABORTED, naming who waits for what, where no rank can go on */
export async function simulateRanks(
  engine: Device,
  ranks: readonly SimulatedRank[],
): Promise<Record<string, Tensor>[]> {
  const states = ranks.map((rank, index): RankState => {
    const values = new Map(Object.entries(rank.inputs));
    return { ...rank, rank: index, values, done: new Set() };
  });
  for (;;) {
    let moved = false;
    for (const state of states) moved = (await runSegments(engine, state)) || moved;
    for (const state of states) moved = (await runCollective(engine, state, states)) || moved;
    if (!moved) break;
  }
  const stuck = states.filter(({ done, program }) => done.size < program.tasks.length);
  if (stuck.length > 0) throw deadlock(stuck);
  return states.map(({ program, values }) =>
    Object.fromEntries(program.outputs.map((name) => [name, values.get(name) as Tensor])),
  );
}

async function runSegments(engine: Device, state: RankState): Promise<boolean> {
  let moved = false;
  for (const [index, task] of state.program.tasks.entries()) {
    if (task.kind !== "segment" || !isReady(state, index, task)) continue;
    const inputs = task.inputs.map((name) => [name, valueOf(state, name)]);
    const feeds = Object.fromEntries(inputs) as Record<string, Tensor>;
    const results = await evaluate(engine, task.graph, feeds);
    for (const [name, tensor] of Object.entries(results)) state.values.set(name, tensor);
    state.done.add(index);
    moved = true;
  }
  return moved;
}

function isReady({ done }: RankState, index: number, { after }: Task): boolean {
  return !done.has(index) && after.every((needed) => done.has(needed));
}

function valueOf({ values, rank }: RankState, name: string): Tensor {
  const tensor = values.get(name);
  assert(tensor !== undefined, `rank ${rank} has a value "${name}"`);
  return tensor;
}

/** Runs the next collective of a rank if its whole group has come to it. */
async function runCollective(
  engine: Device,
  state: RankState,
  states: readonly RankState[],
): Promise<boolean> {
  const next = nextCollectives(state);
  for (const [index, task] of next) {
    const op = task.node.op;
    if (op === "lockstep::Recv") continue; // the sender moves it
    if (op === "lockstep::Send") {
      if (deliver(state, states, index, task)) return true;
      continue;
    }
    const group = state.groupOf(task.axis).map((rank) => states[rank] as RankState);
    const partners = group.map((peer) =>
      nextCollectives(peer).find(([, other]) => isSame(other, task)),
    );
    if (partners.some((partner) => partner === undefined)) continue;
    for (const [place, peer] of group.entries()) {
      const [at, own] = partners[place] as [number, CollectiveTask];
      const given = partners.flatMap((partner, rank) =>
        (partner as [number, CollectiveTask])[1].node.inputs.map((name) =>
          valueOf(group[rank] as RankState, name),
        ),
      );
      const graph = collectiveGraph(own.node, group.length, place, given);
      const feeds = Object.fromEntries(given.map((tensor, input) => [`x${input}`, tensor]));
      const results = Object.values(await evaluate(engine, graph, feeds));
      for (const [output, name] of own.node.outputs.entries()) {
        peer.values.set(name, results[output] as Tensor);
      }
      peer.done.add(at);
    }
    return true;
  }
  return false;
}

/** The first collective that is not done, of each axis, if it is ready. */
function nextCollectives(state: RankState): [number, CollectiveTask][] {
  const axes = new Set<string>();
  const found: [number, CollectiveTask][] = [];
  for (const [index, task] of state.program.tasks.entries()) {
    if (task.kind !== "collective" || state.done.has(index) || axes.has(task.axis)) continue;
    axes.add(task.axis);
    if (isReady(state, index, task)) found.push([index, task]);
  }
  return found;
}

function isSame(a: CollectiveTask, b: CollectiveTask): boolean {
  return a.axis === b.axis && a.node.op === b.node.op && a.bytes === b.bytes;
}

function deliver(
  state: RankState,
  states: readonly RankState[],
  index: number,
  task: CollectiveTask,
): boolean {
  const group = state.groupOf(task.axis);
  const { to, tag } = task.node.attributes;
  const target = states[group[numberOf(to)] as number] as RankState;
  const match = nextCollectives(target).find(
    ([, { node }]) =>
      node.op === "lockstep::Recv" &&
      group[numberOf(node.attributes["from"])] === state.rank &&
      numberOf(node.attributes["tag"]) === numberOf(tag),
  );
  if (match === undefined) return false;
  const [at, { node }] = match;
  target.values.set(node.outputs[0] as string, valueOf(state, task.node.inputs[0] as string));
  target.done.add(at);
  const sign = { dtype: "bool" as const, shape: [0], bytes: new Uint8Array(0) };
  state.values.set(task.node.outputs[0] as string, sign);
  state.done.add(index);
  return true;
}

function numberOf(attribute: Node["attributes"][string] | undefined): number {
  return attribute?.kind === "int" ? attribute.value : 0;
}

/** What the rank at `place` gets, from the inputs of all ranks, one rank after the other. */
function collectiveGraph(node: Node, size: number, place: number, given: readonly Tensor[]): Graph {
  const builder = newBuilder(node.name);
  const inputs = given.map((type, index) => builder.input(`x${index}`, type));
  const each = inputs.length / size;
  const of = (rank: number, index = 0) => inputs[rank * each + index] as Value;
  const all = Array.from({ length: size }, (_, rank) => of(rank));
  const definition = operatorTable.find(node.op);
  assert(definition !== undefined, `${node.op} is known`);
  const attributes = readAttributes(definition, node.attributes, node.name);
  const own = (value: Value) => builder.one("Identity", [value]);
  const part = (value: Value, axis: number) => {
    const length = (value.shape.at(axis) as number) / size;
    return slice(value, [{ axis, start: place * length, end: (place + 1) * length }]);
  };
  switch (node.op) {
    case "lockstep::AllReduce": {
      const combine = reductionOf(attributes.string("reduction"));
      const sums = Array.from({ length: each }, (_, index) =>
        tree(
          Array.from({ length: size }, (_, rank) => of(rank, index)),
          combine,
        ),
      );
      return builder.build(sums.map(own));
    }
    case "lockstep::ReduceScatter": {
      const sum = tree(all, reductionOf(attributes.string("reduction")));
      return builder.build([own(part(sum, attributes.number("dim")))]);
    }
    case "lockstep::AllGather":
      return builder.build([own(concat(all, attributes.number("dim")))]);
    case "lockstep::Broadcast":
      return builder.build([own(of(attributes.number("root")))]);
    case "lockstep::AllToAll": {
      const parts = all.map((value) => part(value, attributes.number("split")));
      return builder.build([own(concat(parts, attributes.number("concat")))]);
    }
    default:
      return assert(false, `${node.op} is simulated`) as never;
  }
}

function reductionOf(name: string): (a: Value, b: Value) => Value {
  if (name === "max") return maximum;
  return name === "min" ? minimum : add;
}

/** The binary tree of micro-batches, over ranks. */
function tree(values: readonly Value[], combine: (a: Value, b: Value) => Value): Value {
  if (values.length === 1) return values[0] as Value;
  const half = 2 ** (Math.ceil(Math.log2(values.length)) - 1);
  return combine(tree(values.slice(0, half), combine), tree(values.slice(half), combine));
}

function deadlock(stuck: readonly RankState[]): LockstepError {
  const waits = stuck.slice(0, 4).map((state) => {
    const [next] = nextCollectives(state);
    const what =
      next === undefined ? "a task that never runs" : `${next[1].node.op} ${next[1].name}`;
    return `rank ${state.rank} waits at ${what}`;
  });
  return new LockstepError(
    "ABORTED",
    `${stuck.length} ranks wait for each other and none can go on: ${waits.join("; ")}.`,
    { fields: { ranks: stuck.map(({ rank }) => rank) } },
  );
}
