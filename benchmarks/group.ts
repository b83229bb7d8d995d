/** Workers of one group, each a process that measures its steps. */
import { execFile } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import type { ScalingMeasurement, ScalingRequest } from "./scaling-child.ts";

const entry = join(dirname(fileURLToPath(import.meta.url)), "scaling-child.js");

type Request = Omit<ScalingRequest, "group">;

/** @param prefixOf the words before the command of a rank. Default: none. */
export function measureGroup(
  request: Request,
  size: number,
  prefixOf: (rank: number) => readonly string[] = () => [],
): Promise<ScalingMeasurement[]> {
  const name = `lockstep-bench-${process.pid}-${Date.now()}`;
  const measured = (rank: number) => {
    return measureOne({ ...request, group: { name, rank, size } }, prefixOf(rank));
  };
  return Promise.all(Array.from({ length: size }, (_, rank) => measured(rank)));
}

/** Workers that each train by themselves, at the same time. */
export function measureAlone(request: Request, count: number): Promise<ScalingMeasurement[]> {
  return Promise.all(Array.from({ length: count }, () => measureOne(request)));
}

async function measureOne(
  request: ScalingRequest,
  prefix: readonly string[] = [],
): Promise<ScalingMeasurement> {
  const [program, ...words] = [...prefix, process.execPath, entry, JSON.stringify(request)];
  const { stdout } = await promisify(execFile)(program, words);
  return JSON.parse(stdout) as ScalingMeasurement;
}
