/**
 * Carries the state of a run from one instance to another: in memory that a rank can read, or by
 * messages from ranks that can read it. Tensor by tensor, and only what the receiver holds. All
 * ranks that have the state find the same routes for every receiver.
 */
import type { Group } from "../collectives/index.ts";
import type { DeviceTensor, HostTensor } from "../engine/index.ts";
import { assert } from "../errors.ts";
import type { Instance } from "../execute/index.ts";
import type { Gathered, Heirs, Held, StepProgram, TensorRef } from "../program/index.ts";
import { rangesOf } from "./held-ranges.ts";
import { peersBefore } from "./places.ts";
import { lostState, type Piece, type Route, receiveRoutes, sendRoutes } from "./routes.ts";
import { holdingOf } from "./state.ts";
import { UnderWay, type Waiting } from "./under-way.ts";

/** The most bytes that are copied or sent at once. */
const PIECE_BYTES = 2 ** 22;

/** Where a state lies. */
export interface Holding {
  readonly instance: Instance;
  readonly planned: { readonly plan: StepProgram };
  readonly from: 0 | 1;
}

/** A state that ranks of a group before have, as one of them sees it. */
export interface Estate {
  readonly holding: Holding;
  readonly heirs: Heirs;
  /** What not every rank has for itself. */
  readonly parts: readonly (Held | Gathered)[];
  /** This rank in the group before. */
  readonly rank: number;
  /** The ranks of the new group that have the state, by their numbers in the group before. */
  readonly places: ReadonlyMap<number, number>;
}

/** A rank of the new group that needs something of others. */
export interface Receiver {
  /** In the new group. */
  readonly peer: number;
  /** Its number in the group before; undefined for a newcomer. */
  readonly before: number | undefined;
  readonly plan: StepProgram;
}

/**
 * Sends this rank's share of what receivers need. Neighbours read for themselves what lies in memory
 * that the new group shares too.
 */
export async function giveState(
  estate: Estate,
  to: Holding,
  { transport }: Group,
  receivers: readonly Receiver[],
): Promise<void> {
  const source = new Source(estate.holding, estate.rank);
  const { plan } = to.planned;
  const places = tensorsOf(plan, to.from);
  const isThere = (route: Route) =>
    plan.shared.has(placeOf(places, route).buffer) && source.isAt(route, to.instance, places);
  await allOf(
    receivers.map(async (receiver) => {
      const routes = [...routesFor(estate, receiver)];
      const teller = Math.min(...estate.places.values());
      if (receiver.before === undefined && teller === transport.rank) {
        await sendRoutes({ transport }, receiver.peer, routes);
      }
      const own = routes.filter(({ giver }) => giver === transport.rank);
      const there = isNear(transport, receiver.peer) ? own.map(isThere) : [];
      const sending = new UnderWay();
      try {
        if (there.length > 0) await transport.send(receiver.peer, Uint8Array.from(there, Number));
        for (const route of own.filter((_, index) => there[index] !== true)) {
          const bytes = await source.read(route);
          await sending.add(transport.send(receiver.peer, bytes));
        }
      } finally {
        await sending.end();
      }
    }),
  );
}

/** Takes what a rank that has the state holds from now on: out of memory, or from others. */
export async function takeOver(
  estate: Estate,
  to: Holding,
  group: Group | undefined,
): Promise<void> {
  const own = group?.rank ?? 0;
  const { plan } = to.planned;
  const source = new Source(estate.holding, estate.rank);
  const routes = [...routesFor(estate, { peer: own, before: estate.rank, plan })];
  const places = tensorsOf(plan, to.from);
  const copying = async () => {
    for (const route of routes.filter(({ giver }) => giver === own)) {
      if (!source.isAt(route, to.instance, places)) {
        write(to.instance, places, route, await source.read(route));
      }
    }
  };
  const others = routes.filter(({ giver }) => giver !== own);
  await allOf([copying(), ...(group === undefined ? [] : [receive(to, group, others)])]);
}

/** Receives the state as a newcomer. @param teller the rank that says from whom */
export async function receiveState(to: Holding, group: Group, teller: number): Promise<void> {
  await receive(to, group, await receiveRoutes(group, teller));
}

/** Says to newcomers, which wait for routes, that a part of the state is lost. */
export async function tellLost({ transport }: Group, newcomers: readonly number[]): Promise<void> {
  await allOf(newcomers.map((peer) => sendRoutes({ transport }, peer, undefined)));
}

/** Whether a rank and this one map each other's memory. */
function isNear({ nodes, rank, share }: Group["transport"], peer: number): boolean {
  return share !== undefined && nodes.some((node) => node.includes(rank) && node.includes(peer));
}

/** From each giver, its pieces come in their order; a neighbour says first which are there to read. */
async function receive(to: Holding, { transport }: Group, routes: readonly Route[]): Promise<void> {
  const places = tensorsOf(to.planned.plan, to.from);
  const givers = [...new Set(routes.map(({ giver }) => giver))];
  await allOf(
    givers.map(async (from) => {
      const receiving = new UnderWay();
      const own = routes.filter(({ giver }) => giver === from);
      const there = new Uint8Array(own.length);
      try {
        if (isNear(transport, from)) await transport.receive(from, there);
        for (const [index, route] of own.entries()) {
          const isThere = there[index] === 1;
          await receiving.add(receivePiece({ to, places, transport }, route, isThere));
        }
      } finally {
        await receiving.end();
      }
    }),
  );
}

interface ReceivingEnd {
  readonly to: Holding;
  readonly places: ReadonlyMap<string, TensorRef>;
  readonly transport: Group["transport"];
}

/**
 * Into its place, where the memory can be reached.
 * @param isThere whether it lies in the memory of the giver at the same place
 */
function receivePiece(
  { to: { instance }, places, transport }: ReceivingEnd,
  route: Route,
  isThere: boolean,
): Waiting {
  const ref = placeOf(places, route);
  const length = route.to - route.from;
  if (isThere) {
    const theirs = instance.host(ref.buffer, route.giver).view(ref.byteOffset, length);
    instance.device.upload(instance.tensor(ref), theirs);
    return undefined;
  }
  const place = instance.tensor(ref);
  if (isHost(place)) return transport.receive(route.giver, place.bytes);
  const bytes = new Uint8Array(length);
  const waiting = transport.receive(route.giver, bytes) ?? Promise.resolve();
  return waiting.then(() => instance.device.upload(place, bytes));
}

/** Cuts what a receiver holds where another rank has the next bytes; those who can give take turns. */
function* routesFor(
  { holding, heirs, parts, places }: Estate,
  { peer, before, plan }: Receiver,
): Generator<Route> {
  const tensors = tensorsOf(holding.planned.plan, holding.from);
  const peers = peersBefore(holding.planned.plan, plan);
  const byBuffer = new Map<string, (Held | Gathered)[]>();
  for (const part of parts) {
    const known = byBuffer.get(part.buffer);
    if (known === undefined) byBuffer.set(part.buffer, [part]);
    else known.push(part);
  }
  let turn = 0;
  for (const { name, from, to } of piecesOf(plan, 0)) {
    const ref = tensors.get(name);
    assert(ref !== undefined, `the state has "${name}"`);
    const held = byBuffer.get(ref.buffer) ?? [];
    for (const range of rangesOf({ held }, bytesRef(ref, from, to))) {
      const piece = { name, from: range.from - ref.byteOffset, to: range.to - ref.byteOffset };
      const own = before === undefined ? undefined : heirs.memoryFor(before, range.held);
      if (own !== undefined) {
        yield { ...piece, giver: peer, memory: own };
        continue;
      }
      const givers = heirs
        .giversOf(range.held)
        .filter(({ rank }) => peers === undefined || peers.includes(rank));
      const near = givers.filter(({ rank, memory }) => rank === memory);
      const able = near.length > 0 ? near : givers;
      const giver = able[turn++ % able.length];
      if (giver === undefined) throw lostState();
      yield { ...piece, giver: places.get(giver.rank) as number, memory: giver.memory };
    }
  }
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
  const holding = holdingOf(plan);
  for (const [name, ref] of tensorsOf(plan, from)) {
    for (const range of rangesOf(holding, ref)) {
      if (range.held !== undefined) continue;
      for (let at = range.from; at < range.to; at += PIECE_BYTES) {
        const to = Math.min(range.to, at + PIECE_BYTES);
        yield { name, from: at - ref.byteOffset, to: to - ref.byteOffset };
      }
    }
  }
}

/** Reads a state in this rank's memory, or in that of its neighbours. */
class Source {
  readonly #instance: Instance;
  readonly #rank: number;
  readonly #tensors: ReadonlyMap<string, TensorRef>;

  constructor({ instance, planned, from }: Holding, rank: number) {
    this.#instance = instance;
    this.#rank = rank;
    this.#tensors = tensorsOf(planned.plan, from);
  }

  /** Whether a piece of this rank's own memory is where it has to be: both instances use it. */
  isAt({ name, memory }: Route, to: Instance, places: ReadonlyMap<string, TensorRef>): boolean {
    const [ref, place] = [this.#tensors.get(name), places.get(name)];
    if (memory !== this.#rank || ref === undefined || place === undefined) return false;
    const [here, there] = [this.#instance.tensor(ref), to.tensor(place)];
    return here.buffer === there.buffer && here.byteOffset === there.byteOffset;
  }

  async read({ name, from, to, memory }: Route): Promise<Uint8Array> {
    const ref = this.#tensors.get(name);
    assert(ref !== undefined, `the state has "${name}"`);
    if (memory !== this.#rank) {
      return this.#instance.host(ref.buffer, memory).view(ref.byteOffset + from, to - from);
    }
    const own = this.#instance.tensor(bytesRef(ref, from, to));
    return (await this.#instance.device.download(own)).bytes;
  }
}

function write(
  instance: Instance,
  places: ReadonlyMap<string, TensorRef>,
  piece: Piece,
  bytes: Uint8Array,
): void {
  instance.device.upload(instance.tensor(placeOf(places, piece)), bytes);
}

function placeOf(places: ReadonlyMap<string, TensorRef>, { name, from, to }: Piece): TensorRef {
  const ref = places.get(name);
  assert(ref !== undefined, `the state has "${name}"`);
  return bytesRef(ref, from, to);
}

function isHost(tensor: DeviceTensor): tensor is HostTensor {
  return tensor.buffer.space === "host";
}

/** Bytes [from, to) of a tensor, as a tensor of bytes. */
function bytesRef({ buffer, byteOffset }: TensorRef, from: number, to: number): TensorRef {
  const type = { dtype: "uint8", shape: [to - from] } as const;
  return { buffer, byteOffset: byteOffset + from, type };
}

/** Waits for all to end, so that none still uses memory that is closed after an error. */
export async function allOf(jobs: readonly Promise<void>[]): Promise<void> {
  const failed = (await Promise.allSettled(jobs)).find(({ status }) => status === "rejected");
  if (failed?.status === "rejected") throw failed.reason;
}
