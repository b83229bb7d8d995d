/** Ctrl-C as people mean it: once to stop well, twice to end at once. A terminal that is closed asks for a stop too. */
import { constants } from "node:os";
import { outlivesTerminal } from "../launch/index.ts";

/** npm passes a Ctrl-C on that the terminal has sent already: what comes as soon as this is the same one. */
const SAME_MS = 500;

/** All of them ask for a stop. */
export const STOP_SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

export interface StopOnSignals {
  readonly signal: AbortSignal;
  /** What a shell gives a process that the signal ended: 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP. */
  status(): number;
  end(): void;
}

/** What ends a process and what tells the time, injected for tests. */
export interface Surroundings {
  /** Milliseconds since any start. */
  readonly now: () => number;
  /** By the system, not by process.exit: the engine may be in the middle of a run on another thread. */
  readonly kill: (name: NodeJS.Signals) => void;
  /** Whether SIGHUP means nothing, as under `nohup`. */
  readonly outlivesTerminal: () => boolean;
}

const REAL: Surroundings = {
  now: () => performance.now(),
  kill: (name) => process.kill(process.pid, name),
  outlivesTerminal,
};

/** Aborts `signal` at the first SIGINT, SIGTERM or SIGHUP, and ends the process by the second. */
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
