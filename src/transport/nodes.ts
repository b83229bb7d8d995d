/**
 * Ranks on several nodes, several on each. Messages within a node go through its shared memory, all
 * others over the network. When either fails, both do, on all ranks.
 */
import { LockstepError } from "../errors.ts";
import type { Memory } from "../memory/index.ts";
import { checkRank, errorOf, Fate, reportOf } from "../net/index.ts";
import { barrierAmong } from "./dissemination.ts";
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

export interface NodesOptions {
  /**
   * The ranks of this node, in their order, over shared memory. Its `names` are the numbers that
   * they have in the run, so that errors name them.
   */
  readonly local: Transport;
  /** All ranks. No message goes to those of this node, so it needs no connection to them. */
  readonly network: Transport;
  /**
   * The ranks of each node: consecutive numbers, beginning with the first node's. The same on all
   * ranks.
   */
  readonly nodes: readonly (readonly number[])[];
  /**
   * How long a barrier of all ranks may take; other waits have the transports' deadlines. Default:
   * 30 s.
   */
  readonly deadlineMs?: number;
}

/**
 * Makes one transport of two, which it closes from now on. Throws INVALID_OPTION where they do not
 * fit the nodes.
 */
export function joinNodes(options: NodesOptions): Transport {
  return new NodesTransport(options);
}

class NodesTransport implements Transport {
  readonly kind: string;
  readonly rank: number;
  readonly size: number;
  readonly generation: number;
  readonly nodes: readonly (readonly number[])[];
  readonly #local: Transport;
  readonly #network: Transport;
  readonly #fate = new Fate();
  readonly #mine: readonly number[];
  readonly #deadlineMs: number;
  readonly #subgroups = new SubgroupCounter();
  /** How many waits for the network have not ended. */
  #remoteWaits = 0;
  #closed = false;

  constructor({ local, network, nodes, deadlineMs = DEFAULT_DEADLINE_MS }: NodesOptions) {
    this.rank = network.rank;
    this.size = network.size;
    this.generation = network.generation;
    this.kind = `${local.kind} and ${network.kind}`;
    this.nodes = nodes;
    this.#mine = nodes.find((ranks) => ranks.includes(network.rank)) ?? [];
    this.#deadlineMs = deadlineMs;
    this.#network = network;
    checkNodes(this, local);
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
    const isAlone = this.nodes.length === 1;
    return within === "node" || isAlone ? this.#local.barrier(options) : this.#across(options);
  }

  /**
   * The ranks of each node meet; then the first ranks of all nodes meet; then the ranks of each
   * node meet again.
   */
  async #across(options: MessageOptions): Promise<void> {
    await this.#local.barrier(options);
    const firsts = this.nodes.map((ranks) => ranks[0] as number);
    if (this.#mine[0] === this.rank) {
      const { rank } = this;
      const send: Transport["send"] = (...given) => this.send(...given);
      const receive: Transport["receive"] = (...given) => this.receive(...given);
      await barrierAmong({ rank, send, receive }, firsts, options);
    }
    // These ranks wait for another node. Only their first rank can name it, so their deadline must
    // be later than its own.
    const { deadlineMs = this.#deadlineMs } = options;
    const rounds = Math.ceil(Math.log2(firsts.length));
    await this.#local.barrier({ ...options, deadlineMs: (rounds + 1) * deadlineMs });
  }

  readonly share = async (memory: Memory): Promise<SharedRegion> => {
    const { share } = this.#local;
    if (share === undefined) {
      throw new LockstepError("INVALID_OPTION", "The ranks of this node share no memory.");
    }
    const { memories, close } = await share(memory);
    const byRank = Array.from({ length: this.size }, (_, rank) => {
      const peer = this.#mine.indexOf(rank);
      return peer < 0 ? undefined : memories[peer];
    });
    return { memories: byRank, close };
  };

  /** Shares memory if all its ranks are on this node; otherwise it has messages only. */
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

function checkNodes(
  { rank, size, nodes }: Pick<Transport, "rank" | "size" | "nodes">,
  local: Transport,
): void {
  const consecutive = nodes.flat().every((member, index) => member === index);
  const mine = nodes.find((ranks) => ranks.includes(rank));
  const fits = mine?.length === local.size && mine.indexOf(rank) === local.rank;
  if (consecutive && nodes.flat().length === size && fits) return;
  const list = nodes.map((ranks) => `[${ranks.join(", ")}]`).join(", ");
  throw new LockstepError(
    "INVALID_OPTION",
    `Rank ${rank} of ${size}, number ${local.rank} of ${local.size} on its node, does not fit the nodes ${list}.`,
    { hint: "Number the ranks node by node, in order, in the same way on all ranks." },
  );
}
