/**
 * A rank that comes to an end: what a process does that is killed in the middle. What its last run
 * or message has written stays, and nobody learns that it has ended. It can also be held: then it
 * does nothing more, as a stopped process, or nothing that others hear of, as one that is cut off.
 */
import type { Binding, Device, Executable } from "../../src/engine/index.ts";
import type { Transport } from "../../src/transport/index.ts";

type Waiting = ReturnType<Transport["send"]>;

/** What a rank does that others can see: runs write memory, and meetings are messages. */
export type Deed = "run" | "meeting";

export interface Mortal {
  readonly device: Device;
  /** The same transport, whose messages are deeds of this rank. */
  transport(given: Transport): Transport;
  /** Deeds so far, since the last `dieAt`. Without a transport they are runs. */
  readonly deeds: readonly Deed[];
  /** The deed of this number, counted from 0 (or of a kind of deeds), is the last. */
  dieAt(deed: number, kind?: Deed): void;
  /** Something happens to the memory of the rank before the deed of this number, once. */
  beforeDeed(deed: number, what: () => void): void;
  /** What it does now is the last. What it is held at fails. */
  die(): void;
  /**
   * From the deed of this number on it does nothing, or no deed of this kind, until it is let go or
   * dies. A run that the rank does not wait for is not held.
   */
  holdAt(deed: number, kind?: Deed): void;
  letGo(): void;
  /** A number that changes with all that it does, and whether a run is under way. */
  readonly pulse: number;
  readonly isRunning: boolean;
  /** Whether a deed of it is held. */
  readonly isHeld: boolean;
}

export class Dead extends Error {}

interface Hold {
  readonly at: number;
  readonly kind: Deed | undefined;
  readonly freed: Promise<void>;
  readonly free: () => void;
}

export function mortal(device: Device): Mortal {
  let deeds: Deed[] = [];
  let last = Number.POSITIVE_INFINITY;
  let lastKind: Deed | undefined;
  const check = () => {
    const counted = lastKind === undefined ? deeds : deeds.filter((own) => own === lastKind);
    if (counted.length > last) throw new Dead("the process is dead");
  };
  let [pulse, running, waiting] = [0, 0, 0];
  let hold: Hold | undefined;
  const held = (deed: Deed) => {
    const isHeld = hold !== undefined && deeds.length > hold.at && (hold.kind ?? deed) === deed;
    if (!isHeld) return undefined;
    waiting += 1;
    return hold?.freed.then(() => {
      waiting -= 1;
    });
  };
  let happens: { readonly at: number; readonly what: () => void } | undefined;
  const count = (deed: Deed) => {
    check();
    if (happens?.at === deeds.length) {
      const { what } = happens;
      happens = undefined;
      what();
    }
    deeds.push(deed);
    pulse += 1;
  };
  const bound = (binding: Binding): Binding => ({
    run: async (options) => {
      count("run");
      const freed = held("run");
      if (freed !== undefined) await freed.then(check);
      running += 1;
      try {
        await binding.run(options);
      } finally {
        running -= 1;
        pulse += 1;
      }
      check();
    },
    runSync: () => {
      count("run");
      binding.runSync();
      check();
    },
    close: () => binding.close(),
  });
  const compiled = (executable: Executable): Executable => ({
    graph: executable.graph,
    bind: (tensors) => bound(executable.bind(tensors)),
    mayAlias: (output, input) => executable.mayAlias(output, input),
    close: () => executable.close(),
  });
  const meeting = (body: () => Waiting): Waiting => {
    try {
      count("meeting");
      const met = () => {
        pulse += 1;
        check();
      };
      const freed = held("meeting");
      if (freed !== undefined) return freed.then(check).then(body).then(met);
      const begun = body();
      if (begun !== undefined) return begun.then(met);
      check();
      return undefined;
    } catch (error) {
      return Promise.reject(error instanceof Error ? error : new Error(String(error)));
    }
  };
  const met = (given: Transport): Transport => ({
    kind: given.kind,
    rank: given.rank,
    size: given.size,
    generation: given.generation,
    nodes: given.nodes,
    signal: given.signal,
    share: given.share?.bind(given),
    send: (...words) => meeting(() => given.send(...words)),
    receive: (...words) => meeting(() => given.receive(...words)),
    barrier: (...words) => meeting(() => given.barrier(...words)),
    subgroup: async (ranks) => met(await given.subgroup(ranks)),
    abort: (reason) => given.abort(reason),
    close: () => given.close(),
  });
  return {
    device: {
      name: device.name,
      version: device.version,
      threads: device.threads,
      runs: device.runs,
      allocate: (...given) => device.allocate(...given),
      allocateHost: (...given) => device.allocateHost(...given),
      attach: (memory) => device.attach(memory),
      prepare: (graph) => device.prepare(graph),
      compile: async (...given) => compiled(await device.compile(...given)),
      upload: (...given) => device.upload(...given),
      download: (from) => device.download(from),
      copy: (...given) => device.copy(...given),
      close: () => device.close(),
    },
    transport: met,
    get deeds() {
      return deeds;
    },
    dieAt(deed, kind) {
      deeds = [];
      last = deed;
      lastKind = kind;
    },
    beforeDeed(at, what) {
      deeds = [];
      happens = { at, what };
    },
    die() {
      last = -1;
      hold?.free();
    },
    holdAt(at, kind) {
      let free = () => undefined as void;
      const freed = new Promise<void>((resolve) => {
        free = resolve;
      });
      hold = { at, kind, freed, free };
    },
    letGo() {
      hold?.free();
      hold = undefined;
    },
    get pulse() {
      return pulse;
    },
    get isRunning() {
      return running > 0;
    },
    get isHeld() {
      return waiting > 0;
    },
  };
}
