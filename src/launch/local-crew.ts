/** Workers as processes of this machine. */
import type { Place } from "../membership/index.ts";
import type { Assignment } from "../protocol/index.ts";
import type { Crew, CrewEvents } from "./crew.ts";
import type { WorkerHandle } from "./handle.ts";
import { WorkerProcess } from "./process.ts";
import { Signs } from "./signs.ts";

export interface LocalCrewOptions {
  readonly places: readonly Place[];
  /** What each worker is given, once the job is made. */
  readonly assignment: Promise<Omit<Assignment, "number">>;
}

export class LocalCrew implements Crew {
  readonly places: readonly Place[];
  readonly #options: LocalCrewOptions;
  readonly #workers = new Map<number, WorkerProcess>();
  readonly #signs: Signs;

  constructor(options: LocalCrewOptions, events: CrewEvents) {
    this.#options = options;
    this.places = options.places;
    this.#signs = new Signs(this.#workers, events.signs);
    options.assignment.catch(events.failed);
  }

  start(worker: WorkerHandle): void {
    const { number } = worker;
    const started = WorkerProcess.start(number, {
      said: (message) => {
        if (message.kind === "beat") this.#signs.beat(number, message.progress);
        else worker.hear(message);
      },
      ended: (end) => {
        this.#workers.delete(number);
        worker.close(end);
      },
    });
    if (started === undefined) return;
    this.#workers.set(number, started);
    worker.body = started;
    void this.#options.assignment.then(
      (job) => started.tell({ kind: "job", job: { ...job, number } }),
      () => undefined,
    );
  }

  close(): void {
    this.#signs.close();
  }
}
