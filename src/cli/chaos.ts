/**
 * `lockstep chaos FILE`: trains like `lockstep train`, and does faults to the run's own workers and
 * to its launcher, to show that it gives the same weights all the same.
 */
import { randomInt } from "node:crypto";
import { appendFileSync, mkdirSync, readFileSync } from "node:fs";
import { dirname } from "node:path";
import { Chaos, corruptNewest, type Fault, faultsIn, kindsOf, lineOf } from "../chaos/index.ts";
import { LockstepError } from "../errors.ts";
import { fileError } from "../files/index.ts";
import { type LocalWorkers } from "../launch/index.ts";
import { FILES, type RunFolder } from "../run/index.ts";
import type { EventSink, Report } from "../telemetry/index.ts";
import { KilledLauncher, withHosts } from "./chaos-supervisor.ts";
import { commandToResume } from "./command.ts";
import type { TrainFlags } from "./target.ts";
import { type Onlooker, trainTarget } from "./train.ts";

export interface ChaosFlags extends Omit<TrainFlags, "workers"> {
  readonly workers?: number;
  /** In milliseconds. */
  readonly every: number;
  readonly kinds: readonly string[];
  readonly faults?: number;
  readonly chaosSeed?: number;
  /** A file of faults to do again. */
  readonly replay?: string;
}

export async function chaosCommand(file: string, flags: ChaosFlags): Promise<void> {
  const { every, kinds, faults, chaosSeed, replay, ...train } = flags;
  const again = replay === undefined ? undefined : readFaults(replay);
  const asked = again?.map(({ kind }) => kind) ?? kinds;
  const isApart = asked.includes("coordinator");
  checkReach(flags, asked);
  const seed = chaosSeed ?? randomInt(2 ** 31);
  const diary = new Diary();
  const launcher = new KilledLauncher();
  const chaos = new Chaos({
    seed,
    everyMs: every,
    kinds: kindsOf(kinds, process.platform),
    most: faults ?? Number.POSITIVE_INFINITY,
    replay: again,
    corrupt: () =>
      diary.folder !== undefined && corruptNewest(diary.folder.file(FILES.checkpoints)),
    killLauncher: launcher.kill,
    now: () => performance.now(),
    onFault: (fault, number) => diary.write(fault, number),
  });
  const seen: { workers?: LocalWorkers; report?: Report } = {};
  const from = replay === undefined ? `drawn with seed ${seed}` : `those of ${replay}`;
  const onlooker: Onlooker = {
    onReady: (show, folder) => {
      if (diary.folder !== undefined) return; // it is not the first launcher
      diary.open(show, folder);
      diary.tell(`Faults are done to this run's own workers: ${from}.`);
    },
    onWorkers: (given) => {
      seen.workers = given;
      chaos.attach(given);
    },
    onEvent: (event) => {
      if (event.type === "started") diary.begin();
      if (event.type === "step") chaos.committed(event.step);
      if (event.type === "finishing" || event.type === "stopping") chaos.end();
      if (event.type === "finished") seen.report = event.report;
    },
  };
  const resumeCommand = commandToResume(process.argv, process.env, process.cwd());
  const { workers = 4 } = train;
  try {
    if (isApart) {
      onlooker.onWorkers(launcher);
      const status = await withHosts(train, workers, (given) =>
        launcher.train(file, given, resumeCommand, onlooker),
      );
      if (status !== 0) process.exitCode = status;
    } else {
      const given = train.hosts === undefined ? { ...train, workers } : train;
      await trainTarget(file, given, resumeCommand, onlooker);
    }
  } finally {
    chaos.end();
    const { workersLost: lost = 0, workersJoined: joined = 0 } = seen.workers?.history ?? {};
    const how = replay === undefined ? ` (--chaos-seed ${seed})` : "";
    const weights = seen.report === undefined ? "" : `; weightsSha256 ${seen.report.weightsSha256}`;
    const { count } = chaos;
    diary.tell(`${count} faults${how}: ${lost} workers lost, ${joined} joined${weights}.`);
    if (diary.path !== undefined) diary.tell(`The same again: --replay ${diary.path}`);
  }
}

/** What cannot be done to workers of an agent, and why. */
const NOT_BY_AGENTS: Readonly<Record<string, string>> = {
  "bit-flip": "agents do not write to workers",
  corrupt: "the checkpoints lie on the hosts",
};

/** @throws INVALID_OPTION for one worker alone, or a fault that this command cannot do so far away */
function checkReach({ hosts, workers }: ChaosFlags, kinds: readonly string[]): void {
  const isApart = kinds.includes("coordinator");
  if (hosts === undefined && workers === 1 && !isApart) {
    const text =
      "On one machine, faults need 2 workers or more: one alone has no process of its own.";
    throw new LockstepError("INVALID_OPTION", text);
  }
  for (const kind of hosts === undefined ? ["partition", "slow-link"] : []) {
    if (!kinds.includes(kind)) continue;
    const text = `The fault "${kind}" needs --hosts: workers of one machine share memory, and have no link.`;
    throw new LockstepError("INVALID_OPTION", text, { fields: { kind } });
  }
  if (hosts?.length === 1 && kinds.includes("partition")) {
    const text =
      'The fault "partition" needs two --hosts or more: one alone is cut off from nobody.';
    throw new LockstepError("INVALID_OPTION", text, { fields: { kind: "partition" } });
  }
  for (const [kind, why] of Object.entries(NOT_BY_AGENTS)) {
    if ((hosts === undefined && !isApart) || !kinds.includes(kind)) continue;
    const beside = hosts === undefined ? 'the fault "coordinator"' : "--hosts";
    const text = `The fault "${kind}" is not possible with ${beside}: ${why}.`;
    throw new LockstepError("INVALID_OPTION", text, { fields: { kind } });
  }
}

/** Tells each fault, and writes it to the folder of the run once that is the run's. */
class Diary {
  /** The file, once a fault is written to it. */
  path: string | undefined;
  folder: RunFolder | undefined;
  #show: EventSink = () => undefined;
  #waiting = "";
  #hasBegun = false;

  open(show: EventSink, folder: RunFolder): void {
    [this.#show, this.folder] = [show, folder];
  }

  begin(): void {
    this.#hasBegun = true;
    this.#append("");
  }

  tell(text: string): void {
    this.#show({ type: "notice", text });
  }

  write(fault: Fault, number: number): void {
    const { kind, worker, ms, step, seconds } = fault;
    const of = worker === undefined ? "" : ` of worker ${worker}`;
    const long = ms === undefined ? "" : ` for ${(ms / 1000).toFixed(1)} s`;
    this.tell(`Fault ${number}: ${kind}${of}${long}, after step ${step}, at ${seconds} s.`);
    this.#append(lineOf(fault));
  }

  #append(text: string): void {
    this.#waiting += text;
    if (!this.#hasBegun || this.#waiting === "" || this.folder === undefined) return;
    const path = this.folder.file(FILES.chaos);
    try {
      // The folder of a run on hosts lies on the hosts.
      mkdirSync(dirname(path), { recursive: true });
      appendFileSync(path, this.#waiting);
      [this.#waiting, this.path] = ["", path];
    } catch (error) {
      // It is tried again with the next fault.
      this.tell((fileError(error, "write", path) as Error).message);
    }
  }
}

function readFaults(path: string): Fault[] {
  try {
    return faultsIn(readFileSync(path, "utf8"), path);
  } catch (error) {
    throw fileError(error, "read", path);
  }
}
