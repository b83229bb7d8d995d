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

  /** The mean over batches, on the worker that leads; on others, of theirs. */
  async loss(): Promise<number> {
    const { rank, size } = this.#group ?? { rank: 0, size: 1 };
    const losses = new Float64Array(this.#batches.length);
    for (const [index, indices] of this.#batches.entries()) {
      if (index % size !== rank) continue;
      losses[index] = await this.#trainer.evaluate((into) => this.#samples.read(indices, into));
    }
    if (this.#group !== undefined) await collect(this.#group, losses);
    return losses.reduce((sum, loss) => sum + loss, 0) / losses.length;
  }
}

/** Fills in, on rank 0, what the other ranks have found: rank r every size-th number from r on. */
async function collect({ transport, rank, size }: Group, numbers: Float64Array): Promise<void> {
  const bytes = (values: Float64Array) => new Uint8Array(values.buffer);
  if (rank > 0) return transport.send(0, bytes(numbers));
  for (let peer = 1; peer < size; peer++) {
    const theirs = new Float64Array(numbers.length);
    await transport.receive(peer, bytes(theirs));
    for (let index = peer; index < numbers.length; index += size) {
      numbers[index] = theirs[index] as number;
    }
  }
}
