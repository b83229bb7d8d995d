/** Shapes are static: a list of sizes, outermost dim first. A scalar has the empty shape. */

export type Shape = readonly number[];

export function elementCount(shape: Shape): number {
  let count = 1;
  for (const size of shape) count *= size;
  return count;
}

export function sameShape(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((size, dim) => size === b[dim]);
}

/** Row-major strides in elements. */
export function stridesOf(shape: Shape): number[] {
  const strides = new Array<number>(shape.length);
  let stride = 1;
  for (let dim = shape.length - 1; dim >= 0; dim--) {
    strides[dim] = stride;
    stride *= shape[dim] ?? 1;
  }
  return strides;
}

/** The shape that `shapes` broadcast to by the rules of NumPy, or undefined if they do not. */
export function broadcastShapes(...shapes: Shape[]): number[] | undefined {
  const rank = Math.max(0, ...shapes.map((shape) => shape.length));
  const result = new Array<number>(rank).fill(1);
  for (const shape of shapes) {
    const offset = rank - shape.length;
    for (const [dim, size] of shape.entries()) {
      const present = result[offset + dim];
      if (size === present || size === 1) continue;
      if (present !== 1) return undefined;
      result[offset + dim] = size;
    }
  }
  return result;
}

/** A dim in [0, rank) from one that may count from the end, or undefined if it is out of range. */
export function normalizeDim(dim: number, rank: number): number | undefined {
  const normal = dim < 0 ? dim + rank : dim;
  return Number.isInteger(normal) && normal >= 0 && normal < rank ? normal : undefined;
}

export function formatShape(shape: Shape): string {
  return `[${shape.join(", ")}]`;
}
