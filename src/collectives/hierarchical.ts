/**
 * Over machines of several ranks each: what all ranks of a machine have is combined there first, so each byte crosses
 * the network once for a machine, not once for a rank. Part p belongs to rank p; on every other machine one rank, its
 * deputy, combines and spreads part p. Deputies are spread evenly, so all ranks of a machine share its network.
 *
 * Only the deputy of a part (on the part's own machine: its owner) reads or writes that part of others' memory.
 */
import { treeBroadcast } from "./move.ts";
import {
  dataSpan,
  evenParts,
  exchange,
  type Message,
  mapRanks,
  type Part,
  reduce,
  type Schedule,
  type Span,
  type Step,
  scratchSpan,
} from "./schedule.ts";

export interface Layout {
  readonly rank: number;
  /** The ranks by machine. */
  readonly machines: readonly (readonly number[])[];
  /** Whether memory of ranks of the same machine is read and written in place. */
  readonly shared: boolean;
}

const ALGORITHM = "hierarchical";
const BARRIER: Step = { do: "barrier", within: "machine" };

/** The order of sums: ranks within a machine, then machines. */
export function hierarchicalAllReduce(layout: Layout, count: number): Schedule {
  const view = new View(layout, partsByPlace(layout.machines, count));
  return view.schedule(view.shared, [...view.reduceScatter(), ...view.allGather()]);
}

export function hierarchicalReduceScatter(layout: Layout, parts: readonly Part[]): Schedule {
  const view = new View(layout, parts);
  return view.schedule(view.shared, view.reduceScatter());
}

export function hierarchicalAllGather(layout: Layout, parts: readonly Part[]): Schedule {
  const view = new View(layout, parts);
  return view.schedule(view.shared, view.allGather());
}

/** To one rank of each machine, in a tree; then each machine by itself. */
export function hierarchicalBroadcast(layout: Layout, count: number, root: number): Schedule {
  const { rank, machines, shared } = layout;
  const view = new View(layout, []);
  const reached = machines.map((_, machine) => view.deputy(root, machine));
  const across = treeWithin(reached, rank, count, root);
  const source = reached[view.machine] as number;
  if (!shared) {
    return view.schedule(false, [...across, ...treeWithin(view.mates, rank, count, source)]);
  }
  const whole = { start: 0, length: count };
  const from = dataSpan(whole, source);
  const copies: Step[] =
    rank === source || count === 0 ? [] : [{ do: "copy", from, to: [dataSpan(whole)] }];
  return view.schedule(false, [...across, BARRIER, ...copies, BARRIER]);
}

/** Even parts, so that what the ranks with one place in their machines own lies together. */
function partsByPlace(machines: Layout["machines"], count: number): Part[] {
  const size = machines.flat().length;
  const places = Math.max(...machines.map(({ length }) => length));
  const owners = Array.from({ length: places }, (_, place) =>
    machines.flatMap((ranks) => ranks.slice(place, place + 1)),
  ).flat();
  const parts: Part[] = [];
  for (const [index, part] of evenParts(count, size).entries()) parts[owners[index] ?? 0] = part;
  return parts;
}

/** The steps of `rank` in a broadcast among `members`, if it is one. */
function treeWithin(
  members: readonly number[],
  rank: number,
  count: number,
  root: number,
): readonly Step[] {
  const index = members.indexOf(rank);
  if (index < 0) return [];
  const { steps } = treeBroadcast(index, members.length, count, members.indexOf(root));
  return mapRanks(steps, members);
}

/** What one rank sees of the machines, and where its scratch memory goes. */
class View {
  readonly rank: number;
  readonly shared: boolean;
  /** The index of this rank's machine, and its ranks. */
  readonly machine: number;
  readonly mates: readonly number[];
  readonly #machines: Layout["machines"];
  readonly #parts: readonly Part[];
  #scratch = 0;

  constructor({ rank, machines, shared }: Layout, parts: readonly Part[]) {
    this.rank = rank;
    this.shared = shared;
    this.#machines = machines;
    this.#parts = parts;
    this.machine = this.#machineOf(rank);
    this.mates = machines[this.machine] ?? [rank];
  }

  /** `inPlace`: peers of the machine use each other's memory from the beginning to the end. */
  schedule(inPlace: boolean, steps: readonly Step[]): Schedule {
    const around = inPlace ? [BARRIER] : [];
    return {
      algorithm: ALGORITHM,
      steps: [...around, ...steps, ...around],
      scratch: this.#scratch,
    };
  }

  /** The rank of a machine that stands there for the owner of a part. */
  deputy(owner: number, machine: number): number {
    const home = this.#machines[this.#machineOf(owner)] ?? [];
    const ranks = this.#machines[machine] ?? [];
    return ranks[home.indexOf(owner) % ranks.length] as number;
  }

  reduceScatter(): Step[] {
    const mine = this.#parts[this.rank] as Part;
    const partials = this.#machines.map((_, machine) =>
      machine === this.machine ? dataSpan(mine) : this.#newScratch(mine.length),
    );
    const sends = this.#foreign().map((owner) => this.#message(owner, owner));
    const receives = partials.flatMap((span, machine) =>
      machine === this.machine ? [] : [{ peer: this.deputy(this.rank, machine), span }],
    );
    return [
      ...(this.shared ? this.#combineInPlace() : this.#combineByMessages()),
      ...exchange(sends, receives),
      ...reduce(partials, [dataSpan(mine)], true),
    ];
  }

  allGather(): Step[] {
    const deputies = this.#machines.flatMap((_, machine) =>
      machine === this.machine ? [] : [this.deputy(this.rank, machine)],
    );
    const sends = deputies.map((peer) => this.#message(peer, this.rank));
    const receives = this.#foreign().map((owner) => this.#message(owner, owner));
    return [...exchange(sends, receives), ...this.#spread()];
  }

  #combineInPlace(): Step[] {
    if (this.mates.length === 1) return [];
    return this.#served(this.rank).flatMap((part) => {
      const inputs = this.mates.map((mate) => dataSpan(part, mate));
      return reduce(inputs, [dataSpan(part)], false);
    });
  }

  #combineByMessages(): Step[] {
    if (this.mates.length === 1) return [];
    const others = this.mates.filter((mate) => mate !== this.rank);
    const sends = others.flatMap((peer) =>
      this.#served(peer).map((part) => ({ peer, span: dataSpan(part) })),
    );
    const receives: Message[] = [];
    const sums: Step[] = [];
    for (const part of this.#served(this.rank)) {
      const inputs = this.mates.map((peer): Span => {
        if (peer === this.rank) return dataSpan(part);
        const span = this.#newScratch(part.length);
        receives.push({ peer, span });
        return span;
      });
      sums.push(...reduce(inputs, [dataSpan(part)], false));
    }
    return [...exchange(sends, receives), ...sums];
  }

  #spread(): Step[] {
    const others = this.mates.filter((mate) => mate !== this.rank);
    if (others.length === 0) return [];
    if (this.shared) {
      return this.#served(this.rank).map((part) => {
        const to = others.map((mate) => dataSpan(part, mate));
        return { do: "copy", from: dataSpan(part), to };
      });
    }
    const spans = (rank: number) => this.#served(rank).map((part) => dataSpan(part));
    return exchange(
      others.flatMap((peer) => spans(this.rank).map((span) => ({ peer, span }))),
      others.flatMap((peer) => spans(peer).map((span) => ({ peer, span }))),
    );
  }

  #message(peer: number, owner: number): Message {
    return { peer, span: dataSpan(this.#parts[owner] as Part) };
  }

  /** What `rank`, of this machine, combines and spreads here: one's own part and those it stands for, where they touch as one. */
  #served(rank: number): Part[] {
    const owned = this.#owners().filter((owner) => this.deputy(owner, this.machine) === rank);
    const parts = owned.map((owner) => this.#parts[owner] as Part);
    const full = parts.filter(({ length }) => length > 0).sort((a, b) => a.start - b.start);
    const joined: Part[] = [];
    for (const part of full) {
      const last = joined.at(-1);
      if (last === undefined || last.start + last.length < part.start) joined.push(part);
      else joined.splice(-1, 1, { start: last.start, length: last.length + part.length });
    }
    return joined;
  }

  /** Owners on other machines that this rank stands for. */
  #foreign(): number[] {
    return this.#owners().filter(
      (owner) =>
        this.#machineOf(owner) !== this.machine && this.deputy(owner, this.machine) === this.rank,
    );
  }

  #owners(): readonly number[] {
    return this.#machines.flat();
  }

  #machineOf(rank: number): number {
    return this.#machines.findIndex((ranks) => ranks.includes(rank));
  }

  #newScratch(length: number): Span {
    const start = this.#scratch;
    this.#scratch += length;
    return scratchSpan(start, length);
  }
}
