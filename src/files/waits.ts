/**
 * Tells whoever watches which operations on files are under way, so that it can be said of a process
 * which file it waits for. The channels are those of Node.js; nothing is kept here.
 */
import { channel } from "node:diagnostics_channel";

export interface FileWait {
  readonly path: string;
  readonly doing: "reading" | "writing";
}

const begun = channel("lockstep.file.begun");
const ended = channel("lockstep.file.ended");

/** Does one operation on a file, of which watchers are told. */
export async function watched<Result>(
  path: string,
  doing: FileWait["doing"],
  operation: () => Promise<Result>,
): Promise<Result> {
  if (!begun.hasSubscribers) return operation();
  const wait: FileWait = { path, doing };
  begun.publish(wait);
  try {
    return await operation();
  } finally {
    ended.publish(wait);
  }
}

/** The operations of this process on files. */
export interface FileWatch {
  /** How many have begun or ended since the watch began. */
  readonly changes: number;
  /** The one under way that began first. */
  oldest(): FileWait | undefined;
  close(): void;
}

export function watchFiles(): FileWatch {
  const underWay = new Set<FileWait>();
  let changes = 0;
  const onBegun = (wait: unknown) => {
    changes += 1;
    underWay.add(wait as FileWait);
  };
  const onEnded = (wait: unknown) => {
    changes += 1;
    underWay.delete(wait as FileWait);
  };
  begun.subscribe(onBegun);
  ended.subscribe(onEnded);
  return {
    get changes() {
      return changes;
    },
    oldest: () => underWay.values().next().value,
    close: () => {
      begun.unsubscribe(onBegun);
      ended.unsubscribe(onEnded);
    },
  };
}
