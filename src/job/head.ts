/**
 * `job.json` as bytes: readable, and sealed with its own hash, so that a single changed byte is
 * found.
 */
import { createHash } from "node:crypto";
import { LockstepError } from "../errors.ts";
import { checkHead, JOB_FILE, type JobHead, MAX_HEAD_BYTES } from "./schema.ts";

const ZEROS = "0".repeat(64);
const SEAL = /"sha256": "([0-9a-f]{64})"\n\}\n$/;
/** The number of bytes after the digits of the hash. */
const SEAL_END = '"\n}\n'.length;

export function sealHead(head: Omit<JobHead, "sha256">): {
  readonly head: JobHead;
  readonly bytes: Uint8Array;
} {
  const blank = `${JSON.stringify({ ...head, sha256: ZEROS }, null, 2)}\n`;
  const sha256 = createHash("sha256").update(blank).digest("hex");
  const text = blank.replace(SEAL, `"sha256": "${sha256}"\n}\n`);
  return { head: { ...head, sha256 }, bytes: Buffer.from(text) };
}

/** Throws FILE_CORRUPT, JOB or JOB_VERSION. */
export function openHead(bytes: Uint8Array, version: string): JobHead {
  if (bytes.byteLength > MAX_HEAD_BYTES) {
    throw new LockstepError("JOB", `${JOB_FILE} is larger than ${MAX_HEAD_BYTES} bytes.`);
  }
  const text = Buffer.from(bytes).toString();
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw changedFile(JOB_FILE, cause);
  }
  const sha256 = SEAL.exec(text)?.[1];
  if (sha256 === undefined || blankHash(bytes) !== sha256) throw changedFile(JOB_FILE);
  return checkHead(value, version);
}

/**
 * The SHA-256 of a file that ends with a seal, computed with zeros in place of the digits of the
 * seal.
 */
function blankHash(bytes: Uint8Array): string {
  const end = bytes.byteLength - SEAL_END;
  const blank = Buffer.from(bytes).fill("0", end - ZEROS.length, end);
  return createHash("sha256").update(blank).digest("hex");
}

export function changedFile(file: string, cause?: unknown): LockstepError {
  return new LockstepError("FILE_CORRUPT", `${file} of the job is not as it was written.`, {
    hint: "Make the job again from its run file, or copy it again. A job cannot be edited, because its files contain each other's hashes.",
    fields: { file },
    cause,
  });
}
