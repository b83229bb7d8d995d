/**
 * Small numbers that every rank of a group has for itself, brought together: each writes at its own place of a buffer, and then all have
 * those of all, and sum them by themselves.
 */
import type { Layout, LayoutGroup } from "./layout.ts";
import { entryRef } from "./places.ts";
import type { CollectiveStage, ProgramBuilder, Run, RunStage, TensorRef } from "./program.ts";
import { spanRef } from "./spans.ts";
import { chain, treeGraph } from "./tree-graph.ts";

export interface TogetherOptions {
  readonly layout: Layout;
  /** The name of the group of ranks, how many they are, and this one's place. */
  readonly group: string;
  readonly ranks: number;
  readonly place: number;
}

export class Together {
  readonly layout: Layout;
  readonly #program: ProgramBuilder;
  readonly #options: TogetherOptions;

  constructor(program: ProgramBuilder, options: TogetherOptions) {
    this.layout = options.layout;
    this.#program = program;
    this.#options = options;
  }

  allocate(buffer: string): void {
    const { ranks } = this.#options;
    const bytes = ranks * this.layout.byteLength;
    this.#program.shared.add(this.#program.buffer(buffer, bytes));
  }

  /** Where this rank writes a value; undefined where it is not among them. */
  ref(name: string, buffer: string): TensorRef | undefined {
    const found = entryRef(this.layout, buffer, name);
    return found && this.#at(this.#options.place, found);
  }

  /** What a rank has written of a group of the layout. */
  of(place: number, group: LayoutGroup, buffer: string): TensorRef {
    return this.#at(place, spanRef({ group, start: 0, end: group.length }, buffer));
  }

  /** After it, this rank has what all have written. */
  gather(buffer: string, name: string): CollectiveStage[] {
    const { group, ranks } = this.#options;
    const { byteLength } = this.layout;
    if (byteLength === 0) return [];
    const counts = Array.from({ length: ranks }, () => byteLength);
    const call = { kind: "allGather" as const, counts, dtype: "uint8" as const };
    return [{ name, mode: "collective", group, call, data: { buffer, byteOffset: 0 } }];
  }

  /** Each rank finds the sums, one rank after the other, where it has written its own. */
  summed(buffer: string, name: string): (RunStage | CollectiveStage)[] {
    const { ranks, place } = this.#options;
    const places = Array.from({ length: ranks }, (_, index) => index);
    const runs = this.layout.groups.map((group): Run => {
      const type = { dtype: group.dtype, shape: [group.length] };
      const graph = treeGraph(this.#program, chain(ranks), { count: ranks, type, tiles: 1 });
      const inputs = places.map((at) => [`part.${at}.0`, this.of(at, group, buffer)] as const);
      const outputs = { "total.0": this.of(place, group, buffer) };
      return { graph, inputs: Object.fromEntries(inputs), outputs };
    });
    return [...this.gather(buffer, `${name} of all`), { name, runs, mode: "small" }];
  }

  #at(place: number, ref: TensorRef): TensorRef {
    return { ...ref, byteOffset: ref.byteOffset + place * this.layout.byteLength };
  }
}
