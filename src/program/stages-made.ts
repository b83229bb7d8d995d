/**
 * What the ranks of a pipeline have made of each other's tiles, and what all of them need of each
 * stage: read in place within a node, and sent over nodes.
 */
import type { StepGraph } from "../plan/index.ts";
import { stateBuffer } from "./buffers.ts";
import type { LayoutGroup } from "./layout.ts";
import { type Ownership, ownSpans } from "./ownership.ts";
import type { Places } from "./places.ts";
import {
  barrier,
  type CollectiveStage,
  exchanged,
  type Message,
  type MessageStage,
  type ProgramBuilder,
  type Run,
  type RunStage,
  type TensorRef,
} from "./program.ts";
import { copyRun } from "./runs.ts";
import { entrySpan, spanRef, wholeSpan } from "./spans.ts";
import { intersection, isSummed } from "./stage-tiles.ts";

export interface MadeOptions {
  readonly step: StepGraph;
  readonly groups: readonly LayoutGroup[];
  /** Which tiles of gradients the ranks of the pipeline sum. */
  readonly stages: Ownership;
  /**
   * By gradient, other sum or state: the place of the rank that has it.
   * @param isOwned whether it lies in tiles, each with an owner
   */
  readonly placeOf: (made: string, isOwned: boolean) => number | undefined;
  readonly isNear: (one: number, other: number) => boolean;
  /** The buffers that have the sums of the pipeline. */
  readonly sums: readonly string[];
  readonly places: Pick<Places, "ref">;
  readonly from: number;
  /** Whether sums are added to those of other ranks afterwards. */
  readonly isSummedAgain: boolean;
}

export function stagesMade(
  program: ProgramBuilder,
  options: MadeOptions,
): (RunStage | CollectiveStage | MessageStage)[] {
  const { step, groups, stages, placeOf, isNear, sums, places, from } = options;
  const { place, ranks, group: name } = stages;
  const states = [...step.values.keys()].filter(
    (value) => value.startsWith("next state:") && placeOf(value, true) !== undefined,
  );
  if (states.length > 0) for (const side of [0, 1]) program.shared.add(stateBuffer(side));
  /** What a place needs of what others have made, and who has made it. */
  const neededBy = (at: number): { readonly maker: number; readonly ref: TensorRef }[] => {
    const makerOf = (made: string, isOwned: boolean) => placeOf(made, isOwned) ?? at;
    const refs = groups.flatMap((group) => {
      const isOwned = !isSummed(group);
      const spans = isOwned ? ownSpans({ ...stages, place: at }, group) : [wholeSpan(group)];
      return group.entries
        .map((entry) => ({ entry, maker: makerOf(entry.name, isOwned) }))
        .filter(({ maker }) => maker !== at)
        .flatMap(({ entry, maker }) =>
          spans
            .map((span) => intersection(span, entrySpan(group, entry)))
            .filter(({ start, end }) => start < end)
            .flatMap((span) => sums.map((sum) => ({ maker, ref: spanRef(span, sum) }))),
        );
    });
    const values = states.map((value) => {
      const ref = places.ref(value, { microBatch: 0, lane: 0, from });
      return { maker: makerOf(value, true), ref };
    });
    return [...refs, ...values.filter(({ maker }) => maker !== at)];
  };
  const needed = neededBy(place);
  const runs = needed
    .filter(({ maker }) => isNear(place, maker))
    .map(({ maker, ref }): Run => copyRun(program, { ...ref, rank: ranks[maker] as number }, ref));
  const receives = needed
    .filter(({ maker }) => !isNear(place, maker))
    .map(({ maker, ref }) => program.message(ref, ranks[maker] as number, false));
  const sends = ranks.flatMap((rank, at): Message[] =>
    isNear(place, at)
      ? []
      : neededBy(at)
          .filter(({ maker }) => maker === place)
          .map(({ ref }) => program.message(ref, rank, true)),
  );
  const what = "what other stages have made";
  // Sums over replicas, and over parts of the same samples, write where others have read.
  const isRead = options.isSummedAgain || states.length > 0;
  return [
    { name: what, runs, mode: "small" },
    ...exchanged(`${what}, over nodes`, [...receives, ...sends]),
    ...(isRead ? [barrier("what stages have made is read", name)] : []),
  ];
}
