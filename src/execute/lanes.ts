/** Runs a bounded number of asynchronous calls at the same time. */

/**
 * Calls `body` for every item, at most `lanes` at a time. After a failure no further item starts,
 * and the promise rejects when none is running.
 */
export async function inLanes<T>(
  items: readonly T[],
  lanes: number,
  body: (item: T) => Promise<void>,
): Promise<void> {
  let next = 0;
  const lane = async (): Promise<void> => {
    while (next < items.length) {
      const item = items[next++] as T;
      try {
        await body(item);
      } catch (error) {
        next = items.length;
        throw error;
      }
    }
  };
  const count = Math.min(lanes, items.length);
  const results = await Promise.allSettled(Array.from({ length: count }, lane));
  const failure = results.find(({ status }) => status === "rejected");
  if (failure?.status === "rejected") throw failure.reason;
}
