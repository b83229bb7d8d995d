/** What the members of a generation are told of it. */
import type { Action, Generation } from "../membership/index.ts";
import type { Formed } from "../protocol/index.ts";
import type { WorkerHandle } from "./handle.ts";

/**
 * @param workers by their numbers
 * @param hasBegun whether the run has begun, in an earlier generation
 */
export function tellFormed(
  { number: generation, members }: Generation,
  workers: ReadonlyMap<number, WorkerHandle>,
  hasBegun: boolean,
): void {
  const nodes = [...new Set(members.map(({ node }) => node))];
  const all: Formed["members"] = members.map(({ worker, node }) => {
    const address = workers.get(worker)?.address;
    return { node: nodes.indexOf(node), ...(address === undefined ? {} : { address }) };
  });
  for (const [rank, { worker }] of members.entries()) {
    workers.get(worker)?.tell({ kind: "form", generation, rank, members: all, hasBegun });
  }
}

type Regroup = Pick<
  Extract<Action, { readonly kind: "regroup" }>,
  "generation" | "workers" | "when"
>;

export function tellRegroup(
  { generation, workers: asked, when }: Regroup,
  workers: ReadonlyMap<number, WorkerHandle>,
): void {
  for (const id of asked) workers.get(id)?.tell({ kind: "regroup", generation, when });
}
