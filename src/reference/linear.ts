import { type Labels, type linear, parseEquation, type Terms } from "../ops/linear/index.ts";
import { elementCount, normalizeDim } from "../tensor/index.ts";
import { broadcastReader, type Kernel, type KernelContext, ravel, unravel } from "./kernel.ts";
import { fill, type ReferenceTensor } from "./tensor.ts";

const matmul: Kernel = ({ input, output }) => {
  const [a, b] = [input(0), input(1)];
  const left = a.shape.length === 1 ? { ...a, shape: [1, ...a.shape] } : a;
  const right = b.shape.length === 1 ? { ...b, shape: [...b.shape, 1] } : b;
  const [rows, inner] = left.shape.slice(-2) as [number, number];
  const columns = right.shape.at(-1) as number;
  const { dtype, shape } = output(0);
  const data = new Float64Array(elementCount(shape));
  const batch = shape.slice(
    0,
    shape.length - Number(a.shape.length > 1) - Number(b.shape.length > 1),
  );
  const readLeft = broadcastReader(left, [...batch, rows, inner]);
  const readRight = broadcastReader(right, [...batch, inner, columns]);
  for (let i = 0; i < data.length; i++) {
    const column = i % columns;
    const row = Math.floor(i / columns) % rows;
    const matrix = Math.floor(i / (rows * columns));
    let sum = 0;
    for (let k = 0; k < inner; k++) {
      sum +=
        readLeft((matrix * rows + row) * inner + k) *
        readRight((matrix * inner + k) * columns + column);
    }
    data[i] = sum;
  }
  return [{ dtype, shape, data }];
};

/** Reads element (row, column) of a matrix or of its transpose. */
function matrixReader(
  { data, shape }: ReferenceTensor,
  transposed: boolean,
): (row: number, column: number) => number {
  const columns = shape[1] as number;
  return (row, column) =>
    data[transposed ? column * columns + row : row * columns + column] as number;
}

const gemm: Kernel = ({ input, inputs, output, attributes }) => {
  const transA = attributes.number("transA") !== 0;
  const a = matrixReader(input(0), transA);
  const b = matrixReader(input(1), attributes.number("transB") !== 0);
  const inner = input(0).shape[transA ? 0 : 1] as number;
  const { dtype, shape } = output(0);
  const [alpha, beta] = [attributes.number("alpha"), attributes.number("beta")];
  const c = inputs[2] === undefined ? () => 0 : broadcastReader(inputs[2], shape);
  const columns = shape[1] as number;
  const element = (index: number) => {
    let sum = 0;
    for (let k = 0; k < inner; k++)
      sum += a(Math.floor(index / columns), k) * b(k, index % columns);
    return alpha * sum + beta * c(index);
  };
  return [fill(dtype, shape, element)];
};

/** The sum over all labels: one term for each combination of their values. */
const einsum: Kernel = ({ inputs, input, output, attributes }) => {
  const operands = inputs.map((_, index) => input(index));
  const shapes = operands.map((operand) => operand.shape);
  const terms = parseEquation(attributes.string("equation"), shapes) as Terms;
  const labels = [...new Set([...terms.result, ...terms.operands.flat()])];
  const sizes = labels.map((label) =>
    Math.max(1, ...terms.operands.map((own, i) => shapes[i]?.[own.indexOf(label)] ?? 1)),
  );
  const { dtype, shape } = output(0);
  const result = fill(dtype, shape, () => 0);
  const place = (own: Labels, of: readonly number[], at: readonly number[]) =>
    ravel(
      own.map((label, dim) => (of[dim] === 1 ? 0 : (at[labels.indexOf(label)] as number))),
      of,
    );
  for (let i = 0; i < elementCount(sizes); i++) {
    const at = unravel(i, sizes);
    const factors = operands.map(
      (operand, index) =>
        operand.data[place(terms.operands[index] as Labels, operand.shape, at)] as number,
    );
    const target = place(terms.result, shape, at);
    (result.data[target] as number) += factors.reduce((a, b) => a * b, 1);
  }
  return [result];
};

/** Element (…, i, k) of an operand, whose dims are moved as the attributes say. */
function fusedOperand({ attributes, input }: KernelContext, index: number): ReferenceTensor {
  const x = input(index);
  const side = index === 0 ? "A" : "B";
  const order = x.shape.map((_, dim) => dim);
  if (attributes.number(`transBatch${side}`) !== 0) {
    order.splice(order.length - 2, 0, ...order.splice(0, 1));
  }
  if (attributes.number(`trans${side}`) !== 0) order.push(...order.splice(order.length - 2, 1));
  const shape = order.map((dim) => x.shape[dim] as number);
  return fill(x.dtype, shape, (flat) => {
    const at = unravel(flat, shape);
    return x.data[
      ravel(
        x.shape.map((_, dim) => at[order.indexOf(dim)] as number),
        x.shape,
      )
    ] as number;
  });
}

const fusedMatmul: Kernel = (context) => {
  const operands = [fusedOperand(context, 0), fusedOperand(context, 1)];
  const [product] = matmul({
    ...context,
    inputs: operands,
    input: (index) => operands[index] as ReferenceTensor,
  });
  const { dtype, shape, data } = product as ReferenceTensor;
  const alpha = context.attributes.number("alpha");
  return [{ dtype, shape, data: data.map((value) => alpha * value) }];
};

const dft: Kernel = ({ input, inputs, output, attributes }) => {
  const x = input(0);
  const axis = normalizeDim(input(2).data[0] as number, x.shape.length) as number;
  const size = x.shape[axis] as number;
  const length = inputs[1]?.data[0] ?? size;
  const isInverse = attributes.number("inverse") === 1;
  const { dtype, shape } = output(0);
  const last = shape.length - 1;
  const value = (index: number): number => {
    const at = unravel(index, shape);
    let sum = 0;
    for (let i = 0; i < Math.min(size, length); i++) {
      const part = (which: number): number =>
        which < (x.shape[last] as number)
          ? (x.data[ravel(at.with(axis, i).with(last, which), x.shape)] as number)
          : 0;
      // Whole turns are removed, because the sine of a large angle is inexact.
      const turn = (i * (at[axis] as number)) % length;
      const angle = ((isInverse ? 2 : -2) * Math.PI * turn) / length;
      const [real, imaginary] = [part(0), part(1)];
      sum +=
        at[last] === 0
          ? real * Math.cos(angle) - imaginary * Math.sin(angle)
          : real * Math.sin(angle) + imaginary * Math.cos(angle);
    }
    return isInverse ? sum / length : sum;
  };
  return [fill(dtype, shape, value)];
};

/**
 * Gauss-Jordan elimination with the largest pivots. Returns the determinant, and the matrix that
 * the identity became.
 */
function eliminate(matrix: Float64Array, size: number): { det: number; inverse: number[][] } {
  const rows = Array.from({ length: size }, (_, i) => [
    ...matrix.subarray(i * size, (i + 1) * size),
    ...Array.from({ length: size }, (__, j) => (i === j ? 1 : 0)),
  ]);
  let det = 1;
  for (let column = 0; column < size; column++) {
    const left = rows.map((row, i) => (i < column ? -1 : Math.abs(row[column] as number)));
    const best = left.indexOf(Math.max(...left));
    const pivot = rows[best] as number[];
    if (best !== column) det = -det;
    rows[best] = rows[column] as number[];
    const scale = pivot[column] as number;
    det *= scale;
    rows[column] = pivot.map((element) => element / scale);
    for (const [i, row] of rows.entries()) {
      const factor = row[column] as number;
      if (i === column) continue;
      rows[i] = row.map((element, j) => element - factor * (rows[column]?.[j] as number));
    }
  }
  return { det, inverse: rows.map((row) => row.slice(size)) };
}

function matrices(context: KernelContext): { det: number; inverse: number[][] }[] {
  const { data, shape } = context.input(0);
  const size = shape.at(-1) as number;
  const count = data.length / size ** 2;
  return Array.from({ length: count }, (_, i) =>
    eliminate(data.subarray(i * size ** 2, (i + 1) * size ** 2), size),
  );
}

const det: Kernel = (context) => [
  { ...context.output(0), data: Float64Array.from(matrices(context).map((one) => one.det)) },
];

const inverse: Kernel = (context) => [
  {
    ...context.output(0),
    data: Float64Array.from(matrices(context).flatMap((one) => one.inverse.flat())),
  },
];

export const linearKernels: Record<keyof typeof linear, Kernel> = {
  DFT: dft,
  Det: det,
  Einsum: einsum,
  Gemm: gemm,
  MatMul: matmul,
  "com.microsoft::FusedMatMul": fusedMatmul,
  "com.microsoft::Inverse": inverse,
};
