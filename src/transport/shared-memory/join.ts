/**
 * How the ranks of one node find each other: rank 0 creates the control block, and the others look
 * for its name.
 */
import { setTimeout as delay } from "node:timers/promises";
import { LockstepError } from "../../errors.ts";
import { allocateMemory, type Memory, openMemory, pidNamespace } from "../../memory/index.ts";
import { deadlinePassed, protocolError } from "../../net/index.ts";
import { DEFAULT_DEADLINE_MS } from "../transport.ts";
import { Control, controlBytes, JOINED, NOT_JOINED } from "./control.ts";
import { isAlive, ownIdentity, type ProcessIdentity } from "./liveness.ts";
import type { JoinOptions, SharedMemoryOptions } from "./options.ts";

const LOOK_MS = 2;
const NOT_YET = ["MEMORY_NAME", "OUT_OF_MEMORY"];
const START_UNIT = 2 ** 31;

export interface Joined {
  readonly control: Control;
  readonly peers: readonly ProcessIdentity[];
}

export async function joinControl(options: JoinOptions): Promise<Joined> {
  const { rank, size, generation = 0, deadlineMs = DEFAULT_DEADLINE_MS, signal } = options;
  const nameOf = (peer: number) => options.names?.[peer] ?? peer;
  const deadlineAt = performance.now() + deadlineMs;
  /** Waits a moment for `peer`. */
  const pause = async (peer: number): Promise<void> => {
    if (performance.now() > deadlineAt) {
      throw deadlinePassed(nameOf(peer), `joining group "${options.name}"`, deadlineMs);
    }
    signal?.throwIfAborted();
    options.awaiting?.(peer);
    await delay(LOOK_MS);
  };
  const memory =
    rank === 0 ? makeControl(options, generation) : await findControl(options, generation, pause);
  try {
    const control = new Control(memory, size);
    writeIdentity(control, rank);
    const peers: ProcessIdentity[] = [];
    for (let peer = 0; peer < size; peer++) {
      while (Atomics.load(control.words, control.state(peer)) === NOT_JOINED) await pause(peer);
      peers.push(readIdentity(control, peer, nameOf(peer)));
    }
    if (rank === 0) memory.unlink();
    return { control, peers };
  } catch (error) {
    memory.close();
    throw error;
  }
}

function makeControl({ name, size }: SharedMemoryOptions, generation: number): Memory {
  const memory = allocateMemory(controlBytes(size), { shareAs: name });
  new Control(memory, size).publish(generation);
  return memory;
}

/**
 * Finds the control block of a living rank 0. A block that a dead rank 0 left behind is skipped.
 */
async function findControl(
  { name, size, names = [] }: SharedMemoryOptions,
  generation: number,
  pause: (peer: number) => Promise<void>,
): Promise<Memory> {
  const first = names[0] ?? 0;
  for (;;) {
    const memory = tryOpen(name);
    if (memory !== undefined) {
      const mismatch = Control.mismatch(memory, size, generation);
      if (mismatch === "") {
        const control = new Control(memory, size);
        const state = Atomics.load(control.words, control.state(0));
        if (state !== NOT_JOINED && isAlive(readIdentity(control, 0, first))) return memory;
      }
      memory.close();
      if (mismatch !== undefined && mismatch !== "") throw protocolError(first, mismatch);
    }
    await pause(0);
  }
}

function tryOpen(name: string): Memory | undefined {
  try {
    return openMemory(name);
  } catch (error) {
    // the block is not there yet, or has no pages yet
    if (error instanceof LockstepError && NOT_YET.includes(error.code)) return undefined;
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}

function writeIdentity(control: Control, rank: number): void {
  const { pid, start } = ownIdentity();
  const at = control.state(rank);
  control.words[at + 1] = pid;
  control.words[at + 2] = start % START_UNIT;
  control.words[at + 3] = Math.floor(start / START_UNIT);
  control.words[at + 4] = Number(pidNamespace()) | 0;
  Atomics.store(control.words, at, JOINED);
}

/** @throws PROTOCOL when the process id has no meaning in this container */
function readIdentity(control: Control, rank: number, name: number): ProcessIdentity {
  const at = control.state(rank);
  const [pid = 0, low = 0, high = 0, namespace] = control.words.subarray(at + 1, at + 5);
  if (namespace !== (Number(pidNamespace()) | 0)) {
    throw protocolError(name, "runs in another container, where its process cannot be watched");
  }
  return { pid, start: high * START_UNIT + low };
}
