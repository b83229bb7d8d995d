/**
 * Runs a schedule: messages go to the transport, and copies are made in place. It does no
 * arithmetic.
 */
import { type Transport, type Waiting, waitForAll } from "../transport/index.ts";
import type { Message, Span, Step } from "./schedule.ts";

type Action = () => Waiting;

/**
 * Resolves all places once, so that the result can be called many times.
 * @param bytesOf returns the memory of a span
 */
export function prepareSteps(
  steps: readonly Step[],
  transport: Transport,
  bytesOf: (span: Span) => Uint8Array,
): () => Promise<void> {
  const actions = steps.map((step): Action => {
    switch (step.do) {
      case "barrier":
        return () => transport.barrier({ within: "node" });
      case "copy": {
        const from = bytesOf(step.from);
        const to = bytesOf(step.to);
        return () => {
          to.set(from);
          return undefined;
        };
      }
      case "exchange": {
        const placed = ({ peer, span }: Message) => ({ peer, bytes: bytesOf(span) });
        const starts = [
          ...step.receives.map(placed).map(
            ({ peer, bytes }) =>
              () =>
                transport.receive(peer, bytes),
          ),
          ...step.sends.map(placed).map(
            ({ peer, bytes }) =>
              () =>
                transport.send(peer, bytes),
          ),
        ];
        return () => waitForAll(starts);
      }
    }
  });
  return async () => {
    for (const action of actions) {
      const waiting = action();
      if (waiting !== undefined) await waiting;
    }
  };
}
