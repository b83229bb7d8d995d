/** What a rank says to join a group of ranks that are on its own node. */
import type { GroupOptions } from "../transport.ts";
import type { WaitMode } from "./waits.ts";

export interface SharedMemoryOptions extends GroupOptions {
  /** A name for the group, the same on all ranks and used by no other: letters, digits, `-` and `_`, at most 60. */
  readonly name: string;
  /** `block` (the default) is for a thread that does nothing else; `poll` never blocks the event loop. */
  readonly wait?: WaitMode;
  /** What errors call the ranks: their numbers in the run. Default: their numbers in this group. */
  readonly names?: readonly number[];
  /** A rank whose process is stopped for so long is lost, and one that gives no sign of life for three times as long. Default: 10 s. */
  readonly silenceMs?: number;
}
