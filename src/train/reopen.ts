/**
 * Whether the ranks of a node can map memory of each other whose name is gone. They do that by the
 * descriptor of its owner, which some systems forbid to processes of the same user (`hidepid`,
 * restrictions of ptrace, containers).
 */
import { type Group, tellNumbers } from "../collectives/index.ts";
import {
  allocateMemory,
  handleOfNumbers,
  type Memory,
  numbersOfHandle,
  openMemory,
  uniqueName,
} from "../memory/index.ts";

/** All ranks of a group call it together, and all get the same answer. */
export async function canReopen(group: Group | undefined): Promise<boolean> {
  if (group === undefined || group.size === 1) return true;
  const { transport, rank } = group;
  const probe = makeProbe();
  try {
    const handle = probe?.reachedAs;
    const told = await tellNumbers(
      transport,
      handle === undefined ? [0, 0, 0, 0] : numbersOfHandle(handle),
    );
    const node = transport.nodes.find((ranks) => ranks.includes(rank)) ?? [];
    const opens = node.every((peer) => peer === rank || isReached(told[peer] ?? []));
    const all = await tellNumbers(transport, [opens ? 1 : 0]);
    return all.every(([one]) => one === 1);
  } finally {
    probe?.close();
  }
}

/** Memory without a name; undefined where there is no room for it. */
function makeProbe(): Memory | undefined {
  try {
    const probe = allocateMemory(1, { shareAs: uniqueName() });
    probe.unlink();
    return probe;
  } catch {
    return undefined;
  }
}

function isReached(numbers: readonly number[]): boolean {
  try {
    openMemory(handleOfNumbers(numbers)).close();
    return true;
  } catch {
    return false;
  }
}
