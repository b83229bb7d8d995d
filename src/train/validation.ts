/** Loss on held-out samples: the same ones every time, spread over all that is held out. */
import type { SampleSet } from "../data/index.ts";
import type { Trainer } from "./step.ts";

export class Validation {
  readonly #batches: readonly (readonly number[])[];
  readonly #samples: SampleSet;
  readonly #trainer: Trainer;

  /** At most `limit` samples, in whole batches; with less than one batch, samples are taken again to fill it. */
  constructor(samples: SampleSet, trainer: Trainer, batch: number, limit: number) {
    this.#samples = samples;
    this.#trainer = trainer;
    const count = Math.max(1, Math.floor(Math.min(samples.length, limit) / batch));
    const stride = samples.length / (count * batch);
    this.#batches = Array.from({ length: count }, (_, index) =>
      Array.from({ length: batch }, (__, row) => Math.floor((index * batch + row) * stride)),
    );
  }

  /** The mean over batches. */
  async loss(): Promise<number> {
    let sum = 0;
    for (const indices of this.#batches) {
      sum += await this.#trainer.evaluate((into) => this.#samples.read(indices, into));
    }
    return sum / this.#batches.length;
  }
}
