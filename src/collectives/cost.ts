/** What a schedule would take, from a few measured numbers; and the choice that follows. Pure. */
import { LockstepError } from "../errors.ts";
import { bytesPerElement } from "../tensor/index.ts";
import {
  type Algorithm,
  type Collective,
  type Member,
  machinesOf,
  schedulesFor,
} from "./request.ts";
import type { Message, Schedule, Span, Step } from "./schedule.ts";

export interface LinkCosts {
  /** A message without content. */
  readonly messageUs: number;
  /** Each byte that a rank sends or receives, while its neighbours do the same. */
  readonly wireUsPerByte: number;
  readonly barrierUs: number;
}

/** Microseconds, and microseconds a byte. */
export interface CostModel {
  /** Between ranks of one machine, and a barrier of those. */
  readonly within: LinkCosts;
  /** Between machines, and a barrier of all ranks. */
  readonly between: LinkCosts;
  /** One call of the engine. */
  readonly runUs: number;
  /** Each byte of each input of a reduction. */
  readonly reduceUsPerByte: number;
  readonly copyUsPerByte: number;
}

/** Before anything was measured: a fast machine, a local network. */
export const DEFAULT_COSTS: CostModel = {
  within: { messageUs: 10, wireUsPerByte: 1 / 4000, barrierUs: 3 },
  between: { messageUs: 60, wireUsPerByte: 1 / 2000, barrierUs: 120 },
  runUs: 4,
  reduceUsPerByte: 1 / 20_000,
  copyUsPerByte: 1 / 10_000,
};

/** How much dearer a byte is that a peer has just written or will read: it is in the cache of another core. */
const PEER_MEMORY = 2;

export interface Choice {
  readonly schedule: Schedule;
  /** Estimated microseconds by algorithm. */
  readonly estimates: Readonly<Record<string, number>>;
}

/**
 * Estimated microseconds. A round costs one message and the bytes of the busier direction, within the machine and
 * between machines; a schedule is that of one rank, so all ranks must ask for that of the same one.
 */
export function estimate(
  schedule: Schedule,
  bytesPerUnit: number,
  model: CostModel,
  member: Member,
): number {
  const machines = machinesOf(member);
  const mates = new Set(machines.find((ranks) => ranks.includes(member.rank)));
  const isNear = ({ peer }: Message) => mates.has(peer);
  const isFar = ({ peer }: Message) => !mates.has(peer);
  const roundOf = ({ sends, receives }: Round, link: LinkCosts) => {
    const messages = Math.max(sends.length, receives.length);
    if (messages === 0) return 0;
    const bytes = Math.max(elements(sends), elements(receives)) * bytesPerUnit;
    return link.messageUs * (0.5 + 0.5 * messages) + bytes * link.wireUsPerByte;
  };
  const bytesOf = (spans: readonly Span[]) => {
    const isOwn = ({ rank = member.rank }: Span) => rank === member.rank;
    return spans.reduce(
      (sum, span) => sum + span.length * bytesPerUnit * (isOwn(span) ? 1 : PEER_MEMORY),
      0,
    );
  };
  const costOf = (step: Step): number => {
    switch (step.do) {
      case "barrier": {
        const isLocal = step.within === "machine" || machines.length === 1;
        return (isLocal ? model.within : model.between).barrierUs;
      }
      case "exchange":
        return (
          roundOf(messagesOf(step, isNear), model.within) +
          roundOf(messagesOf(step, isFar), model.between)
        );
      case "copy":
        return bytesOf(step.to) * model.copyUsPerByte;
      case "reduce": {
        const copies = bytesOf(step.outputs.slice(1)) * model.copyUsPerByte;
        return model.runUs + bytesOf(step.inputs) * model.reduceUsPerByte + copies;
      }
    }
  };
  return schedule.steps.reduce((sum, step) => sum + costOf(step), 0);
}

type Round = Pick<Extract<Step, { do: "exchange" }>, "sends" | "receives">;

function messagesOf({ sends, receives }: Round, isMeant: (message: Message) => boolean): Round {
  return { sends: sends.filter(isMeant), receives: receives.filter(isMeant) };
}

function elements(messages: readonly Message[]): number {
  return messages.reduce((sum, { span }) => sum + span.length, 0);
}

/** The fastest by estimate, or the one asked for. All ranks come to the same choice from the same model. */
export function chooseSchedule(
  collective: Collective,
  member: Member,
  model: CostModel,
  options: {
    readonly algorithm?: Algorithm;
    readonly canonical?: boolean;
    /** Whether it runs once only: then none is chosen that needs memory of its own that peers see. */
    readonly once?: boolean;
  } = {},
): Choice {
  const { algorithm, canonical = false, once = false } = options;
  const mine = schedulesFor(collective, member, canonical);
  const unit = bytesPerElement(collective.dtype);
  const estimates: Record<string, number> = {};
  // The same for all: judged by the first rank and the last, the ones that small parts and trees load most.
  for (const rank of [0, member.size - 1]) {
    const judged = { ...member, rank };
    const even = withEvenCounts(collective, member.size);
    for (const schedule of schedulesFor(even, judged, canonical)) {
      const known = estimates[schedule.algorithm] ?? 0;
      estimates[schedule.algorithm] = Math.max(known, estimate(schedule, unit, model, judged));
    }
  }
  const eligible = mine.filter(({ staging = 0 }) => !once || staging === 0);
  const best = eligible.reduce((a, b) =>
    (estimates[b.algorithm] ?? 0) < (estimates[a.algorithm] ?? 0) ? b : a,
  );
  const wanted = algorithm === undefined ? best : mine.find((s) => s.algorithm === algorithm);
  if (wanted !== undefined) return { schedule: wanted, estimates };
  const known = mine.map((schedule) => schedule.algorithm).join(", ");
  throw new LockstepError(
    "INVALID_OPTION",
    `There is no algorithm "${algorithm}" for ${collective.kind} here.`,
    { hint: `There is: ${known}.` },
  );
}

/**
 * What is judged: counts of an all-to-all are each rank's own, so even ones stand for them; and parts that are empty on
 * the ranks looked at would hide rounds that others take.
 */
function withEvenCounts(collective: Collective, size: number): Collective {
  if (collective.kind === "allToAll") {
    const even = collective.sendCounts.map(() => 1024);
    return { ...collective, sendCounts: even, receiveCounts: even };
  }
  if ("counts" in collective && collective.counts !== undefined) {
    const { counts: _, ...even } = collective;
    return withEvenCounts(even, size);
  }
  const least = collective.count === 0 ? 0 : 16 * size;
  return { ...collective, count: Math.max(least, collective.count) };
}

/** One line a number, for people. */
export function formatCosts(model: CostModel): string {
  const rate = (usPerByte: number) => `${(1 / usPerByte / 1000).toFixed(2)} GB/s`;
  const link = ({ messageUs, wireUsPerByte, barrierUs }: LinkCosts) =>
    `message ${messageUs.toFixed(1)} µs, ${rate(wireUsPerByte)}, barrier ${barrierUs.toFixed(1)} µs`;
  return [
    `within a machine: ${link(model.within)}`,
    `between machines: ${link(model.between)}`,
    `reduction ${model.runUs.toFixed(1)} µs, ${rate(model.reduceUsPerByte)} read`,
    `copy ${rate(model.copyUsPerByte)}`,
  ].join("; ");
}
