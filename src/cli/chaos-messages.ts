/**
 * What `lockstep chaos` and a launcher that it kills say to each other, over the channel that
 * Node.js opens between them. Both are the same program on the same machine.
 */
import type { LocalProcess, LocalWorker } from "../launch/index.ts";
import type { History, RunEvent } from "../telemetry/index.ts";
import type { TrainFlags } from "./target.ts";

/** The name of the command that such a launcher is (`chaos-launcher.ts`). */
export const LAUNCHER = "chaos-launcher";

/** What can be done to a worker: a method of its process, and what that is given. */
export type Deed = {
  [Name in keyof LocalProcess]: {
    readonly name: Name;
    readonly given: Parameters<LocalProcess[Name]>;
  };
}[keyof LocalProcess];

export type ToLauncher =
  | {
      readonly kind: "train";
      readonly file: string;
      readonly flags: TrainFlags;
      /** What is shown after a stop. */
      readonly resumeCommand: string;
    }
  | { readonly kind: "do"; readonly worker: number; readonly deed: Deed }
  | { readonly kind: "reopen"; readonly place: string };

export type FromLauncher =
  /** It has the run's folder, and takes signals. */
  | { readonly kind: "ready"; readonly folder: string }
  | { readonly kind: "event"; readonly event: RunEvent }
  /** It has done to a worker what it was told. */
  | { readonly kind: "done" }
  /** The workers have changed. */
  | {
      readonly kind: "workers";
      readonly list: readonly LocalWorker[];
      readonly history: History;
    };
