/**
 * Flips a bit in the memory of another process of this user, as a memory error does. Linux only. The
 * caller must have started the process.
 */
import { closeSync, openSync, readFileSync, readSync, writeSync } from "node:fs";

export interface Range {
  readonly address: number;
  readonly byteLength: number;
}

/**
 * @param which in [0, 1): which bit of the range
 * @returns false if the process has no such memory any more
 */
export function flipBit(pid: number, { address, byteLength }: Range, which: number): boolean {
  const bit = Math.floor(which * byteLength * 8);
  const at = address + Math.floor(bit / 8);
  if (!isWritable(pid, at)) return false;
  let file: number | undefined;
  try {
    file = openSync(`/proc/${pid}/mem`, "r+");
    const byte = new Uint8Array(1);
    readSync(file, byte, 0, 1, at);
    byte[0] = (byte[0] as number) ^ (1 << (bit % 8));
    return writeSync(file, byte, 0, 1, at) === 1;
  } catch {
    return false; // it has ended meanwhile
  } finally {
    if (file !== undefined) closeSync(file);
  }
}

function isWritable(pid: number, at: number): boolean {
  let maps: string;
  try {
    maps = readFileSync(`/proc/${pid}/maps`, "latin1");
  } catch {
    return false;
  }
  return maps.split("\n").some((line) => {
    const [, start = "", end = "", rights = ""] = /^([0-9a-f]+)-([0-9a-f]+) (\S+)/.exec(line) ?? [];
    const isHere = at >= Number.parseInt(start, 16) && at < Number.parseInt(end, 16);
    return isHere && rights.startsWith("rw");
  });
}
