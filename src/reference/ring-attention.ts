/** Attention by its formula, with whole rows of scores. */
import { elementCount } from "../tensor/index.ts";
import { broadcastReader, type Kernel, type KernelContext, ravel, unravel } from "./kernel.ts";
import { fill, type ReferenceTensor } from "./tensor.ts";

/** Reads an element of a matrix among those at leading dims, which may be 1 where they repeat. */
function matrixReader({ data, shape }: ReferenceTensor) {
  return (lead: readonly number[], row: number, column: number): number => {
    const at = lead.map((index, dim) => (shape[dim] === 1 ? 0 : index));
    return data[ravel([...at, row, column], shape)] as number;
  };
}

/** By leading index and query: the scores of all keys, those that are hidden as −∞. */
function scoresOf({ input, attributes }: KernelContext, mask: ReferenceTensor | undefined) {
  const [q, k] = [matrixReader(input(0)), matrixReader(input(1))];
  const { shape } = input(0);
  const size = shape.at(-1) as number;
  const keys = input(1).shape.at(-2) as number;
  const full = shape.with(-1, keys);
  const added = mask === undefined ? () => 0 : broadcastReader(mask, full);
  const isCausal = attributes.number("causal") === 1;
  return (lead: readonly number[], row: number): number[] =>
    Array.from({ length: keys }, (_, column) => {
      if (isCausal && column > row) return Number.NEGATIVE_INFINITY;
      let sum = 0;
      for (let i = 0; i < size; i++) sum += q(lead, row, i) * k(lead, column, i);
      return sum * attributes.number("scale") + added(ravel([...lead, row, column], full));
    });
}

function sumOfExponentials(scores: readonly number[]): number {
  const most = Math.max(...scores);
  return most + Math.log(scores.reduce((sum, score) => sum + Math.exp(score - most), 0));
}

export const ringAttention: Kernel = (context) => {
  const { input, inputs, output } = context;
  const v = matrixReader(input(2));
  const scores = scoresOf(context, inputs[3]);
  const rows = input(0).shape.slice(0, -1);
  const size = input(2).shape.at(-1) as number;
  const [result, sums] = [output(0), output(1)].map(({ dtype, shape }) =>
    fill(dtype, shape, () => 0),
  ) as [ReferenceTensor, ReferenceTensor];
  for (let index = 0; index < elementCount(rows); index++) {
    const at = unravel(index, rows);
    const lead = at.slice(0, -1);
    const own = scores(lead, at.at(-1) as number);
    const sum = sumOfExponentials(own);
    sums.data[index] = sum;
    for (let i = 0; i < size; i++) {
      result.data[index * size + i] = own.reduce(
        (total, score, key) => total + Math.exp(score - sum) * v(lead, key, i),
        0,
      );
    }
  }
  return [result, sums];
};

/** dS = P · (dP − Σ P·dP), where dP = dY · vᵀ. */
export const ringAttentionGradient: Kernel = (context) => {
  const { input, inputs, output, attributes } = context;
  const [q, k, v, dy] = [input(0), input(1), input(2), input(5)].map(matrixReader) as [
    ReturnType<typeof matrixReader>,
    ReturnType<typeof matrixReader>,
    ReturnType<typeof matrixReader>,
    ReturnType<typeof matrixReader>,
  ];
  const scores = scoresOf(context, inputs[6]);
  const scale = attributes.number("scale");
  const gradients = [0, 1, 2].map((index) =>
    fill(output(index).dtype, output(index).shape, () => 0),
  ) as [ReferenceTensor, ReferenceTensor, ReferenceTensor];
  const addTo = (
    { shape, data }: ReferenceTensor,
    lead: readonly number[],
    row: number,
    column: number,
    term: number,
  ) => {
    const place = ravel(
      [...lead.map((index, dim) => (shape[dim] === 1 ? 0 : index)), row, column],
      shape,
    );
    data[place] = (data[place] as number) + term;
  };
  const rows = input(0).shape.slice(0, -1);
  const [size, values] = [input(0).shape.at(-1) as number, input(2).shape.at(-1) as number];
  for (let index = 0; index < elementCount(rows); index++) {
    const at = unravel(index, rows);
    const [lead, row] = [at.slice(0, -1), at.at(-1) as number];
    const own = scores(lead, row);
    const sum = sumOfExponentials(own);
    const weights = own.map((score) => Math.exp(score - sum));
    const dWeights = own.map((_, key) => {
      let total = 0;
      for (let i = 0; i < values; i++) total += dy(lead, row, i) * v(lead, key, i);
      return total;
    });
    const mean = weights.reduce(
      (total, weight, key) => total + weight * (dWeights[key] as number),
      0,
    );
    for (const [key, weight] of weights.entries()) {
      const dScore = weight * ((dWeights[key] as number) - mean) * scale;
      for (let i = 0; i < size; i++) {
        addTo(gradients[0], lead, row, i, dScore * k(lead, key, i));
        addTo(gradients[1], lead, key, i, dScore * q(lead, row, i));
      }
      for (let i = 0; i < values; i++) {
        addTo(gradients[2], lead, key, i, weight * dy(lead, row, i));
      }
    }
  }
  return gradients;
};
