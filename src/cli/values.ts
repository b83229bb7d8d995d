/** What single words of the command line mean, and what they may be. */
import { readFileSync } from "node:fs";
import { InvalidArgumentError } from "commander";
import { isStoreAddress } from "../checkpoint/index.ts";
import type { PortRange } from "../net/index.ts";
import { notAmong } from "../options.ts";
import {
  type Attention,
  type Axes,
  bytesOfText,
  OFFLOADS,
  type Offload,
  type Recompute,
} from "../parallel/index.ts";
import { isSchedule, SCHEDULES } from "../plan/index.ts";
import { CHANGEABLE, type Changeable } from "../run/index.ts";
import type { WorkersAsked } from "./workers.ts";

export function whole(least: number): (text: string) => number {
  return (text) => {
    const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
    if (!Number.isSafeInteger(value) || value < least) {
      throw new InvalidArgumentError(`It must be a whole number, ${least} or more.`);
    }
    return value;
  };
}

export function workers(text: string): WorkersAsked {
  if (text === "cores") return text;
  const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (Number.isSafeInteger(value) && value >= 1) return value;
  throw new InvalidArgumentError("It must be a whole number, 1 or more, or the word cores.");
}

export function fraction(text: string): number {
  const value = text.trim() === "" ? Number.NaN : Number(text);
  if (!(value >= 0 && value < Number.POSITIVE_INFINITY)) {
    throw new InvalidArgumentError("It must be a number, 0 or more.");
  }
  return value;
}

/** A part of a whole, from 0 to 0.9. */
export function part(text: string): number {
  const value = text.trim() === "" ? Number.NaN : Number(text);
  if (value >= 0 && value <= 0.9) return value;
  throw new InvalidArgumentError("It must be a number from 0 to 0.9.");
}

/** Milliseconds of a time such as 5s, 500ms or 2 (seconds). */
export function duration(text: string): number {
  const [, number, unit = "s"] = /^(\d+(?:\.\d+)?)(ms|s)?$/.exec(text) ?? [];
  const value = Number(number) * (unit === "ms" ? 1 : 1000);
  if (value >= 1) return value;
  throw new InvalidArgumentError("It must be a time, as in 5s or 500ms.");
}

export function place(text: string): string {
  if (isStoreAddress(text)) return text;
  throw new InvalidArgumentError("It must be a place such as s3://bucket/prefix.");
}

export function ports(text: string): PortRange {
  const [, first, last = first] = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(text) ?? [];
  const range = { first: Number(first), last: Number(last) };
  if (range.first >= 1 && range.last >= range.first && range.last <= 65535) return range;
  throw new InvalidArgumentError("It must be a range of ports, as in 4200-4215.");
}

export function names(text: string): readonly string[] {
  return text.split(",").map((name) => name.trim());
}

export function changes(text: string): readonly Changeable[] {
  return names(text).map((name) => {
    const found = CHANGEABLE.find((changeable) => changeable === name);
    if (found !== undefined) return found;
    throw new InvalidArgumentError(`"${name}" must be one of: ${CHANGEABLE.join(", ")}.`);
  });
}

/** Parses `data=2,shard=4`, or `auto`. */
export function parallel(text: string): Axes | "auto" {
  if (text === "auto") return text;
  const entries = names(text).map((axis): [string, number] => {
    const [, name, size] = /^(data|shard|tensor|context|expert|pipeline)=(\d+)$/.exec(axis) ?? [];
    if (name !== undefined && Number(size) >= 1) return [name, Number(size)];
    throw new InvalidArgumentError("It must be auto, or sizes of axes, as in data=2,shard=4.");
  });
  return Object.fromEntries(entries);
}

/** The name of a timetable, or the text of a file that has one. */
export function timetable(text: string): string {
  if (isSchedule(text)) return text;
  try {
    return readFileSync(text, "utf8");
  } catch {
    throw new InvalidArgumentError(
      `It must be one of ${SCHEDULES.join(", ")} (interleaved-3 for three stages a worker, zb-h1+2 for workers that are two micro-batches further ahead), or a file with a timetable.`,
    );
  }
}

/** How workers that divide sequences compute attention. */
export function attention(text: string): Attention {
  if (text === "ring" || text === "auto") return text;
  throw new InvalidArgumentError("It must be ring or auto.");
}

export function zero(text: string): 1 | 2 | 3 {
  if (text === "1" || text === "2" || text === "3") return Number(text) as 1 | 2 | 3;
  throw new InvalidArgumentError("It must be 1, 2 or 3.");
}

export function memory(text: string): number {
  try {
    return bytesOfText(text);
  } catch {
    throw new InvalidArgumentError("It must be a size of memory, as in 8GB.");
  }
}

/** `blocks`, or a size of memory. */
export function again(text: string): Recompute {
  if (text === "blocks") return text;
  try {
    return { memory: bytesOfText(text) };
  } catch {
    throw new InvalidArgumentError("It must be the word blocks, or a size of memory, as in 2GB.");
  }
}

export function yesOrNo(text: string): boolean {
  if (text === "yes" || text === "no") return text === "yes";
  throw new InvalidArgumentError("It must be yes or no.");
}

export function offload(text: string): Offload {
  const found = OFFLOADS.find((known) => known === text);
  if (found !== undefined) return found;
  throw new InvalidArgumentError(`It ${notAmong(text, OFFLOADS)}.`);
}
