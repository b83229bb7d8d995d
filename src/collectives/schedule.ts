/**
 * The timetable of one rank in one collective: data made by pure functions, obeyed by the runner. It knows no
 * transport and moves nothing.
 */

/** A piece of memory, in elements. */
export interface Span {
  /**
   * `data`: what the collective works on; `into`: where an all-to-all puts its result; `scratch`: the schedule's own;
   * `staging`: the schedule's own that peers see.
   */
  readonly space: "data" | "into" | "scratch" | "staging";
  /** The rank whose memory it is; one's own unless told. Others' only where the transport shares memory. */
  readonly rank?: number;
  readonly start: number;
  readonly length: number;
}

export interface Message {
  readonly peer: number;
  readonly span: Span;
}

export type Step =
  /** All at once; over when all are. */
  | {
      readonly do: "exchange";
      readonly sends: readonly Message[];
      readonly receives: readonly Message[];
    }
  /** The inputs combined, written to each output. `last`: the means divide here. */
  | {
      readonly do: "reduce";
      readonly inputs: readonly Span[];
      readonly outputs: readonly Span[];
      readonly last: boolean;
      /** Contributions of all ranks, to be combined in the order that the request asks for. */
      readonly canonical: boolean;
    }
  | { readonly do: "copy"; readonly from: Span; readonly to: readonly Span[] }
  /** Of all ranks, unless told only those of this machine. */
  | { readonly do: "barrier"; readonly within?: "machine" };

export type StepOf<K extends Step["do"]> = Extract<Step, { do: K }>;

export interface Schedule {
  readonly algorithm: string;
  readonly steps: readonly Step[];
  /** Elements of scratch memory. */
  readonly scratch: number;
  /** Elements of staging memory; runs take turns with two pieces of it. None unless told. */
  readonly staging?: number;
}

export interface Part {
  readonly start: number;
  readonly length: number;
}

/** `count` elements cut into `size` parts that differ by at most one unit of `align`; late ones may be empty. */
export function evenParts(count: number, size: number, align = 16): Part[] {
  const units = Math.ceil(count / align);
  return Array.from({ length: size }, (_, rank) => {
    const start = Math.min(count, Math.floor((units * rank) / size) * align);
    const end = Math.min(count, Math.floor((units * (rank + 1)) / size) * align);
    return { start, length: end - start };
  });
}

/** Parts of the given lengths, one after the other. */
export function partsOf(counts: readonly number[]): Part[] {
  let start = 0;
  return counts.map((length) => {
    const part = { start, length };
    start += length;
    return part;
  });
}

export function dataSpan({ start, length }: Part, rank?: number): Span {
  return rank === undefined
    ? { space: "data", start, length }
    : { space: "data", rank, start, length };
}

export function scratchSpan(start: number, length: number): Span {
  return { space: "scratch", start, length };
}

/** Messages without content are left out on both sides. */
export function exchange(sends: readonly Message[], receives: readonly Message[]): Step[] {
  const full = (list: readonly Message[]) => list.filter(({ span }) => span.length > 0);
  const [out, back] = [full(sends), full(receives)];
  return out.length + back.length === 0 ? [] : [{ do: "exchange", sends: out, receives: back }];
}

export function reduce(inputs: readonly Span[], outputs: readonly Span[], last: boolean): Step[] {
  return combine(inputs, outputs, last, false);
}

/** All ranks' contributions at once: the result does not depend on the algorithm. */
export function reduceAll(inputs: readonly Span[], outputs: readonly Span[]): Step[] {
  return combine(inputs, outputs, true, true);
}

function combine(
  inputs: readonly Span[],
  outputs: readonly Span[],
  last: boolean,
  canonical: boolean,
): Step[] {
  if (outputs[0] === undefined || outputs[0].length === 0) return [];
  return [{ do: "reduce", inputs, outputs, last, canonical }];
}

/** The same steps where rank r of them is called `names[r]`. */
export function mapRanks(steps: readonly Step[], names: readonly number[]): Step[] {
  const messages = (list: readonly Message[]) =>
    list.map(({ peer, span }) => ({ peer: names[peer] as number, span }));
  return steps.map((step) =>
    step.do === "exchange"
      ? { ...step, sends: messages(step.sends), receives: messages(step.receives) }
      : step,
  );
}

/** Whether what arrives is what is reduced, and nothing that is still being sent is written. */
export function mayOverlap(
  { sends, receives }: StepOf<"exchange">,
  reduce: StepOf<"reduce">,
): boolean {
  const { inputs, outputs } = reduce;
  const isInput = ({ span }: { span: Span }) => inputs.some((input) => sameSpan(input, span));
  const isSafe = ({ span }: { span: Span }) => outputs.every((output) => !overlap(output, span));
  return receives.length > 0 && receives.every(isInput) && sends.every(isSafe);
}

function sameSpan(a: Span, b: Span): boolean {
  return overlap(a, b) && a.start === b.start && a.length === b.length;
}

function overlap(a: Span, b: Span): boolean {
  if (a.space !== b.space || a.rank !== b.rank) return false;
  return a.start < b.start + b.length && b.start < a.start + a.length;
}

/** What a rank sends in a schedule, in elements. */
export function elementsSent({ steps }: Schedule): number {
  return steps.reduce(
    (sum, step) =>
      step.do === "exchange"
        ? step.sends.reduce((total, { span }) => total + span.length, sum)
        : sum,
    0,
  );
}
