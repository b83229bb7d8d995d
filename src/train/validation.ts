/** Loss on held-out samples: the same ones every time, spread over all that is held out. */
import type { Group } from "../collectives/index.ts";
import type { SampleSet } from "../data/index.ts";
import type { Trainer } from "./step.ts";

export class Validation {
  readonly #batches: readonly (readonly number[])[];
  readonly #samples: SampleSet;
  readonly #trainer: Trainer;
  readonly #group: Group | undefined;

  /**
   * At most `limit` samples, in whole batches; with less than one batch, samples are taken again to fill it.
   * The workers of `group` take turns with the batches, and all of them make the same calls.
   */
  constructor(
    samples: SampleSet,
    trainer: Trainer,
    { batch, limit, group }: { batch: number; limit: number; group?: Group | undefined },
  ) {
    this.#samples = samples;
    this.#trainer = trainer;
    this.#group = group;
    const count = Math.max(1, Math.floor(Math.min(samples.length, limit) / batch));
    const stride = samples.length / (count * batch);
    this.#batches = Array.from({ length: count }, (_, index) =>
      Array.from({ length: batch }, (__, row) => Math.floor((index * batch + row) * stride)),
    );
  }

  /**
   * The mean over batches, on the worker that leads; on others, of theirs. Undefined where a stop was asked for before all
   * batches were done: each worker heeds `asked` after the batch at hand.
   */
  async loss(asked?: AbortSignal): Promise<number | undefined> {
    const { rank, size } = this.#group ?? { rank: 0, size: 1 };
    // The last number says whether a worker has left some out.
    const losses = new Float64Array(this.#batches.length + 1);
    for (const [index, indices] of this.#batches.entries()) {
      if (index % size !== rank) continue;
      if (asked?.aborted === true) {
        losses[this.#batches.length] = 1;
        break;
      }
      losses[index] = await this.#trainer.evaluate((into) => this.#samples.read(indices, into));
    }
    if (this.#group !== undefined) await collect(this.#group, losses);
    if (losses.at(-1) !== 0) return undefined;
    return losses.reduce((sum, loss) => sum + loss, 0) / this.#batches.length;
  }
}

/** Fills in, on rank 0, what the other ranks have found: rank r every size-th number from r on. */
async function collect({ transport, rank, size }: Group, numbers: Float64Array): Promise<void> {
  const bytes = (values: Float64Array) => new Uint8Array(values.buffer);
  if (rank > 0) return transport.send(0, bytes(numbers));
  for (let peer = 1; peer < size; peer++) {
    const theirs = new Float64Array(numbers.length);
    await transport.receive(peer, bytes(theirs));
    const last = numbers.length - 1;
    for (let index = peer; index < last; index += size) numbers[index] = theirs[index] as number;
    numbers[last] = Math.max(numbers[last] as number, theirs[last] as number);
  }
}
