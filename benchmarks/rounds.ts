/**
 * Measures that take turns. The speed of a machine changes with its other work, so a measure is
 * compared with another of the same round, and the order of a round is that of the last, reversed.
 */
import { median } from "./report.ts";

type Measures<Values> = {
  readonly [Name in keyof Values]: () =>
    | Values[Name]
    | undefined
    | Promise<Values[Name] | undefined>;
};

/** @returns the values of each measure, by round; undefined values are left out */
export async function takeTurns<Values extends object>(
  measures: Measures<Values>,
  rounds: number,
): Promise<{ [Name in keyof Values]: Values[Name][] }> {
  const names = Object.keys(measures) as (keyof Values)[];
  const empty = Object.fromEntries(names.map((name) => [name, []]));
  const found = empty as unknown as { [Name in keyof Values]: Values[Name][] };
  for (let round = 0; round < rounds; round++) {
    for (const name of round % 2 === 0 ? names : names.toReversed()) {
      const value = await measures[name]();
      if (value !== undefined) found[name].push(value);
    }
  }
  return found;
}

/** The median of the ratios of each round. */
export function ratioOf(values: readonly number[], peers: readonly number[]): number {
  return median(values.map((value, round) => value / (peers[round] as number)));
}
