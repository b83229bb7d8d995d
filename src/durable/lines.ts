/** States in a file, one on each line behind the first part of its hash. */
import { createHash } from "node:crypto";

const HASH_LENGTH = 16;
const NEWLINE = 10;

function hashOf(text: string | Uint8Array): string {
  return createHash("sha256").update(text).digest("hex").slice(0, HASH_LENGTH);
}

export function lineOf(text: string): Uint8Array {
  return Buffer.from(`${hashOf(text)} ${text}\n`, "utf8");
}

/** The last state that was written whole; undefined if there is none. */
export function lastLine(bytes: Uint8Array): { readonly state: unknown } | undefined {
  for (let end = bytes.lastIndexOf(NEWLINE); end >= 0; ) {
    const before = end === 0 ? -1 : bytes.lastIndexOf(NEWLINE, end - 1);
    const found = open(bytes.subarray(before + 1, end));
    if (found !== undefined) return found;
    end = before;
  }
  return undefined;
}

function open(line: Uint8Array): { readonly state: unknown } | undefined {
  const hash = Buffer.from(line.subarray(0, HASH_LENGTH)).toString("latin1");
  const text = line.subarray(HASH_LENGTH + 1);
  if (line.byteLength <= HASH_LENGTH || hashOf(text) !== hash) return undefined;
  return { state: JSON.parse(Buffer.from(text).toString("utf8")) as unknown };
}
