/** A new generation's memory beside that of the old one, which is twice the state for a while. */
import { LockstepError } from "../errors.ts";
import { type Instance, instantiate } from "../execute/index.ts";

/**
 * A rank that has no room for both ends like a lost one. If that goes for all of them, the run goes
 * on from its checkpoint, with the new instance alone.
 */
export async function makeBeside(...given: Parameters<typeof instantiate>): Promise<Instance> {
  try {
    return await instantiate(...given);
  } catch (cause) {
    if (!(cause instanceof LockstepError) || cause.code !== "OUT_OF_MEMORY") throw cause;
    throw new LockstepError(
      "PEER_LOST",
      `There is no room for the state of the new generation beside that of the old one: ${cause.message}`,
      { fields: cause.fields, cause },
    );
  }
}
