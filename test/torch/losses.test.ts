import {
  binaryCrossEntropyWithLogits,
  crossEntropy,
  huber,
  klDivergence,
  l1,
  mse,
} from "../../src/functional/index.ts";
import type { AttributeInputs, Value } from "../../src/graph/index.ts";
import { type CaseBuilder, checkFamily } from "./support.ts";

/** A fixture's attributes are the options of the loss. */
function loss(build: (x: Value, target: Value, options: AttributeInputs) => Value): CaseBuilder {
  return ([x, target], attributes) => build(x as Value, target as Value, attributes);
}

checkFamily("losses", {
  crossEntropy: loss(crossEntropy),
  mse: loss(mse),
  l1: loss(l1),
  huber: loss(huber),
  bce: loss(binaryCrossEntropyWithLogits),
  kl: loss(klDivergence),
});
