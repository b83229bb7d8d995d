/** Waits that have an end. */

/** How long the leader may take to save its state when another worker has failed. */
export const SAVE_MS = 30_000;

/** Resolves when `what` has settled, or after this time. */
export async function atMost(milliseconds: number, what: Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, milliseconds);
  });
  await Promise.race([what, late]);
  clearTimeout(timer);
}
