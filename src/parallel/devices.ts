/**
 * What is followed of what a file says of devices: the stages of a pipeline, and how parameters are
 * cut. A file that says it for another number of workers is refused.
 */
import { LockstepError } from "../errors.ts";
import type { AxisPlacement } from "../mesh/index.ts";
import type { StepGraph } from "../plan/index.ts";

type Devices = NonNullable<StepGraph["devices"]>;
type Configuration = Devices["configurations"][number];

/** The words of a sentence about a configuration. */
function nameOf({ file }: Devices, { name }: Configuration): string {
  return `${file} ("${name}")`;
}

/** The stages of a pipeline, and who says them. Undefined: no file says any. */
export function stagesIn(
  devices: StepGraph["devices"],
  count: number,
): { readonly by: string; readonly stageOf: Configuration["stageOf"] } | undefined {
  const own = chosen(devices, count, "pipeline", stagesOf);
  return own && { by: nameOf(devices as Devices, own), stageOf: own.stageOf };
}

/** How the ranks of an axis are to hold parameters, and who says it. Undefined: no file says any. */
export function cutsIn(
  devices: StepGraph["devices"],
  ranks: number,
):
  | { readonly by: string; readonly on: ReadonlyMap<string, AxisPlacement | undefined> }
  | undefined {
  const own = chosen(devices, ranks, "tensor", partsOf);
  if (own === undefined) return undefined;
  const on = new Map<string, AxisPlacement | undefined>();
  for (const [name, { parts, dim, sections }] of Object.entries(own.parameters)) {
    if (parts === 1) on.set(name, undefined);
    if (parts === ranks) on.set(name, { shard: dim, ...(sections && { sections }) });
  }
  return { by: nameOf(devices as Devices, own), on };
}

function stagesOf({ stages }: Configuration): readonly number[] {
  return stages > 1 ? [stages] : [];
}

/** The numbers of parts into which parameters are cut. */
function partsOf({ parameters }: Configuration): readonly number[] {
  const parts = Object.values(parameters).map((own) => own.parts);
  return [...new Set(parts)].filter((own) => own > 1);
}

/** @throws INVALID_OPTION for a file that says it for other numbers only */
function chosen(
  devices: StepGraph["devices"],
  count: number,
  axis: "pipeline" | "tensor" | "expert",
  numbersOf: (own: Configuration) => readonly number[],
): Configuration | undefined {
  const all = (devices?.configurations ?? []).filter((own) => numbersOf(own).length > 0);
  const found = all.find((own) => numbersOf(own).includes(count));
  if (found !== undefined || all.length === 0) return found;
  const numbers = [...new Set(all.flatMap(numbersOf))];
  const isStaged = axis === "pipeline";
  const asked = isStaged ? `a pipeline of ${count} stages` : `${axis} ${count}`;
  const what = isStaged ? "has pipeline stages" : "cuts parameters";
  const unit = isStaged ? "stages" : "parts";
  const other = isStaged ? ` (or a timetable with ${numbers[0]} stages)` : "";
  throw new LockstepError(
    "INVALID_OPTION",
    `parallel: ${asked} does not fit ${devices?.file}, which ${what} for ${numbers.join(" or ")} ${unit}.`,
    {
      hint: `State ${axis} ${numbers[0]}${other}, or leave out what the file says of devices: onnx(…, { devices: false }), or no withDevices.`,
    },
  );
}

/** What is said of experts that a file cuts, which `expert` does in one way only. */
function expertsTold(devices: Devices, ranks: number, experts: ReadonlySet<string>): string[] {
  const own = chosen(devices, ranks, "expert", partsOf);
  if (own === undefined) return [];
  const cut = Object.entries(own.parameters).filter(([, { parts }]) => parts > 1);
  const followed = cut.filter(
    ([name, { parts, dim, sections }]) =>
      experts.has(name) && parts === ranks && dim === 0 && sections === undefined,
  );
  const others = cut.length - followed.length;
  return [
    `${followed.length} parameters of experts are held as ${nameOf(devices, own)} says.`,
    ...(others === 0 ? [] : [`It cuts ${others} others, which is not followed.`]),
  ];
}

interface DeviceSizes {
  readonly tensor: number;
  readonly expert: number;
  readonly stages: number;
  /** Their parameters. */
  readonly experts: ReadonlySet<string>;
}

/** Sentences about what is followed, and what is not. @throws INVALID_OPTION */
export function devicesTold(devices: StepGraph["devices"], sizes: DeviceSizes): string[] {
  if (devices === undefined) return [];
  const has = (numbersOf: (own: Configuration) => readonly number[]) =>
    devices.configurations.some((own) => numbersOf(own).length > 0);
  const told: string[] = [];
  const cuts = sizes.tensor > 1 ? cutsIn(devices, sizes.tensor) : undefined;
  if (cuts !== undefined) {
    const others = devices.configurations
      .flatMap(({ parameters }) => Object.keys(parameters))
      .filter((name) => !cuts.on.has(name));
    const rest = new Set(others).size;
    told.push(
      `${cuts.on.size} parameters are held as ${cuts.by} says.` +
        (rest === 0
          ? ""
          : ` It cuts ${rest} others in another number of parts: a search places them.`),
    );
  }
  const stages = sizes.stages > 1 ? stagesIn(devices, sizes.stages) : undefined;
  if (stages !== undefined) told.push(`Stages are those of ${stages.by}.`);
  const isOfExperts = sizes.tensor === 1 && sizes.expert > 1;
  if (isOfExperts) told.push(...expertsTold(devices, sizes.expert, sizes.experts));
  const left = [
    ...(sizes.tensor === 1 && !isOfExperts && has(partsOf)
      ? ["how parameters are cut (tensor)"]
      : []),
    ...(sizes.stages === 1 && has(stagesOf) ? ["its pipeline stages (pipeline)"] : []),
  ];
  if (left.length > 0) {
    told.push(`Not followed of ${devices.file}: ${left.join(", ")}, which is not stated.`);
  }
  return told;
}
