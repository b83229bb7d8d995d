/** A new generation's memory beside that of the old one, which is twice the state for a while. */
import { LockstepError } from "../errors.ts";
import { type Instance, instantiate } from "../execute/index.ts";

/** Makes the instance of a new generation. @throws PEER_LOST when there is no room for both */
export async function makeBeside(...given: Parameters<typeof instantiate>): Promise<Instance> {
  try {
    return await instantiate(...given);
  } catch (error) {
    throw noRoomBeside(error);
  }
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
