/**
 * A pass in pieces, as tasks that run by readiness: what a piece needs is gathered before it, while
 * the piece before it is computed, and what it makes is summed behind it.
 */
import { addTask, COMPUTE, type Task } from "./program.ts";

/** The lane of copies. */
export const GATHER = "gather";
/** The lane of sums over ranks. */
export const REDUCE = "reduce";

/** What is done before or behind a piece, in a buffer that pieces use in turns. */
interface BesidePiece extends Pick<Task, "name" | "work"> {
  readonly buffer?: string;
}

export interface PieceWork extends Pick<Task, "name" | "work"> {
  readonly gather?: BesidePiece | undefined;
  readonly sums?: readonly BesidePiece[];
}

/** @param lane of what is gathered */
export function pieceTasks(pieces: readonly PieceWork[], lane = GATHER): Task[] {
  const tasks: Task[] = [];
  /** The last task that uses each buffer. */
  const used = new Map<string, number>();
  const before = (buffer = "") => used.get(buffer);
  const gatherFor = (piece: PieceWork | undefined) => {
    if (piece?.gather === undefined) return undefined;
    const { name, work, buffer } = piece.gather;
    return addTask(tasks, { name, lane, work }, [before(buffer)]);
  };
  let computed: number | undefined;
  let gathered = gatherFor(pieces[0]);
  for (const [index, { name, work, gather, sums = [] }] of pieces.entries()) {
    // Parameters of the next piece come before the sums of this one.
    const next = gatherFor(pieces[index + 1]);
    const freed = sums.map(({ buffer }) => before(buffer));
    computed = addTask(tasks, { name, lane: COMPUTE, work }, [computed, gathered, ...freed]);
    gathered = next;
    if (gather?.buffer !== undefined) used.set(gather.buffer, computed);
    for (const { name: sum, work: own, buffer } of sums) {
      const last = addTask(tasks, { name: sum, lane: REDUCE, work: own }, [computed]);
      if (buffer !== undefined) used.set(buffer, last);
    }
  }
  return tasks;
}
