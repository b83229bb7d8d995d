/**
 * The parameters of a rank's stages, where the owners of tiles lie on several nodes. A parameter that
 * one rank of this node owns alone is read in place; of others, what neighbours own is copied, and
 * what ranks of other nodes own is sent by them, before each step.
 */
import { PARAMETERS, STAGE_UNIT } from "./buffers.ts";
import { gatheredRef, type Unit } from "./gathered.ts";
import { entryRef, type Layout } from "./layout.ts";
import { type Owned, type Ownership, ofOwner, ownedSpans } from "./ownership.ts";
import {
  exchanged,
  type Message,
  type ProgramBuilder,
  type Run,
  type SimpleStage,
  type TensorRef,
} from "./program.ts";
import { Room, roomBlocks } from "./room.ts";
import { copyRun } from "./runs.ts";
import { type Span, spanOf, spanRef } from "./spans.ts";

export interface StageParameterOptions {
  readonly parameters: Layout;
  readonly ownership: Ownership;
  /** Whether the ranks at two places of the ownership's group share a node. */
  readonly isNear: (one: number, other: number) => boolean;
  /** By place: the parameters of its stages, each in the order of the layout. */
  readonly wanted: (place: number) => readonly string[];
}

export interface StageParameters {
  ref(name: string): TensorRef | undefined;
  /** Brings parameters here, once all ranks have those of the step before. */
  readonly work: readonly SimpleStage[];
}

/** Parameters that are gathered as those of a unit. */
export function ofUnit(unit: Unit): StageParameters {
  const work = unit.work.filter((stage) => !("runs" in stage) || stage.runs.length > 0);
  return { ref: (of) => gatheredRef(unit, of), work };
}

export function stageParameters(
  program: ProgramBuilder,
  name: string,
  { parameters, ownership, isNear, wanted }: StageParameterOptions,
): StageParameters {
  const { place, ranks } = ownership;
  const ownedOf = (of: string) => ownedSpans(ownership, spanOf(parameters, of) as Span);
  const isInPlace = (at: number, owned: readonly Owned[]) =>
    owned.length === 1 && isNear(at, (owned[0] as Owned).owner);
  /** What a place has to bring together. */
  const broughtTo = (at: number) =>
    wanted(at).flatMap((of) => {
      const owned = ownedOf(of);
      return isInPlace(at, owned) ? [] : [{ of, owned }];
    });
  const inPlace = new Map(
    wanted(place).flatMap((of) => {
      const owned = ownedOf(of);
      const ref = entryRef(parameters, PARAMETERS, of) as TensorRef;
      if (!isInPlace(place, owned)) return [];
      return [[of, ofOwner(ownership, (owned[0] as Owned).owner, ref)] as const];
    }),
  );
  const own = broughtTo(place);
  const room = new Room(
    parameters,
    own.map(({ of }) => of),
  );
  if (room.byteLength > 0) program.buffer(STAGE_UNIT, room.byteLength, "host");
  program.shared.add(PARAMETERS);
  const parts = own.flatMap(({ owned }) => owned);
  const runs = parts
    .filter(({ owner }) => isNear(place, owner))
    .flatMap(({ owner, span }) =>
      roomBlocks(span).map((block): Run => {
        const from = ofOwner(ownership, owner, spanRef(block, PARAMETERS));
        return copyRun(program, from, room.placeOf(block, STAGE_UNIT));
      }),
    );
  const receives = parts
    .filter(({ owner }) => !isNear(place, owner))
    .map(({ owner, span }): Message => {
      const into = room.placeOf(span, STAGE_UNIT);
      return program.message(into, ranks[owner] as number, false);
    });
  const sends = ranks.flatMap((rank, at) =>
    isNear(place, at)
      ? []
      : broughtTo(at)
          .flatMap(({ owned }) => owned)
          .filter(({ owner }) => owner === place)
          .map(({ span }) => program.message(spanRef(span, PARAMETERS), rank, true)),
  );
  const copied: SimpleStage[] = runs.length === 0 ? [] : [{ name, runs, mode: "parallel" }];
  return {
    ref: (of) => inPlace.get(of) ?? room.ref(of, STAGE_UNIT),
    work: [...exchanged(`${name}, over nodes`, [...receives, ...sends]), ...copied],
  };
}
