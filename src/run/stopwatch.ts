/** How fast a run is, and how long it will take. */
import { tokensPerSample } from "./figures.ts";
import type { Session } from "./session.ts";

interface Speed {
  readonly samplesPerSecond: number;
  readonly tokensPerSecond: number | undefined;
  readonly secondsLeft: number;
}

/**
 * Measures the time of steps alone. The time left also includes validation and checkpoints so far.
 */
export function stopwatch({ run, options, model, data, trainer }: Session): {
  (done: number): Speed;
  restart(): void;
} {
  const { now } = options;
  const tokens = tokensPerSample(model, data);
  const [firstStep, beganMs] = [trainer.steps, now()];
  let stepMs = beganMs;
  const measure = (done: number): Speed => {
    const at = now();
    const samplesPerSecond = (1000 * run.batch) / Math.max(at - stepMs, 1e-3);
    return {
      samplesPerSecond,
      tokensPerSecond: tokens && samplesPerSecond * tokens,
      secondsLeft: (((at - beganMs) / (done - firstStep)) * (run.steps - done)) / 1000,
    };
  };
  const restart = () => {
    stepMs = now();
  };
  return Object.assign(measure, { restart });
}
