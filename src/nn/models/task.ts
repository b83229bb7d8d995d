/** What classifiers and regressions share: the target, the loss and the accuracy. */
import { cast, crossEntropy, equal, mse, reduceMean, reshape } from "../../functional/index.ts";
import type { Value } from "../../graph/index.ts";
import type { ModelOutputs } from "../define.ts";
import type { Scope } from "../scope.ts";

/**
 * Batch field `label`, int32 (batch). Outputs: `loss` (cross-entropy in nats), `logits` (batch,
 * classes), `accuracy`.
 */
export function classify(m: Scope, logits: Value): ModelOutputs {
  const label = m.input("label", [m.batch], "int32");
  return m.child("objective").within(() => {
    const loss = crossEntropy(logits, label);
    return { loss, logits, accuracy: accuracy(logits, label) };
  });
}

/** The fraction of rows of `logits` (rows, classes) whose largest element is at the label. */
export function accuracy(logits: Value, label: Value): Value {
  const best = logits.builder.one("ArgMax", [logits], { axis: -1, keepdims: 0 });
  const right = equal(cast(best, label.dtype), label);
  return reduceMean(cast(right, logits.dtype), { keepdims: false });
}

/**
 * Batch field `y` (batch, outputs). Outputs: `loss` (mean squared error), `prediction` (batch,
 * outputs).
 */
export function regress(m: Scope, prediction: Value): ModelOutputs {
  const y = m.input("y", prediction.shape);
  return m.child("objective").within(() => ({ loss: mse(prediction, y), prediction }));
}

/** Merges all dims but the first. */
export function flatten(x: Value): Value {
  const [batch = 1, ...rest] = x.shape;
  return reshape(x, [batch, rest.reduce((a, b) => a * b, 1)]);
}
