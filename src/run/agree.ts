/**
 * Before the first step every worker tells the others what it is about to run, and all must say the
 * same.
 */
import type { Group } from "../collectives/index.ts";
import { LockstepError } from "../errors.ts";

/** Short texts by name: `seed` → `1`. */
export type Facts = Readonly<Record<string, string>>;

/** The limit of a message's size; facts are far smaller, so a larger message is not one of ours. */
const MAX_BYTES = 2 ** 20;

/**
 * Agrees with others in a run that has begun: one that differs is lost to the others, and does not
 * end the run. Rejects with the group's error.
 */
export async function agreeOrLose(group: Group, own: Facts): Promise<void> {
  try {
    await agree(group, own);
  } catch (error) {
    group.transport.abort(error);
    throw error;
  }
}

/**
 * All workers call this together.
 * @throws PROTOCOL on the worker that differs from worker 0, and on worker 0
 */
export async function agree(group: Group, own: Facts): Promise<void> {
  const { rank, size } = group;
  const peers = rank === 0 ? Array.from({ length: size - 1 }, (_, index) => index + 1) : [0];
  for (const peer of peers) {
    const theirs = await exchange(group, peer, own);
    const [first, other] = rank === 0 ? [own, theirs] : [theirs, own];
    const differences = compare(first, other);
    if (differences.length === 0) continue;
    const differing = rank === 0 ? peer : rank;
    throw new LockstepError(
      "PROTOCOL",
      `Worker ${differing} would run something different from worker 0: ${differences.join("; ")}.`,
      {
        hint: "All workers need the same run file, the same data and the same version of lockstep.",
        fields: { peer: differing },
      },
    );
  }
}

async function exchange({ transport }: Group, peer: number, own: Facts): Promise<Facts> {
  const mine = Buffer.from(JSON.stringify(own));
  const length = Buffer.alloc(4);
  length.writeUInt32LE(mine.byteLength);
  const theirLength = Buffer.alloc(4);
  await Promise.all([transport.receive(peer, theirLength), transport.send(peer, length)]);
  const bytes = theirLength.readUInt32LE();
  if (bytes > MAX_BYTES) {
    throw new LockstepError(
      "PROTOCOL",
      `Worker ${peer} announces ${bytes} bytes of facts about its program, which is too many.`,
    );
  }
  const theirs = Buffer.alloc(bytes);
  await Promise.all([transport.receive(peer, theirs), transport.send(peer, mine)]);
  try {
    const parsed: unknown = JSON.parse(theirs.toString());
    return Object.fromEntries(
      Object.entries(parsed as object).map(([key, value]) => [key, String(value)]),
    );
  } catch {
    throw new LockstepError(
      "PROTOCOL",
      `Worker ${peer} sent facts about its program that cannot be read.`,
    );
  }
}

function compare(first: Facts, other: Facts): string[] {
  const keys = [...new Set([...Object.keys(first), ...Object.keys(other)])];
  return keys
    .filter((key) => first[key] !== other[key])
    .map((key) => `${key} is ${shown(other[key])} and not ${shown(first[key])}`);
}

function shown(fact = "unknown"): string {
  return fact.length > 100 ? `${fact.slice(0, 97)}…` : fact;
}
