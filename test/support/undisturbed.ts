/** One process that trains undisturbed, with which ranks that are disturbed are compared. */

import type { Trainer, TrainerOptions } from "../../src/train/index.ts";
import { createTrainer, type Prepared, prepare } from "../../src/train/index.ts";
import { stepOf } from "./small-models.ts";
import { bitsOf } from "./steps.ts";

export type Bits = Readonly<Record<string, string>>;

export class Undisturbed {
  /** The step of one process, from which the trainers of all ranks can be made. */
  readonly prepared: Promise<Prepared>;
  readonly #trainer: Promise<Trainer>;
  readonly #samples: number;
  readonly #bits: Promise<Bits>[] = [];

  /** @param samples of a step */
  constructor(options: TrainerOptions, samples: number) {
    this.#samples = samples;
    this.prepared = prepare({ ...options, isApart: false });
    this.#trainer = this.prepared.then((prepared) => createTrainer(options, prepared));
  }

  /** What a checkpoint after this many steps holds. */
  after(steps: number): Promise<Bits> {
    this.#bits[steps] ??= this.#trainTo(steps);
    return this.#bits[steps];
  }

  async #trainTo(steps: number): Promise<Bits> {
    const trainer = await this.#trainer;
    if (steps > 0) {
      await this.after(steps - 1);
      await stepOf(trainer, this.#samples);
    }
    return bitsOf(trainer);
  }

  async close(): Promise<void> {
    (await this.#trainer).close();
    (await this.prepared).close();
  }
}
