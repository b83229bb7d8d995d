/**
 * Obeys a schedule: messages go to the transport, reductions to the engine in tiles, all prepared once and run many
 * times. It does no arithmetic of its own.
 */

import type { Binding, Device, Executable, HostBuffer, HostTensor } from "../engine/index.ts";
import { assert } from "../errors.ts";
import { bytesPerElement, type DType } from "../tensor/index.ts";
import {
  type MessageOptions,
  type Transport,
  type Waiting,
  waitForAll,
} from "../transport/index.ts";
import { Arrivals } from "./arrivals.ts";
import { type Combination, inOrder, type Reduction, reductionGraph } from "./reduction.ts";
import { mayOverlap, type Schedule, type Span, type Step, type StepOf } from "./schedule.ts";

/** Elements of one call of the engine: inputs and output stay in the cache of a core. */
export const TILE_BYTES = 2 ** 18;

export interface RunnerOptions {
  readonly engine: Device;
  readonly transport: Transport;
  readonly schedule: Schedule;
  readonly dtype: DType;
  readonly reduction: Reduction;
  /** What the last step of a mean divides by. */
  readonly divisor: number;
  /** The order of reductions that take the contributions of all. */
  readonly combination: Combination | undefined;
  /** Where each space begins; `rank` is another's only where memory is shared. */
  readonly place: (space: Span["space"], rank: number, turn: Turn) => Place;
  readonly channel: number;
  readonly deadlineMs: number | undefined;
}

/** Which of two pieces of staging memory. */
export type Turn = 0 | 1;

export interface Place {
  readonly buffer: HostBuffer;
  readonly byteOffset: number;
}

type Action = () => Waiting;
type Told = NonNullable<MessageOptions["onPiece"]>;

export class Runner {
  /** What runs take turns with. */
  readonly #turns: readonly (readonly Action[])[];
  readonly #close: readonly (() => void)[];
  #runs = 0;

  private constructor(turns: readonly (readonly Action[])[], close: readonly (() => void)[]) {
    this.#turns = turns;
    this.#close = close;
  }

  /** Compiles and binds. Throws what the engine throws. */
  static async prepare(options: RunnerOptions): Promise<Runner> {
    const preparation = new Preparation(options);
    try {
      const { steps, staging = 0 } = options.schedule;
      const turns: (readonly Action[])[] = [];
      for (const turn of staging > 0 ? ([0, 1] as const) : ([0] as const)) {
        preparation.turn = turn;
        turns.push(await preparation.actions(steps));
      }
      return new Runner(turns, preparation.closers);
    } catch (error) {
      for (const close of preparation.closers) close();
      throw error;
    }
  }

  run(): Promise<void> {
    const actions = this.#turns[this.#runs % this.#turns.length] ?? [];
    this.#runs += 1;
    return runAll(actions);
  }

  close(): void {
    for (const close of this.#close) close();
  }
}

class Preparation {
  readonly closers: (() => void)[] = [];
  turn: Turn = 0;
  readonly #options: RunnerOptions;
  readonly #executables = new Map<string, Promise<Executable>>();
  readonly #unit: number;
  #tile: HostBuffer | undefined;

  constructor(options: RunnerOptions) {
    this.#options = options;
    this.#unit = bytesPerElement(options.dtype);
  }

  async actions(steps: readonly Step[]): Promise<Action[]> {
    const actions: Action[] = [];
    let at = 0;
    while (at < steps.length) {
      const [step, next] = [steps[at], steps[at + 1]] as [Step, Step | undefined];
      if (step.do === "exchange" && next?.do === "reduce" && mayOverlap(step, next)) {
        actions.push(await this.#exchangeAndReduce(step, next));
        at += 2;
      } else {
        actions.push(...(await this.#actionsOf(step)));
        at += 1;
      }
    }
    return actions;
  }

  async #actionsOf(step: Step): Promise<readonly Action[]> {
    switch (step.do) {
      case "barrier":
        return [this.#barrier(step)];
      case "copy": {
        const from = this.#bytes(step.from);
        const to = step.to.map((span) => this.#bytes(span));
        return [() => copyAll(from, to)];
      }
      case "exchange":
        return [this.#exchange(step)];
      case "reduce":
        return this.#reduce(step);
    }
  }

  #barrier({ within }: StepOf<"barrier">): Action {
    const { transport, deadlineMs } = this.#options;
    const options = {
      ...(within === undefined ? {} : { within }),
      ...(deadlineMs === undefined ? {} : { deadlineMs }),
    };
    return () => transport.barrier(options);
  }

  #exchange({ sends, receives }: StepOf<"exchange">, told?: Told): Action {
    const { transport, channel, deadlineMs } = this.#options;
    const options = { channel, ...(deadlineMs === undefined ? {} : { deadlineMs }) };
    const hearing = told === undefined ? options : { ...options, onPiece: told };
    const out = sends.map(({ peer, span }) => ({ peer, bytes: this.#bytes(span) }));
    const back = receives.map(({ peer, span }) => ({ peer, bytes: this.#bytes(span) }));
    const starts = [
      ...back.map(
        ({ peer, bytes }) =>
          () =>
            transport.receive(peer, bytes, hearing),
      ),
      ...out.map(
        ({ peer, bytes }) =>
          () =>
            transport.send(peer, bytes, options),
      ),
    ];
    return () => waitForAll(starts);
  }

  /** Tiles are reduced as they arrive, where the transport tells of it, and else when all has. */
  async #exchangeAndReduce(
    exchange: StepOf<"exchange">,
    reduce: StepOf<"reduce">,
  ): Promise<Action> {
    const byteLength = (reduce.outputs[0]?.length ?? 0) * this.#unit;
    const arrivals = new Arrivals({
      tiles: await this.#reduce(reduce),
      tileBytes: TILE_BYTES,
      byteLength,
      inputs: exchange.receives.length,
    });
    const told: Told = (byteOffset, length) => arrivals.arrived(byteOffset, length);
    const start = this.#exchange(exchange, told);
    const failed = (error: unknown) => {
      arrivals.stop();
      throw error;
    };
    return () => {
      arrivals.begin();
      const waiting = start();
      if (waiting !== undefined) return waiting.then(() => arrivals.finish(), failed);
      arrivals.finish();
      return undefined;
    };
  }

  async #reduce(step: StepOf<"reduce">): Promise<Action[]> {
    const length = step.outputs[0]?.length ?? 0;
    const tileLength = TILE_BYTES / this.#unit;
    const actions: Action[] = [];
    for (let start = 0; start < length; start += tileLength) {
      const part = (span: Span): Span => ({
        ...span,
        start: span.start + start,
        length: Math.min(tileLength, length - start),
      });
      actions.push(
        await this.#reduceTile({
          ...step,
          inputs: step.inputs.map(part),
          outputs: step.outputs.map(part),
        }),
      );
    }
    return actions;
  }

  async #reduceTile(step: StepOf<"reduce">): Promise<Action> {
    const { inputs, outputs, last, canonical } = step;
    const [target, ...copies] = outputs as [Span, ...Span[]];
    const executable = await this.#executable(inputs.length, target.length, last, canonical);
    const places = inputs.map((span) => this.#tensor(span));
    const wanted = this.#tensor(target);
    const input = places.findIndex((place) => samePlace(place, wanted));
    const result = executable.graph.outputs[0] as string;
    const direct = input < 0 || executable.mayAlias(result, `x${input}`);
    const output = direct ? wanted : this.#tileTensor(wanted);
    const binding: Binding = executable.bind({
      inputs: Object.fromEntries(places.map((place, index) => [`x${index}`, place])),
      outputs: { [result]: output },
    });
    this.closers.push(() => binding.close());
    const to = [...(direct ? [] : [wanted.bytes]), ...copies.map((span) => this.#bytes(span))];
    const from = output.bytes;
    return () => {
      binding.runSync();
      return copyAll(from, to);
    };
  }

  #executable(
    inputs: number,
    length: number,
    last: boolean,
    canonical: boolean,
  ): Promise<Executable> {
    const { engine, dtype, reduction, combination, divisor } = this.#options;
    const key = [inputs, length, last, canonical].join();
    let executable = this.#executables.get(key);
    if (executable === undefined) {
      const order = canonical ? combination : undefined;
      const graph = reductionGraph({
        dtype,
        length,
        reduction,
        inputs,
        combination: order ?? inOrder(inputs),
        ...(last && reduction === "mean" ? { divisor } : {}),
      });
      executable = engine.compile(graph, { threads: 1 });
      this.#executables.set(key, executable);
      this.closers.push(
        () =>
          void executable?.then(
            (done) => done.close(),
            () => undefined,
          ),
      );
    }
    return executable;
  }

  #tensor({ space, rank, start, length }: Span): HostTensor {
    const { transport, place, dtype } = this.#options;
    const { buffer, byteOffset } = place(space, rank ?? transport.rank, this.turn);
    return buffer.tensor({ dtype, shape: [length] }, byteOffset + start * this.#unit);
  }

  /** For kernels that cannot write over what they read. */
  #tileTensor({ dtype, shape }: HostTensor): HostTensor {
    if (this.#tile === undefined) {
      const tile = this.#options.engine.allocateHost(TILE_BYTES);
      this.#tile = tile;
      this.closers.push(() => tile.close());
    }
    return this.#tile.tensor({ dtype, shape });
  }

  #bytes(span: Span): Uint8Array {
    const { bytes } = this.#tensor(span);
    assert(bytes.byteLength === span.length * this.#unit, "a span inside its memory");
    return bytes;
  }
}

async function runAll(actions: readonly Action[]): Promise<void> {
  for (const action of actions) {
    const waiting = action();
    if (waiting !== undefined) await waiting;
  }
}

function copyAll(from: Uint8Array, to: readonly Uint8Array[]): undefined {
  for (const bytes of to) bytes.set(from);
  return undefined;
}

function samePlace(a: HostTensor, b: HostTensor): boolean {
  return a.buffer === b.buffer && a.byteOffset === b.byteOffset;
}
