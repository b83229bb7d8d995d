/**
 * Ranks on several machines, several on each: messages within a machine go through its shared memory, all others over
 * the network. When either fails, both do, on all ranks.
 */
import { LockstepError } from "../errors.ts";
import type { Memory } from "../memory/index.ts";
import { barrierAmong } from "./dissemination.ts";
import { checkRank, errorOf, Fate, reportOf } from "./failure.ts";
import { LocalGroup } from "./local-group.ts";
import { checkSubgroup, MessageSubgroup, SubgroupCounter } from "./subgroup.ts";
import {
  type BarrierOptions,
  DEFAULT_DEADLINE_MS,
  type MessageOptions,
  type SharedRegion,
  type Transport,
  type Waiting,
} from "./transport.ts";

export interface MachinesOptions {
  /**
   * The ranks of this machine, in their order, over shared memory; `names` there are the numbers that they have here,
   * so that errors name them.
   */
  readonly local: Transport;
  /** All ranks; no message goes to those of this machine, so it needs no connection to them. */
  readonly network: Transport;
  /** The ranks by machine: consecutive numbers, the first machine's first. The same on all ranks. */
  readonly machines: readonly (readonly number[])[];
  /** How long a wait for a whole barrier may take; 30 s unless told. All others are the transports' own. */
  readonly deadlineMs?: number;
}

/** Makes one transport of two, and owns them from now on. Throws INVALID_OPTION where they do not fit the machines. */
export function joinMachines(options: MachinesOptions): Transport {
  return new MachinesTransport(options);
}

class MachinesTransport implements Transport {
  readonly kind: string;
  readonly rank: number;
  readonly size: number;
  readonly generation: number;
  readonly machines: readonly (readonly number[])[];
  readonly #local: Transport;
  readonly #network: Transport;
  readonly #fate = new Fate();
  readonly #mine: readonly number[];
  readonly #deadlineMs: number;
  readonly #subgroups = new SubgroupCounter();
  /** Waits for the network that are not over. */
  #remoteWaits = 0;
  #closed = false;

  constructor({ local, network, machines, deadlineMs = DEFAULT_DEADLINE_MS }: MachinesOptions) {
    this.rank = network.rank;
    this.size = network.size;
    this.generation = network.generation;
    this.kind = `${local.kind} and ${network.kind}`;
    this.machines = machines;
    this.#mine = machines.find((ranks) => ranks.includes(network.rank)) ?? [];
    this.#deadlineMs = deadlineMs;
    this.#network = network;
    checkMachines(this, local);
    const isBusy = () => this.#remoteWaits > 0;
    this.#local = new LocalGroup(local, { isBusy, failed: (error) => this.#fail(error) });
    network.signal.addEventListener("abort", () => this.#failWith(network));
    if (network.signal.aborted) this.#failWith(network);
  }

  get signal(): AbortSignal {
    return this.#fate.signal;
  }

  send(to: number, bytes: Uint8Array, options: MessageOptions = {}): Waiting {
    checkRank(to, this.size);
    this.#fate.check();
    const peer = this.#mine.indexOf(to);
    if (peer >= 0) return this.#local.send(peer, bytes, options);
    return this.#remote(this.#network.send(to, bytes, options));
  }

  receive(from: number, into: Uint8Array, options: MessageOptions = {}): Waiting {
    checkRank(from, this.size);
    this.#fate.check();
    const peer = this.#mine.indexOf(from);
    if (peer >= 0) return this.#local.receive(peer, into, options);
    return this.#remote(this.#network.receive(from, into, options));
  }

  barrier({ within, ...options }: BarrierOptions = {}): Waiting {
    this.#fate.check();
    const isAlone = this.machines.length === 1;
    return within === "machine" || isAlone ? this.#local.barrier(options) : this.#across(options);
  }

  /** The ranks of each machine meet, then their first ranks meet, then those say so at home. */
  async #across(options: MessageOptions): Promise<void> {
    await this.#local.barrier(options);
    const firsts = this.machines.map((ranks) => ranks[0] as number);
    if (this.#mine[0] === this.rank) {
      const { rank } = this;
      const send: Transport["send"] = (...given) => this.send(...given);
      const receive: Transport["receive"] = (...given) => this.receive(...given);
      await barrierAmong({ rank, send, receive }, firsts, options);
    }
    // Whoever waits at home waits for another machine: it leaves naming that to its first rank.
    const { deadlineMs = this.#deadlineMs } = options;
    const rounds = Math.ceil(Math.log2(firsts.length));
    await this.#local.barrier({ ...options, deadlineMs: (rounds + 1) * deadlineMs });
  }

  readonly share = async (memory: Memory): Promise<SharedRegion> => {
    const { share } = this.#local;
    if (share === undefined) {
      throw new LockstepError("INVALID_OPTION", "The ranks of this machine share no memory.");
    }
    const { memories, close } = await share(memory);
    const byRank = Array.from({ length: this.size }, (_, rank) => {
      const peer = this.#mine.indexOf(rank);
      return peer < 0 ? undefined : memories[peer];
    });
    return { memories: byRank, close };
  };

  /** One with shared memory, if all its ranks are on this machine; else one of messages. */
  async subgroup(ranks: readonly number[]): Promise<Transport> {
    checkSubgroup(this, ranks);
    this.#fate.check();
    const local = ranks.map((rank) => this.#mine.indexOf(rank));
    if (local.every((rank) => rank >= 0)) return this.#local.subgroup(local);
    return new MessageSubgroup(this, ranks, this.#subgroups);
  }

  abort(reason: unknown): void {
    this.#fail(errorOf(reportOf(reason, this.rank)));
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#fate.fail(new LockstepError("ABORTED", "This rank has left the group."));
    await Promise.all([this.#local.close(), this.#network.close()]);
  }

  #remote(waiting: Waiting): Waiting {
    if (waiting === undefined) return undefined;
    this.#remoteWaits += 1;
    return waiting.finally(() => {
      this.#remoteWaits -= 1;
    });
  }

  #failWith({ signal }: Transport): void {
    const reason: unknown = signal.reason;
    this.#fail(reason instanceof LockstepError ? reason : errorOf(reportOf(reason, this.rank)));
  }

  #fail(error: LockstepError): void {
    if (this.#closed || !this.#fate.fail(error)) return;
    this.#local.abort(error);
    this.#network.abort(error);
  }
}

function checkMachines(
  { rank, size, machines }: Pick<Transport, "rank" | "size" | "machines">,
  local: Transport,
): void {
  const consecutive = machines.flat().every((member, index) => member === index);
  const mine = machines.find((ranks) => ranks.includes(rank));
  const fits = mine?.length === local.size && mine.indexOf(rank) === local.rank;
  if (consecutive && machines.flat().length === size && fits) return;
  const list = machines.map((ranks) => `[${ranks.join(", ")}]`).join(", ");
  throw new LockstepError(
    "INVALID_OPTION",
    `Rank ${rank} of ${size}, number ${local.rank} of ${local.size} on its machine, is not where the machines ${list} have it.`,
    { hint: "Give each machine the next ranks, in order, on all ranks alike." },
  );
}
