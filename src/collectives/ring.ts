/** Rings: each rank sends to the next and receives from the one before. */
import {
  dataSpan,
  exchange,
  type Part,
  reduce,
  type Schedule,
  type Step,
  scratchSpan,
} from "./schedule.ts";

/** size - 1 rounds; rank r ends with the combination of part r. */
export function ringReduceScatter(rank: number, parts: readonly Part[]): Schedule {
  const size = parts.length;
  const [next, before] = [(rank + 1) % size, (rank - 1 + size) % size];
  const scratch = Math.max(0, ...parts.map(({ length }) => length));
  const steps: Step[] = [];
  for (let round = 0; round < size - 1; round++) {
    const given = parts[(rank - round - 1 + 2 * size) % size] as Part;
    const kept = parts[(rank - round - 2 + 2 * size) % size] as Part;
    const [mine, theirs] = [dataSpan(kept), scratchSpan(0, kept.length)];
    steps.push(
      ...exchange([{ peer: next, span: dataSpan(given) }], [{ peer: before, span: theirs }]),
      ...reduce([theirs, mine], [mine], round === size - 2),
    );
  }
  return { algorithm: "ring", steps, scratch };
}

/** size - 1 rounds; each rank passes on what it got. */
export function ringAllGather(rank: number, parts: readonly Part[]): Schedule {
  const size = parts.length;
  const [next, before] = [(rank + 1) % size, (rank - 1 + size) % size];
  const steps: Step[] = [];
  for (let round = 0; round < size - 1; round++) {
    const given = parts[(rank - round + size) % size] as Part;
    const taken = parts[(rank - round - 1 + size) % size] as Part;
    steps.push(
      ...exchange(
        [{ peer: next, span: dataSpan(given) }],
        [{ peer: before, span: dataSpan(taken) }],
      ),
    );
  }
  return { algorithm: "ring", steps, scratch: 0 };
}
