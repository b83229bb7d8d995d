/** A device whose runs come to an end: what a process does that is killed in the middle. */
import type { Binding, Device, Executable } from "../../src/engine/index.ts";

export interface Mortal {
  readonly device: Device;
  /** Runs so far, since the last `dieAt`. */
  readonly runs: number;
  /**
   * The run of this number, counted from 0, is the last. It has written its outputs, but nobody
   * learns that it has ended.
   */
  dieAt(run: number): void;
}

export class Dead extends Error {}

export function mortal(device: Device): Mortal {
  let runs = 0;
  let last = Number.POSITIVE_INFINITY;
  const count = () => {
    if (runs > last) throw new Dead("the process is dead");
    runs += 1;
  };
  const end = () => {
    if (runs > last) throw new Dead("the process is dead");
  };
  const bound = (binding: Binding): Binding => ({
    run: async (options) => {
      count();
      await binding.run(options);
      end();
    },
    runSync: () => {
      count();
      binding.runSync();
      end();
    },
    close: () => binding.close(),
  });
  const compiled = (executable: Executable): Executable => ({
    graph: executable.graph,
    bind: (tensors) => bound(executable.bind(tensors)),
    mayAlias: (output, input) => executable.mayAlias(output, input),
    close: () => executable.close(),
  });
  return {
    device: {
      name: device.name,
      version: device.version,
      threads: device.threads,
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
    get runs() {
      return runs;
    },
    dieAt(run) {
      runs = 0;
      last = run;
    },
  };
}
