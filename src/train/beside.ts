/**
 * A new generation's memory beside that of the old one. What stays where it is, both use: the new
 * one writes nothing to it that the old one would need, if the change fails. The rest is there twice
 * for a while.
 */
import type { Device } from "../engine/index.ts";
import { LockstepError } from "../errors.ts";
import { type Instance, instantiate } from "../execute/index.ts";
import type { StepProgram, TensorRef } from "../program/index.ts";
import type { Ranks } from "./sharing.ts";
import type { TrainerOptions } from "./step-types.ts";
import type { Holding } from "./transfer.ts";

export interface BesideOptions {
  readonly engine: Device;
  readonly plan: StepProgram;
  readonly ranks: Ranks | undefined;
  readonly folder: string | undefined;
  /** The state that this rank holds, if it is that of the last committed step. */
  readonly before: (Holding & { readonly options: Pick<TrainerOptions, "ranks"> }) | undefined;
}

/** Makes the instance of a new generation. @throws PEER_LOST when there is no room for both */
export async function makeBeside(options: BesideOptions): Promise<Instance> {
  const { engine, plan, ranks, folder, before } = options;
  // Peers must map again what stays.
  const mayStay = ranks?.room?.reopens !== false && before !== undefined && isQuiet(before);
  const { instance, planned } = mayStay ? before : {};
  const adopted = instance && planned && { instance, names: sameBuffers(planned.plan, plan) };
  try {
    return await instantiate(engine, plan, ranks?.group, folder, adopted);
  } catch (error) {
    throw noRoomBeside(error);
  }
}

/**
 * Whether nobody writes to the memory of a standing any more. After a failure a network may bring
 * late what a peer has sent; neighbours have left, or are dead.
 */
function isQuiet({ options }: NonNullable<BesideOptions["before"]>): boolean {
  const { kind = "", signal } = options.ranks?.group.transport ?? {};
  return signal?.aborted !== true || kind === "shared-memory";
}

/**
 * The buffers that a rank can keep: parameters and slots that lie at the same places, and what only
 * lives for a step. A commit that was interrupted may have to be finished once more, so its journal
 * and both sets of states stay with the old generation.
 */
function sameBuffers(before: StepProgram, now: StepProgram): string[] {
  const moved = new Set<string>(before.journal && [before.journal.buffer]);
  const statesOf = ({ sides }: StepProgram) => sides.flatMap(({ states }) => [...states.values()]);
  for (const { buffer } of [...statesOf(before), ...statesOf(now)]) moved.add(buffer);
  for (const tensors of ["parameters", "slots"] as const) {
    const known = before[tensors];
    for (const [name, ref] of now[tensors])
      if (!isSame(known.get(name), ref)) moved.add(ref.buffer);
    for (const [name, ref] of known)
      if (!isSame(now[tensors].get(name), ref)) moved.add(ref.buffer);
  }
  return [...now.buffers.keys()].filter((name) => before.buffers.has(name) && !moved.has(name));
}

function isSame(one: TensorRef | undefined, other: TensorRef): boolean {
  return one?.buffer === other.buffer && one.byteOffset === other.byteOffset;
}

/**
 * A rank that has no room for both generations ends like a lost one. If that goes for all of them,
 * the run goes on from its checkpoint, with the new generation alone. Other errors stay as they are.
 */
export function noRoomBeside(cause: unknown): unknown {
  if (!(cause instanceof LockstepError) || cause.code !== "OUT_OF_MEMORY") return cause;
  const [what = ""] = cause.message.split("\n");
  return new LockstepError(
    "PEER_LOST",
    `There is no room for a new generation beside the old one: ${what.replace(/\.$/, "")}`,
    { fields: cause.fields, cause },
  );
}
