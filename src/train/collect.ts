/**
 * Brings to rank 0 the parts of a trainer's state that ranks of other nodes hold, for a checkpoint
 * or an export. They go into a mapped file, whose pages the system can take back.
 */
import { rmSync } from "node:fs";
import { type FileHandle, open, rm } from "node:fs/promises";
import type { Group } from "../collectives/index.ts";
import { assert, LockstepError } from "../errors.ts";
import type { Instance } from "../execute/index.ts";
import { fileError } from "../files/index.ts";
import { type Memory, mapFile } from "../memory/index.ts";
import type { Held, StepProgram } from "../program/index.ts";
import { ownExtents, placesOf, rankAt } from "./divided.ts";
import type { PlaceOf } from "./parted.ts";
import { readState, type TrainerState } from "./state.ts";

/** Bytes that are sent and written at once. */
const CHUNK_BYTES = 2 ** 22;

/** Returns the size of the file in which parts of other nodes are collected. */
export function collectedBytes(plan: StepProgram): number {
  const { held, isHeldInPlace } = plan;
  const bytesOf = (parts: readonly Held[]) =>
    parts.reduce((sum, { byteLength }) => sum + byteLength, 0);
  const each = isHeldInPlace ? 0 : bytesOf(held);
  const places = placesOf(plan).length;
  return each * places + bytesOf(ownExtents(plan, 0)) * (places - 1);
}

export interface CollectOptions {
  /** Undefined when there is one rank. */
  readonly group: Group | undefined;
  /** The number of committed steps. */
  readonly step: number;
  /** The set of states that was committed last. */
  readonly from: 0 | 1;
  /** The path of the file. */
  readonly path: string;
}

export class Collector {
  /** The last step whose parts were asked for, and the result. */
  #asked: { readonly step: number; readonly file: Promise<CollectedFile | undefined> } | undefined;
  /** The parts that rank 0 has collected. */
  #found: { readonly step: number; readonly file: CollectedFile } | undefined;

  /**
   * All ranks call this after the same step. A second call for the same step returns the same
   * result.
   * @throws DISK_FULL or IO_FAILED on rank 0 only, when the file cannot be written
   */
  async collect(
    instance: Instance,
    plan: StepProgram,
    { group, step, from, path }: CollectOptions,
  ): Promise<void> {
    if (plan.isHeldInPlace || group === undefined) return;
    if (this.#asked?.step !== step) {
      this.close();
      const file = exchange(instance, plan, { group, from, path });
      this.#asked = { step, file };
    }
    const file = await this.#asked?.file;
    if (file !== undefined) this.#found = { step, file };
  }

  /** Whether all that other ranks held after this step can be read. */
  hasAll({ held, isHeldInPlace, divided }: StepProgram, step: number): boolean {
    const isAlone = held.length === 0 && divided?.isInPlace !== false;
    return isAlone || isHeldInPlace || this.#found?.step === step;
  }

  /**
   * Returns the values of all tensors after a step. A tensor in parts is read when it is asked for.
   */
  read(instance: Instance, plan: StepProgram, from: 0 | 1, step: number): Promise<TrainerState> {
    return readState(instance, plan, from, this.placeOf(instance, plan, step));
  }

  /** Copies into this rank's own memory what other ranks hold after a step. */
  bringHere(instance: Instance, plan: StepProgram, step: number): void {
    const placeOf = this.placeOf(instance, plan, step);
    for (const part of plan.held) {
      const { memory, bytes } = instance.host(part.buffer);
      const { memory: source, at } = placeOf(part);
      memory.reserve(part.byteOffset, part.byteLength);
      bytes.set(source.view(at, part.byteLength), part.byteOffset);
    }
  }

  /** Finds parts in place, or in what was collected after this step. */
  placeOf(instance: Instance, plan: StepProgram, step: number): PlaceOf {
    const { isHeldInPlace, divided } = plan;
    return (part, place = divided?.place ?? 0) => {
      const { buffer, byteOffset } = part;
      const rank = rankAt(plan, part, place);
      if (isHeldInPlace) return { memory: instance.host(buffer, rank).memory, at: byteOffset };
      if (this.#found?.step === step) return this.#found.file.placeOf({ ...part, rank });
      throw new LockstepError(
        "PEER_LOST",
        `Worker ${rank} is on another node and has not sent its part of "${buffer}" after step ${step}.`,
        { hint: "Continue from the last checkpoint, which has all parts, with --resume." },
      );
    };
  }

  close(): void {
    this.#found?.file.close();
    this.#asked = undefined;
    this.#found = undefined;
  }
}

/**
 * Sends to rank 0 what the other ranks of its shard group hold, and those of the shard groups that
 * have other parts of the model; where these are on other nodes, all that its counterparts there have.
 */
async function exchange(
  instance: Instance,
  plan: StepProgram,
  { group, from, path }: Pick<CollectOptions, "from" | "path"> & { readonly group: Group },
): Promise<CollectedFile | undefined> {
  const { held, kept, divided } = plan;
  const places = placesOf(plan);
  const own = ownExtents(plan, from);
  if (group.rank === 0) {
    const at = (place: number) => (part: Held) => {
      return { ...part, rank: rankAt(plan, part, place) };
    };
    const elsewhere = places.filter((place) => place !== divided?.place);
    const all = [
      ...places.flatMap((place) => held.map(at(place))),
      ...elsewhere.flatMap((place) => own.map(at(place))),
    ];
    return receiveAll(all, group, path);
  }
  const isOfGroup = held.some((part) => places.some((place) => rankAt(plan, part, place) === 0));
  const isCounterpart = own.some((part) => places.some((place) => rankAt(plan, part, place) === 0));
  for (const part of [...(isOfGroup ? kept : []), ...(isCounterpart ? own : [])]) {
    const { buffer, byteOffset, byteLength } = part;
    const bytes = instance.host(buffer).bytes.subarray(byteOffset, byteOffset + byteLength);
    for (let at = 0; at < byteLength; at += CHUNK_BYTES) {
      await group.transport.send(0, bytes.subarray(at, at + CHUNK_BYTES));
    }
  }
  return undefined;
}

/**
 * Receives the parts of all ranks. After a failed write the remaining messages are still received,
 * so that the next exchange starts at the right message.
 */
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

  placeOf(part: Held): ReturnType<PlaceOf> {
    const at = this.#offsets.get(keyOf(part));
    assert(at !== undefined, "a part that was collected");
    return { memory: this.#memory, at };
  }

  close(): void {
    this.#memory.close();
    rmSync(this.#path, { force: true });
  }
}

function keyOf({ buffer, byteOffset, rank }: Held): string {
  return `${buffer} ${byteOffset} ${rank}`;
}
