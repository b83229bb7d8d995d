/** The options with which a rank joins a group of ranks on its own node. */
import type { LockstepError } from "../../errors.ts";
import type { GroupOptions } from "../transport.ts";
import type { WaitMode } from "./waits.ts";

export interface SharedMemoryOptions extends GroupOptions {
  /** The group's name, unique and the same on all ranks: at most 60 letters, digits, `-`, `_`. */
  readonly name: string;
  /** `block` (the default) is for a thread of its own; `poll` never blocks the event loop. */
  readonly wait?: WaitMode;
  /** The numbers of the ranks in errors, those in the run. Default: those in this group. */
  readonly names?: readonly number[];
  /** A stopped rank is lost after this time, a silent one after three times this. Default: 10 s. */
  readonly silenceMs?: number;
}

/** How a rank joins a group, which may be a part of another one. @internal */
export interface JoinOptions extends SharedMemoryOptions {
  /** Called again and again while a rank has not joined; throws when it cannot come any more. */
  readonly awaiting?: (peer: number) => void;
  /** Called once, when the group has failed, before any of its waits ends. */
  readonly failed?: (error: LockstepError) => void;
}
