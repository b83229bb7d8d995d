/** The agents that have the job of a run, and the places for workers on their machines. */
import type { Place } from "../membership/index.ts";
import type { Standing } from "../protocol/index.ts";
import { WorkerHandle } from "./handle.ts";
import type { RemoteAgent } from "./remote.ts";

interface Seat {
  readonly agent: RemoteAgent;
  /** The most workers on it at a time. */
  readonly own: number;
  /** Its workers that were taken over. */
  readonly taken: readonly Standing[];
}

export class Seats {
  /** The same list as long as no agent comes or goes. */
  places: readonly Place[] = [];
  readonly #seats = new Map<string, Seat>();

  set(agent: RemoteAgent, own: number, taken: readonly Standing[]): void {
    this.#seats.set(agent.name, { agent, own, taken });
    this.#countPlaces();
  }

  /** Returns false if this agent has no seat. */
  delete(agent: RemoteAgent): boolean {
    if (this.#seats.get(agent.name)?.agent !== agent) return false;
    this.#seats.delete(agent.name);
    this.#countPlaces();
    return true;
  }

  has(name: string): boolean {
    return this.#seats.has(name);
  }

  get agents(): readonly RemoteAgent[] {
    return [...this.#seats.values()].map(({ agent }) => agent);
  }

  /** The agent that starts workers at a place. */
  at(place: string): RemoteAgent | undefined {
    const found = this.places.find(({ name }) => name === place);
    return found && this.#seats.get(found.node)?.agent;
  }

  get taken(): ReadonlyMap<number, Standing> {
    const all = [...this.#seats.values()].flatMap(({ taken }) => taken);
    return new Map(all.map((standing) => [standing.worker, standing]));
  }

  /** Gives the handles of workers that were taken over their bodies; one without a handle is killed. */
  adopt(workers: ReadonlyMap<number, WorkerHandle>): void {
    for (const { agent, taken } of this.#seats.values()) {
      for (const standing of taken) {
        const known = workers.get(standing.worker);
        const worker = known ?? new WorkerHandle(standing.worker, () => undefined);
        agent.adopt(worker, standing);
        if (known === undefined) worker.kill();
      }
    }
  }

  #countPlaces(): void {
    this.places = [...this.#seats].flatMap(([node, { own }]) =>
      placesOf(node, own).map((name) => ({ name, node })),
    );
  }
}

/** The names of the places of an agent. */
export function placesOf(node: string, own: number): string[] {
  return Array.from({ length: own }, (_, index) => `${node}/${index}`);
}
