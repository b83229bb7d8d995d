/**
 * Handles Ctrl-C: the first asks for a clean stop, the second ends the process at once. Closing the
 * terminal asks for a stop too.
 */
import { constants } from "node:os";
import { outlivesTerminal } from "../launch/index.ts";

/**
 * npm passes on a Ctrl-C that the terminal has already sent; a second signal within this time is
 * taken for the same one.
 */
const SAME_MS = 500;

/** The signals that ask for a stop. */
export const STOP_SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

export interface StopOnSignals {
  readonly signal: AbortSignal;
  /**
   * The exit status that a shell gives a process ended by the signal: 130 after Ctrl-C, 143 after
   * SIGTERM, 129 after SIGHUP.
   */
  status(): number;
  end(): void;
}

/** What the handler needs of its surroundings, injected for tests. */
export interface Surroundings {
  /** Milliseconds since any fixed moment. */
  readonly now: () => number;
  /**
   * Ends the process by a signal, not by `process.exit`: the engine may be computing on another
   * thread.
   */
  readonly kill: (name: NodeJS.Signals) => void;
  /** Whether SIGHUP is to be ignored, as under `nohup`. */
  readonly outlivesTerminal: () => boolean;
}

const REAL: Surroundings = {
  now: () => performance.now(),
  kill: (name) => process.kill(process.pid, name),
  outlivesTerminal,
};

/** Aborts `signal` at the first SIGINT, SIGTERM or SIGHUP; the second ends the process. */
export function stopOnSignals(onAsked: () => void, surroundings = REAL): StopOnSignals {
  const { now, kill } = surroundings;
  const controller = new AbortController();
  const ignoresHangUp = surroundings.outlivesTerminal();
  let asked: { readonly name: NodeJS.Signals; readonly atMs: number } | undefined;
  const end = () => {
    for (const name of STOP_SIGNALS) process.off(name, ask);
  };
  const ask = (name: NodeJS.Signals) => {
    if (name === "SIGHUP" && ignoresHangUp) return;
    if (asked === undefined) {
      asked = { name, atMs: now() };
      onAsked();
      controller.abort(new Error("A stop was asked for."));
    } else if (now() - asked.atMs >= SAME_MS) {
      end();
      kill(name);
    }
  };
  for (const name of STOP_SIGNALS) process.on(name, ask);
  return {
    signal: controller.signal,
    status: () => 128 + constants.signals[asked?.name ?? "SIGINT"],
    end,
  };
}
