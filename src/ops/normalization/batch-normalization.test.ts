import { test } from "node:test";
import fc from "fast-check";
import { checkGradient } from "../../../test/support/gradient-check.ts";
import { exp } from "../../functional/index.ts";
import type { Value } from "../../graph/index.ts";

const sizes = fc.array(fc.integer({ min: 1, max: 3 }), { maxLength: 2 });

for (const training of [false, true]) {
  test(`BatchNormalization, ${training ? "training" : "inference"}: gradient over drawn shapes`, () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 2, max: 3 }),
        fc.integer({ min: 1, max: 3 }),
        sizes,
        (n, c, rest) => {
          checkGradient({
            inputs: {
              x: [n, c, ...rest],
              scale: [c],
              bias: [c],
              ...(training ? {} : { mean: [c], logVariance: [c] }),
            },
            build: ({ x, scale, bias, mean, logVariance }, builder) => {
              const ones = builder.constant({
                dtype: "float64",
                shape: [c],
                bytes: new Uint8Array(new Float64Array(c).fill(1).buffer),
              });
              const variance = logVariance === undefined ? ones : exp(logVariance);
              const inputs = [x, scale, bias, mean ?? ones, variance];
              const attributes = { training_mode: training, epsilon: 0.1 };
              const outputs = training ? 3 : 1;
              return builder.emit("BatchNormalization", inputs, attributes, {
                outputs,
              })[0] as Value;
            },
            range: [-2, 2],
            second: true,
          });
        },
      ),
      { numRuns: 15, seed: 6, includeErrorInReport: true },
    );
  });
}
