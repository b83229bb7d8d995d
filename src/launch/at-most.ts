/** Waits that have an end. */

/** How long the leader may take to save its state when another worker has failed. */
export const SAVE_MS = 30_000;

/** How long processes that were killed may take to end; one that waits for a disk may never do. */
export const END_MS = 20_000;

/** Resolves when `what` has settled, or after this time, with "late". Rejects as `what` does. */
export async function atMost(
  milliseconds: number,
  what: Promise<unknown>,
): Promise<"late" | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<"late">((resolve) => {
    timer = setTimeout(() => resolve("late"), milliseconds);
  });
  try {
    return await Promise.race([what.then(() => undefined), late]);
  } finally {
    clearTimeout(timer);
  }
}
