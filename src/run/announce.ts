/** Reports the start of a run: an event with its facts, and notices of what has changed. */
import type { NetworkFacts } from "../telemetry/index.ts";
import type { Ranks, Trainer } from "../train/index.ts";
import { engineName, parameterCount } from "./figures.ts";
import { notesOf } from "./notes.ts";
import type { Session } from "./session.ts";

export function announce(session: Session): void {
  const { run, options, model, data, trainer, ranks, before } = session;
  const { engine, folder, onEvent, now } = options;
  const { ranges } = trainer.planned.sharing;
  onEvent({
    type: "started",
    name: run.name,
    out: folder.path,
    model: model.name,
    parameters: parameterCount(model),
    ...(model.trains === undefined ? {} : { trains: model.trains }),
    data: data.summary,
    engine: engineName(engine),
    workers: ranks?.group.size ?? 1,
    threads: engine.threads,
    ...sharingTold(trainer, ranks),
    shares: ranges.map(({ count }) => count),
    ...(ranks === undefined ? {} : networkOf(ranks, trainer)),
    steps: run.steps,
    batch: run.batch,
    firstStep: before.step,
    seconds: now() / 1000,
    notes: notesOf(session),
  });
  const { step, changes, isOld, notices } = before;
  for (const text of notices) onEvent({ type: "notice", text });
  if (changes.length > 0) onEvent({ type: "changed", step, changes });
  if (!isOld) return;
  onEvent({
    type: "notice",
    text:
      "The checkpoint was written by an older version: it does not show whether it is whole, and whether data, " +
      "model and options are still those that the run was started with.",
  });
}

/** How workers share a step; nothing for one worker that computes a step as it is. */
function sharingTold(
  { planned: { parallel } }: Trainer,
  ranks?: Ranks,
): { readonly sharing?: string } {
  const isPlain = ranks === undefined && parallel.strategies.length === 0;
  return isPlain ? {} : { sharing: parallel.reason };
}

/** Nothing for a run on one node. */
function networkOf({ group }: Ranks, { plan }: Trainer): { readonly network?: NetworkFacts } {
  const machines = group.transport.nodes.length;
  if (machines === 1) return {};
  const { messageUs, wireUsPerByte } = group.costs;
  const { buckets } = plan;
  return { network: { machines, messageUs, bytesPerSecond: 1e6 / wireUsPerByte, buckets } };
}
