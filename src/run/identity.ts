/**
 * The identity of a run: everything that its weights depend on, except the versions of what
 * computes them, as short texts by name. A checkpoint records it, and workers compare it.
 */
import { createHash } from "node:crypto";
import { LockstepError } from "../errors.ts";
import { hashGraph } from "../graph/index.ts";
import type { Model } from "../nn/index.ts";
import { newBuilder } from "../ops/index.ts";
import { rulesOf, type UpdateRule } from "../optimizer/index.ts";
import type { TensorType } from "../tensor/index.ts";
import type { Fingerprint } from "./fingerprint.ts";
import type { Run } from "./run.ts";

/** `batch` → `8`, `optimizer.weightDecay` → `0.1`. */
export type Identity = Readonly<Record<string, string>>;

/** What may be changed on purpose in a resumed run: the first words of an identity's names. */
export const CHANGEABLE = [
  "model",
  "data",
  "tokenizer",
  "optimizer",
  "learningRate",
  "schedule",
  "steps",
  "clipNorm",
  "batch",
  "microBatches",
  "seed",
  "reproducible",
] as const;
export type Changeable = (typeof CHANGEABLE)[number];

export interface Change {
  readonly name: string;
  readonly before: string;
  readonly now: string;
}

/** Returns what the run file and the command line say. */
export function statedIdentity(run: Run): Identity {
  const { seed, batch, microBatches, clipNorm, schedule = { kind: "constant" }, steps } = run;
  const endsWithRun = schedule.kind !== "constant" && schedule.steps === undefined;
  return {
    seed: String(seed),
    batch: String(batch),
    microBatches: String(microBatches),
    reproducible: String(run.reproducible !== false),
    clipNorm: clipNorm === undefined ? "none" : String(clipNorm),
    // A run with a constant schedule may be prolonged, because its steps stay the same.
    ...(endsWithRun ? { steps: String(steps) } : {}),
    ...leaves("schedule", schedule),
    ...optimizerIdentity(run),
  };
}

/** Returns the whole identity. `model` is built for training, for one micro-batch. */
export function identityOf(run: Run, model: Model, { data, tokenizer }: Fingerprint): Identity {
  return {
    ...statedIdentity(run),
    model: `${model.name}, graph ${hashGraph(model.graph).slice(0, 16)}`,
    data,
    ...(tokenizer === undefined ? {} : { tokenizer }),
  };
}

function optimizerIdentity({ optimizer }: Run): Identity {
  const rules = rulesOf(optimizer);
  const found: Record<string, string> = { "optimizer.name": optimizer.kind };
  for (const [index, { rule, selects }] of rules.entries()) {
    const of = rules.length === 1 ? "" : `[${index}]`;
    found[`learningRate${of}`] = String(rule.learningRate);
    found[`optimizer${of}.rule`] = rule.name;
    found[`optimizer${of}.weightDecay`] = String(rule.weightDecay);
    Object.assign(found, leaves(`optimizer${of}.selects`, selects));
    Object.assign(found, leaves(`optimizer${of}.decay`, rule.decay));
    // The other numbers of a rule are in its graph and in the scalars that it makes for a step.
    for (const step of [1, 2, 1000]) {
      const context = { step, learningRate: 1, gradientScale: 1, weightDecay: 1 };
      Object.assign(found, leaves(`optimizer${of}.at step ${step}`, rule.scalars(context)));
    }
    found[`optimizer${of}.update`] = updateHash(rule);
  }
  return found;
}

/** Hashes the update of a small parameter. */
function updateHash(rule: UpdateRule): string {
  const builder = newBuilder("update");
  const type: TensorType = { dtype: "float32", shape: [4, 3] };
  const scalarType: TensorType = { dtype: "float32", shape: [] };
  const slots = Object.fromEntries(
    rule.slots.map(({ name, typeOf }) => [
      name,
      builder.input(`slot.${name}`, typeOf?.(type) ?? type),
    ]),
  );
  const context = { step: 1, learningRate: 1, gradientScale: 1, weightDecay: 1 };
  const scalars = Object.fromEntries(
    Object.keys(rule.scalars(context)).map((name) => [
      name,
      builder.input(`scalar.${name}`, scalarType),
    ]),
  );
  const of = <T>(values: Record<string, T>, name: string) => values[name] as T;
  const next = rule.update({
    builder,
    parameter: builder.input("parameter", type),
    gradient: builder.input("gradient", type),
    slot: (name) => of(slots, name),
    scalar: (name) => of(scalars, name),
    decays: true,
  });
  const graph = builder.build([next.parameter, ...Object.values(next.slots)]);
  return hashGraph(graph).slice(0, 16);
}

/** Returns every value of plain data by its path. */
function leaves(path: string, value: unknown): Record<string, string> {
  if (value === undefined) return {};
  if (typeof value !== "object" || value === null || value instanceof RegExp) {
    return { [path]: String(value) };
  }
  if (Object.keys(value).length === 0) return { [path]: "all" };
  return Object.assign(
    {},
    ...Object.entries(value).map(([key, inner]) => leaves(`${path}.${key}`, inner)),
  ) as Record<string, string>;
}

/** Returns the differences between names that both identities have. */
export function changesBetween(before: Identity, now: Identity): Change[] {
  const names = [...new Set([...Object.keys(before), ...Object.keys(now)])];
  return names
    .filter((name) => before[name] !== now[name] && isComparable(name, before, now))
    .map((name) => ({ name, before: before[name] ?? "none", now: now[name] ?? "none" }));
}

function isComparable(name: string, before: Identity, now: Identity): boolean {
  // Schedules already differ in their kind if only one of them ends with the run.
  if (name === "steps") return name in before && name in now;
  // The graph contains the sizes of the batch, so it is compared only if they are equal.
  if (name === "model") return part(before) === part(now);
  return true;
}

function part({ batch, microBatches }: Identity): number {
  return Number(batch) / Number(microBatches);
}

/** Returns the word that `--change` takes for a name. */
export function changeableOf(name: string): string {
  return /^\w+/.exec(name)?.[0] ?? name;
}

/**
 * Returns the error of a run that cannot be resumed with different options. It says how the run can
 * be resumed.
 */
export function changedError(changes: readonly Change[], path: string): LockstepError {
  const said = changes.map(({ name, before, now }) => `${name} ${before}, but this run has ${now}`);
  const names = [...new Set(changes.map(({ name }) => changeableOf(name)))];
  return new LockstepError(
    "CHECKPOINT",
    `The checkpoint "${path}" belongs to a run with ${said.slice(0, 4).join("; with ")}.`,
    {
      hint:
        `Resume with the options that the run was started with, or accept the change with --change ${names.join(",")}. ` +
        "Or start again with --anew, or in another folder with --out.",
      fields: { path, changed: names },
    },
  );
}

/** Returns the SHA-256 of texts in hexadecimal. */
export function sha256Of(texts: readonly string[]): string {
  const hash = createHash("sha256");
  for (const text of texts) hash.update(`${text.length}:${text};`);
  return hash.digest("hex");
}
