/** Compares one model in several ways, and prints one line of JSON for each. */
import { Comparison } from "./same-cells.ts";
import { MODELS } from "./same-models.ts";
import type { Way } from "./same-ways.ts";

export interface ModelRequest {
  readonly model: string;
  readonly ways: readonly Way[];
  readonly steps: number;
  /** Where what is offloaded lies. */
  readonly folder: string;
  /** Whether to begin with a line about innocent changes. */
  readonly innocent: boolean;
}

const { model, ways, steps, folder, innocent } = JSON.parse(
  process.argv[2] ?? "{}",
) as ModelRequest;
const found = MODELS.find(({ name }) => name === model);
if (found === undefined) throw new Error(`There is no model "${model}".`);
const comparison = new Comparison(found, { steps, folder });
if (innocent) console.log(JSON.stringify(await comparison.innocent()));
for (const way of ways) console.log(JSON.stringify(await comparison.cell(way)));
// What was refused in the middle may still hold memory and a group.
process.exit(0);
