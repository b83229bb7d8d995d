/**
 * A rank that comes to an end: what a process does that is killed in the middle. What its last run
 * or message has written stays, and nobody learns that it has ended.
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
  /** The deed of this number, counted from 0, is the last. */
  dieAt(deed: number): void;
  /** Something happens to the memory of the rank before the deed of this number, once. */
  beforeDeed(deed: number, what: () => void): void;
  /** What it does now is the last. */
  die(): void;
}

export class Dead extends Error {}

export function mortal(device: Device): Mortal {
  let deeds: Deed[] = [];
  let last = Number.POSITIVE_INFINITY;
  const check = () => {
    if (deeds.length > last) throw new Dead("the process is dead");
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
  };
  const bound = (binding: Binding): Binding => ({
    run: async (options) => {
      count("run");
      await binding.run(options);
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
      const waiting = body();
      if (waiting !== undefined) return waiting.then(check);
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
    dieAt(deed) {
      deeds = [];
      last = deed;
    },
    beforeDeed(at, what) {
      deeds = [];
      happens = { at, what };
    },
    die() {
      last = -1;
    },
  };
}
