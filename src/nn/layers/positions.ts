/**
 * Values that depend on positions only: causal masks and rotary angles. They are nodes over
 * constants and are built once for a model.
 */
import {
  add,
  cast,
  concat,
  cos,
  exp,
  greaterOrEqual,
  mul,
  sin,
  slice,
  sub,
  unsqueeze,
  where,
} from "../../functional/index.ts";
import type { GraphBuilder, Value } from "../../graph/index.ts";
import { count, type OptionKinds, wholeNumber } from "../../options.ts";
import { type DType, tensorFrom } from "../../tensor/index.ts";
import { checkLayer } from "../options.ts";
import type { Scope } from "../scope.ts";

/** 0, 1, … as int32 [count]. */
export function positions(builder: GraphBuilder, count: number, start = 0): Value {
  const numbers = Array.from({ length: count }, (_, index) => start + index);
  return builder.constant(tensorFrom("int32", [count], numbers));
}

/**
 * The value that is added to a score that must not count: far below any score, and finite, so that
 * no NaN can arise.
 */
export function maskedScore(dtype: DType): number {
  return dtype === "float16" ? -3e4 : -1e9;
}

interface MaskOptions {
  readonly rows: number;
  readonly columns: number;
  readonly start: number;
}

const MASK_OPTIONS: OptionKinds<MaskOptions> = { rows: count, columns: count, start: wholeNumber };

/**
 * A mask (1, 1, rows, columns): 0 where a query may attend to a key, and a large negative number
 * elsewhere. Query i has position `start` + i; keys start at position 0.
 */
export function causalMask(scope: Scope, options: MaskOptions): Value {
  checkLayer(scope, "causalMask", options, MASK_OPTIONS);
  const { rows, columns, start } = options;
  return scope.shared(`causal mask ${rows}x${columns} from ${start}`, () => {
    const b = scope.builder;
    const queries = unsqueeze(positions(b, rows, start), [0, 1, 3]);
    const keys = unsqueeze(positions(b, columns), [0, 1, 2]);
    const open = b.scalar(scope.dtype, 0);
    return where(greaterOrEqual(queries, keys), open, maskedScore(scope.dtype));
  });
}

/** 0 where `allowed` (bool), and a large negative number elsewhere: a mask for `attention`. */
export function additiveMask(allowed: Value, dtype: DType): Value {
  return where(allowed, allowed.builder.scalar(dtype, 0), maskedScore(dtype));
}

/**
 * Rotates pairs of elements (i, i + width/2) of `x` (…, length, width) by position · base^(-2i /
 * width) (Su et al. 2021, in the half-split layout of GPT-NeoX and Llama).
 */
export function rotate(scope: Scope, x: Value, base: number): Value {
  const length = x.shape.at(-2) as number;
  const width = x.shape.at(-1) as number;
  if (width % 2 !== 0) {
    scope.fail(`rotary positions need an even width of a head, got ${width}`);
  }
  const half = width / 2;
  const angles = (): Value => {
    const b = scope.builder;
    const steps = cast(positions(b, half), "float32");
    const rates = exp(mul(steps, (-2 * Math.log(base)) / width));
    return mul(unsqueeze(cast(positions(b, length), "float32"), [1]), rates);
  };
  const table = (name: string, of: (angles: Value) => Value): Value =>
    scope.shared(`rotary ${name} ${length}x${width} base ${base}`, () =>
      cast(of(angles()), x.dtype),
    );
  const cosines = table("cos", (a) => concat([cos(a), cos(a)], 1));
  const sines = table("sin", (a) => concat([sub(0, sin(a)), sin(a)], 1));
  const low = slice(x, [{ axis: -1, start: 0, end: half }]);
  const high = slice(x, [{ axis: -1, start: half, end: width }]);
  return add(mul(x, cosines), mul(concat([high, low], -1), sines));
}
