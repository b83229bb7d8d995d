/**
 * Carries the state of a run from one instance to another: in memory that a rank can read, or by
 * messages to ranks that have nothing. Tensor by tensor, and only what the receiver holds.
 */
import type { Group } from "../collectives/index.ts";
import { assert, LockstepError } from "../errors.ts";
import type { Instance } from "../execute/index.ts";
import type { StepProgram, TensorRef } from "../program/index.ts";
import { rangesOf } from "./state.ts";

/** The most bytes that are copied or sent at once. */
const PIECE_BYTES = 2 ** 22;

/** Where a state lies. */
export interface Holding {
  readonly instance: Instance;
  readonly planned: { readonly plan: StepProgram };
  readonly from: 0 | 1;
}

/** A piece of a tensor, by its bytes. */
interface Piece {
  readonly name: string;
  readonly from: number;
  readonly to: number;
}

/** Copies what the rank of `to` holds from what can be read here of `from`. */
export async function copyState(from: Holding, to: Holding): Promise<void> {
  const source = new Source(from);
  const places = tensorsOf(to.planned.plan, to.from);
  for (const piece of piecesOf(to.planned.plan, to.from)) {
    write(to.instance, places, piece, await source.read(piece));
  }
}

export interface Sending {
  readonly group: Group;
  readonly peer: number;
  /** The program of the peer. */
  readonly plan: StepProgram;
  /** The ranks that send, the same on all; they take turns. */
  readonly holders: readonly number[];
}

/** Sends this rank's share of what a peer needs. */
export async function sendState(from: Holding, sending: Sending): Promise<void> {
  const { group, peer, plan, holders } = sending;
  const source = new Source(from);
  for (const [index, piece] of [...piecesOf(plan, 0)].entries()) {
    if (holders[index % holders.length] !== group.rank) continue;
    await group.transport.send(peer, await source.read(piece));
  }
}

/** Receives what this rank needs from all holders at once. */
export async function receiveState(
  to: Holding,
  { group, holders }: Pick<Sending, "group" | "holders">,
): Promise<void> {
  const places = tensorsOf(to.planned.plan, to.from);
  const pieces = [...piecesOf(to.planned.plan, to.from)];
  await Promise.all(
    holders.map(async (holder, turn) => {
      for (const piece of pieces.filter((_, index) => index % holders.length === turn)) {
        const bytes = new Uint8Array(piece.to - piece.from);
        await group.transport.receive(holder, bytes);
        write(to.instance, places, piece, bytes);
      }
    }),
  );
}

/** The tensors of a state by kind and name. */
function tensorsOf(plan: StepProgram, from: 0 | 1): Map<string, TensorRef> {
  const { parameters, slots } = plan;
  const kinds = { parameters, slots, states: plan.sides[from].states };
  return new Map(
    Object.entries(kinds).flatMap(([kind, refs]) =>
      [...refs].map(([name, ref]): [string, TensorRef] => [`${kind} ${name}`, ref]),
    ),
  );
}

/** What a rank with this program holds of each tensor. */
function* piecesOf(plan: StepProgram, from: 0 | 1): Generator<Piece> {
  for (const [name, ref] of tensorsOf(plan, from)) {
    for (const range of rangesOf(plan, ref)) {
      if (range.held !== undefined) continue;
      for (let at = range.from; at < range.to; at += PIECE_BYTES) {
        const to = Math.min(range.to, at + PIECE_BYTES);
        yield { name, from: at - ref.byteOffset, to: to - ref.byteOffset };
      }
    }
  }
}

/** Reads a state where its parts lie: in this rank's memory, or in that of its neighbours. */
class Source {
  readonly #holding: Holding;
  readonly #tensors: ReadonlyMap<string, TensorRef>;

  constructor(holding: Holding) {
    this.#holding = holding;
    this.#tensors = tensorsOf(holding.planned.plan, holding.from);
  }

  async read({ name, from, to }: Piece): Promise<Uint8Array> {
    const { instance, planned } = this.#holding;
    const ref = this.#tensors.get(name);
    assert(ref !== undefined, `the state has "${name}"`);
    const parts: Uint8Array[] = [];
    for (const { from: first, to: end, held } of rangesOf(planned.plan, bytesRef(ref, from, to))) {
      const length = end - first;
      if (held === undefined) {
        const at = first - ref.byteOffset;
        const own = instance.tensor(bytesRef(ref, at, at + length));
        parts.push((await instance.device.download(own)).bytes);
      } else {
        if (!instance.canReach(ref.buffer, held.rank)) throw isElsewhere(held.rank, name);
        parts.push(instance.host(ref.buffer, held.rank).view(first, length));
      }
    }
    const [only] = parts;
    return parts.length === 1 && only !== undefined ? only : Buffer.concat(parts);
  }
}

function write(
  instance: Instance,
  places: ReadonlyMap<string, TensorRef>,
  { name, from, to }: Piece,
  bytes: Uint8Array,
): void {
  const ref = places.get(name);
  assert(ref !== undefined, `the state has "${name}"`);
  instance.device.upload(instance.tensor(bytesRef(ref, from, to)), bytes);
}

function isElsewhere(rank: number, name: string): LockstepError {
  return new LockstepError(
    "PEER_LOST",
    `Worker ${rank} is on another node, and holds a part of the ${name} alone.`,
    { hint: "Continue from the last checkpoint with --resume." },
  );
}

/** Bytes [from, to) of a tensor, as a tensor of bytes. */
function bytesRef({ buffer, byteOffset }: TensorRef, from: number, to: number): TensorRef {
  const type = { dtype: "uint8", shape: [to - from] } as const;
  return { buffer, byteOffset: byteOffset + from, type };
}
