/** Where weights of a worker lie in its memory, for those who harm them on purpose. */
import type { DeviceTensor } from "../engine/index.ts";
import type { Trainer } from "../train/index.ts";

/** Bytes of the process that are weights, and nothing but weights. */
export interface WeightsPlace {
  readonly address: number;
  readonly byteLength: number;
}

const KIND = "parameters/";

/** The largest part of a parameter that this worker has; undefined if no process can reach it. */
function weightsPlace(trainer: Trainer): WeightsPlace | undefined {
  const own = trainer.parts().own();
  const [largest] = own
    .filter(({ name }) => name.startsWith(KIND))
    .toSorted((a, b) => b.to - b.from - (a.to - a.from));
  const tensor = largest && trainer.tensors().parameters[largest.name.slice(KIND.length)];
  const start = tensor && addressOf(tensor);
  if (largest === undefined || start === undefined) return undefined;
  const { from, to } = largest;
  return { address: Number(start) + from, byteLength: to - from };
}

/** Tells where weights lie. A rank whose weights no process can reach tells nothing. */
export function tellWeights(trainer: Trainer, told?: (place: WeightsPlace) => void): void {
  const place = told && weightsPlace(trainer);
  if (place !== undefined) told?.(place);
}

/** Undefined for memory that is no memory of this process. */
function addressOf(tensor: DeviceTensor): bigint | undefined {
  const address: unknown = Reflect.get(tensor, "address");
  return typeof address === "bigint" ? address : undefined;
}
