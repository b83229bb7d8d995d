/** Conversions between placements: for all pairs, ranks hold what they should of the same value. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { randomNumbers } from "../../../test/support/random.ts";
import { type AxisPlacement, createMesh, isShard } from "../../mesh/index.ts";
import { newBuilder } from "../../ops/index.ts";
import { ownGraph } from "../../program/own-graph.ts";
import { fromTensor, interpret, interpretRanks, partOf, toTensor } from "../../reference/index.ts";
import { type Tensor, tensorFrom, toNumbers } from "../../tensor/index.ts";
import { convert, stepsBetween } from "./convert.ts";

type On = AxisPlacement | undefined;

const WAYS: readonly On[] = [
  undefined,
  "partial",
  "partial max",
  { shard: 0 },
  { shard: 1 },
  { shard: 1, sections: [6, 12, 6] },
];
const SHAPE = [12, 24];
const axis = "axis";

const numbersOf = (seed: number) => randomNumbers(seed, 12 * 24, [-1, 1]);
const tensor = (numbers: readonly number[]) => tensorFrom("float64", SHAPE, numbers);

/** What each rank holds of a value. */
function held(whole: Tensor, on: On, ranks: number): Tensor[] {
  const places = Array.from({ length: ranks }, (_, place) => place);
  if (isShard(on)) {
    const at = { dim: on.shard as number, sections: on.sections };
    return places.map((place) => toTensor(partOf(fromTensor(whole), at, place, ranks)));
  }
  if (on === undefined) return places.map(() => whole);
  const others = places.slice(1).map((place) => numbersOf(place + 7));
  const first = toNumbers(whole).map((number, at) =>
    on === "partial" ? others.reduce((rest, own) => rest - (own[at] as number), number) : number,
  );
  const rest = others.map((own) =>
    on === "partial" ? own : own.map((by, at) => (first[at] as number) - Math.abs(by)),
  );
  return [first, ...rest].map(tensor);
}

/** The value that ranks hold in this way, as far as a rank alone can say; else all of it. */
function together(parts: readonly Tensor[], on: On): (readonly number[])[] {
  const numbers = parts.map(toNumbers);
  if (typeof on !== "string") return numbers;
  const combine = on === "partial" ? (a: number, b: number) => a + b : Math.max;
  return [numbers.reduce((sum, own) => sum.map((a, at) => combine(a, own[at] as number)))];
}

for (const ranks of [2, 3]) {
  test(`each placement becomes each other one on ${ranks} ranks`, () => {
    const mesh = createMesh({ [axis]: ranks });
    const whole = tensor(numbersOf(1));
    for (const from of WAYS) {
      for (const to of WAYS) {
        const given = held(whole, from, ranks);
        const builder = newBuilder("conversion");
        const { dtype, shape } = given[0] as Tensor;
        const value = builder.input("value", { dtype, shape });
        const result = builder.one("Identity", [convert(value, from, to, { axis, ranks })]);
        const graph = builder.build([result]);
        const feeds = given.map((own) => ({ value: own }));
        const made = interpretRanks(graph, mesh, feeds).map((own) => own[result.name] as Tensor);
        const wanted = together(held(whole, to, ranks), to);
        for (const [at, found] of together(made, to).entries()) {
          const name = JSON.stringify([from, to]);
          assert.equal(found.length, wanted[at]?.length, name);
          const isNear = found.every((own, n) => Math.abs(own - (wanted[at]?.[n] ?? NaN)) < 1e-12);
          assert.ok(isNear, name);
        }
        const isLocal = !stepsBetween(from, to).some((step) => /^all-|^reduce-/.test(step));
        if (!isLocal) continue;
        // What sends nothing is what each rank makes of it in a program.
        for (const [place, own] of feeds.entries()) {
          const alone = interpret(ownGraph(graph, mesh, place), own)[result.name] as Tensor;
          assert.deepEqual(toNumbers(alone), toNumbers(made[place] as Tensor));
        }
      }
    }
  });
}
