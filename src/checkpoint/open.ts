/** Opens the place that a run keeps its checkpoints in. */
import { LockstepError } from "../errors.ts";
import { accessFrom, Bucket, type Environment, parseS3 } from "../s3/index.ts";
import { FolderStore } from "./folder-store.ts";
import { S3Store } from "./s3-store.ts";
import type { CheckpointStore } from "./store.ts";

/** Whether a text is the address of a place for checkpoints, and not the path of a folder. */
export function isStore(address: string): boolean {
  return address.startsWith("s3://");
}

/** Whether it can be one: `s3://bucket/prefix`. */
export function isStoreAddress(address: string): boolean {
  return parseS3(address) !== undefined;
}

/**
 * Connects to nothing yet.
 * @param place an address as `s3://bucket/prefix`, or a folder
 * @throws INVALID_OPTION for an address that is none, and without credentials
 */
export function openStore(place: string, env: Environment): CheckpointStore {
  if (!isStore(place)) return new FolderStore(place);
  const found = parseS3(place);
  if (found === undefined) {
    throw new LockstepError("INVALID_OPTION", `"${place}" is not a place for checkpoints.`, {
      hint: "Write it as s3://bucket/prefix, with letters, digits and . _ - = in the prefix.",
    });
  }
  return new S3Store(new Bucket(found.bucket, accessFrom(env, found)), found);
}
