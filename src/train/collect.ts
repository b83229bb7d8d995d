/**
 * What ranks of other nodes hold of a trainer's state, brought to rank 0 for a checkpoint or an
 * export: into a file that is mapped, so that it takes no memory that the system cannot have back.
 */
import { rmSync } from "node:fs";
import { type FileHandle, open, rm } from "node:fs/promises";
import type { Group } from "../collectives/index.ts";
import { assert, LockstepError } from "../errors.ts";
import type { Instance } from "../execute/index.ts";
import { fileError } from "../files/index.ts";
import { type Memory, mapFile } from "../memory/index.ts";
import type { Held, StepProgram } from "../program/index.ts";
import { type ReadHeld, readState, type TrainerState } from "./state.ts";

/** What is sent and written at once. */
const CHUNK_BYTES = 2 ** 22;

/** Of the file that parts of other nodes are collected in. */
export function collectedBytes({ held, isHeldInPlace }: StepProgram): number {
  return isHeldInPlace ? 0 : held.reduce((sum, part) => sum + part.byteLength, 0);
}

export interface CollectOptions {
  /** Undefined for one rank alone. */
  readonly group: Group | undefined;
  /** Steps that were committed. */
  readonly step: number;
  /** Of the file. */
  readonly path: string;
}

export class Collector {
  /** The step whose parts were asked for last, and what came of it. */
  #asked: { readonly step: number; readonly file: Promise<CollectedFile | undefined> } | undefined;
  /** What rank 0 has of it. */
  #found: { readonly step: number; readonly file: CollectedFile } | undefined;

  /**
   * All ranks call it after the same step, and get the same answer when they call it again. Rank 0
   * throws DISK_FULL and IO_FAILED; the others do not hear of it.
   */
  async collect(
    instance: Instance,
    plan: StepProgram,
    { group, step, path }: CollectOptions,
  ): Promise<void> {
    if (plan.isHeldInPlace || group === undefined) return;
    if (this.#asked?.step !== step) {
      this.close();
      const file = exchange(instance, plan, group, path);
      this.#asked = { step, file };
    }
    const file = await this.#asked?.file;
    if (file !== undefined) this.#found = { step, file };
  }

  /** Whether all that others held after this step can be read. */
  hasAll({ held, isHeldInPlace }: StepProgram, step: number): boolean {
    return held.length === 0 || isHeldInPlace || this.#found?.step === step;
  }

  /** What all tensors hold after a step; of those in parts, what is read when they are asked for. */
  read(instance: Instance, plan: StepProgram, from: 0 | 1, step: number): Promise<TrainerState> {
    return readState(instance, plan, from, this.#reader(instance, plan, step));
  }

  /** Brings to this rank's own memory what others hold after a step. */
  bringHere(instance: Instance, plan: StepProgram, step: number): void {
    const { read } = this.#reader(instance, plan, step);
    for (const part of plan.held) {
      instance.host(part.buffer).bytes.set(read(part, 0, part.byteLength), part.byteOffset);
    }
  }

  /** Reads in place, or what was collected after this step. */
  #reader(instance: Instance, { isHeldInPlace }: StepProgram, step: number): ReadHeld {
    const placeOf = (part: Held): { readonly memory: Memory; readonly at: number } => {
      const { buffer, rank, byteOffset } = part;
      if (isHeldInPlace) return { memory: instance.host(buffer, rank).memory, at: byteOffset };
      if (this.#found?.step === step) return this.#found.file.placeOf(part);
      throw new LockstepError(
        "PEER_LOST",
        `Worker ${rank} holds a part of "${buffer}" on another node, and has not sent it after step ${step}.`,
        { hint: "The last checkpoint has all parts: go on from it with --resume." },
      );
    };
    return {
      read(part, byteOffset, byteLength) {
        const { memory, at } = placeOf(part);
        return memory.view(at + byteOffset, byteLength);
      },
      letGo(part, byteOffset, byteLength) {
        const { memory, at } = placeOf(part);
        memory.letGo(at + byteOffset, byteLength);
      },
    };
  }

  close(): void {
    this.#found?.file.close();
    this.#asked = undefined;
    this.#found = undefined;
  }
}

/** Rank 0 gets what the ranks hold among which its own parts are shared out. */
async function exchange(
  instance: Instance,
  { held, kept }: StepProgram,
  group: Group,
  path: string,
): Promise<CollectedFile | undefined> {
  if (group.rank === 0) return receiveAll(held, group, path);
  if (!held.some(({ rank }) => rank === 0)) return undefined;
  for (const { buffer, byteOffset, byteLength } of kept) {
    const own = instance.host(buffer).bytes.subarray(byteOffset, byteOffset + byteLength);
    for (let at = 0; at < byteLength; at += CHUNK_BYTES) {
      await group.transport.send(0, own.subarray(at, at + CHUNK_BYTES));
    }
  }
  return undefined;
}

/** After a failure to write, what is under way is still taken, so that the messages that follow are found. */
async function receiveAll(
  held: readonly Held[],
  { transport }: Group,
  path: string,
): Promise<CollectedFile> {
  const offsets = new Map<string, number>();
  let failure: { readonly error: unknown } | undefined;
  const orFail = async (body: () => Promise<unknown>) => {
    if (failure !== undefined) return;
    try {
      await body();
    } catch (error) {
      failure = { error: fileError(error, "write", path) };
    }
  };
  let file: FileHandle | undefined;
  await orFail(async () => {
    file = await open(path, "w");
  });
  const chunk = new Uint8Array(CHUNK_BYTES);
  let position = 0;
  for (const part of held) {
    offsets.set(keyOf(part), position);
    for (let at = 0; at < part.byteLength; at += CHUNK_BYTES) {
      const bytes = chunk.subarray(0, Math.min(CHUNK_BYTES, part.byteLength - at));
      await transport.receive(part.rank, bytes);
      await orFail(async () => file?.writeFile(bytes));
      position += bytes.byteLength;
    }
  }
  await orFail(async () => file?.close());
  if (failure !== undefined) {
    await file?.close().catch(() => undefined);
    await rm(path, { force: true });
    throw failure.error;
  }
  return new CollectedFile(path, offsets);
}

class CollectedFile {
  readonly #path: string;
  readonly #memory: Memory;
  readonly #offsets: ReadonlyMap<string, number>;

  constructor(path: string, offsets: ReadonlyMap<string, number>) {
    this.#path = path;
    this.#memory = mapFile(path);
    this.#offsets = offsets;
  }

  placeOf(part: Held): { readonly memory: Memory; readonly at: number } {
    const at = this.#offsets.get(keyOf(part));
    assert(at !== undefined, "a part that was collected");
    return { memory: this.#memory, at };
  }

  close(): void {
    this.#memory.close();
    rmSync(this.#path, { force: true });
  }
}

function keyOf({ buffer, byteOffset }: Held): string {
  return `${buffer} ${byteOffset}`;
}
