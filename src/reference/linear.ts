import type { linear } from "../ops/linear/index.ts";
import { elementCount } from "../tensor/index.ts";
import { broadcastReader, type Kernel } from "./kernel.ts";
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

export const linearKernels: Record<keyof typeof linear, Kernel> = {
  Gemm: gemm,
  MatMul: matmul,
};
