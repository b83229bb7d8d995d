/** `lockstep train FILE`, for a run file or a job. */
import { basename, join, resolve } from "node:path";
import { startAgent } from "../agent/index.ts";
import { createOrtEngine } from "../engine/index.ts";
import { LockstepError } from "../errors.ts";
import { makeJobFolder, removeJobFolder, writeJobForNow } from "../job/index.ts";
import { availableCores, type LaunchOptions, launchLocal, launchOnHosts } from "../launch/index.ts";
import { formatAddress } from "../net/index.ts";
import { statedIn } from "../parallel/index.ts";
import { type JobOverrides } from "../protocol/index.ts";
import {
  type Beginning,
  FILES,
  openRunFolder,
  type RunFolder,
  readCheckpointHead,
  settleMicroBatches,
  type TrainOptions,
  type TrainResult,
  train,
} from "../run/index.ts";
import { type EventSink, jsonlSink } from "../telemetry/index.ts";
import { meetingPlace, requireToken } from "./agent.ts";
import { commandToResume } from "./command.ts";
import { withFoundAxes } from "./found-axes.ts";
import { DATA_NOT_HERE, jobFrom, jobHere, rootFor, rootHere } from "./job.ts";
import { recordCommand } from "./recorded.ts";
import { stopOnSignals } from "./signals.ts";
import { keepingOf, openTarget, type Target, type TrainFlags } from "./target.ts";
import { terminal } from "./terminal.ts";
import { checkEnough, checkSpares, groupsOf, mostWorkers, workersFor } from "./workers.ts";

export function trainCommand(file: string, flags: TrainFlags): Promise<void> {
  return trainTarget(file, flags, commandToResume(process.argv, process.env, process.cwd()));
}

/** What watches a run, and may do something to its workers. */
export interface Onlooker {
  readonly onEvent: EventSink;
  readonly onWorkers: NonNullable<LaunchOptions["onWorkers"]>;
  /** Is given what shows events, and the folder of the run, before it begins. */
  readonly onReady: (show: EventSink, folder: RunFolder) => void;
  /** Shows events in place of the terminal. */
  readonly show?: EventSink;
}

/** @param resumeCommand what is shown after a stop */
export async function trainTarget(
  file: string,
  flags: TrainFlags,
  resumeCommand: string,
  onlooker?: Onlooker,
): Promise<void> {
  const beginning = beginningOf(flags);
  const opened = await openTarget(file, flags);
  checkHosts(flags, opened);
  const cores = availableCores();
  const out = flags.out ?? join("runs", basename(opened.run.name));
  // The folder of a run on hosts lies on the hosts, and they reach the place for checkpoints.
  const isOnHosts = flags.hosts !== undefined;
  const folder = await openRunFolder(out, isOnHosts ? undefined : opened.run.checkpoints);
  const head = beginning === "resume" && !isOnHosts ? await readCheckpointHead(folder) : undefined;
  const settled = settleMicroBatches(opened.run, head?.identity["microBatches"]);
  const { run, flags: found, told } = withFoundAxes(settled, flags);
  const target = { ...opened, run };
  const placed = run.checkpoints === undefined ? flags : { ...flags, checkpoints: run.checkpoints };
  const { each, all: workers } = workersFor({
    parallel: run.parallel,
    asked: flags.workers,
    threads: flags.threads,
    cores,
    microBatches: run.microBatches,
    hosts: flags.hosts?.length,
  });
  const most = mostWorkers(flags, run, workers);
  if (flags.hosts === undefined && flags.listen === undefined) {
    checkEnough(run, workers);
    checkSpares(flags, workers);
  }
  if (flags.minWorkers !== undefined && flags.minWorkers > most) {
    throw new LockstepError(
      "INVALID_OPTION",
      `A run of ${most} ${most === 1 ? "worker" : "workers"} cannot wait for ${flags.minWorkers}.`,
      { hint: "Use a larger --workers or a smaller --min-workers." },
    );
  }
  const show = onlooker?.show ?? terminal(resumeCommand);
  // With several workers, the first one writes the run's folder and its metrics.
  const isShared = isOnHosts || flags.listen !== undefined;
  const isHere = workers === 1 && !isShared;
  const metrics = isHere
    ? jsonlSink(folder.file(FILES.metrics), {
        now: Date.now,
        onTrouble: (text) => show({ type: "notice", text }),
      })
    : undefined;
  // The folder of a run on hosts lies on the hosts, and this machine has its run file.
  let recorded: Promise<void> | undefined;
  const record: EventSink = ({ type }) => {
    if (type !== "started" || isOnHosts) return;
    recorded = recordCommand(folder, file, placed).catch((error: unknown) => {
      const [why] = (error instanceof Error ? error.message : String(error)).split("\n");
      show({ type: "notice", text: `${why} So "lockstep resume" cannot continue this run.` });
    });
  };
  if (told !== undefined) show({ type: "notice", text: told });
  const stop = stopOnSignals(() => show({ type: "stopping" }));
  const threads = flags.threads ?? Math.max(1, Math.floor(cores / (isShared ? workers : most)));
  const shared = {
    beginning,
    changes: flags.change,
    signal: stop.signal,
    onEvent: toAll(show, metrics?.sink, record, onlooker?.onEvent),
  };
  onlooker?.onReady(show, folder);
  const led = { ...shared, out, onWorkers: onlooker?.onWorkers };
  const { dump } = flags;
  try {
    const outcome = await unlessStopped(target, out, shared, () =>
      isShared
        ? trainOnHosts(target, found, { ...led, workers: each, maxWorkers: most })
        : workers === 1
          ? trainHere(
              target,
              { ...shared, folder, now: () => performance.now() },
              { threads, dump },
            )
          : trainByWorkers(target, found, { ...led, workers, maxWorkers: most, threads, dump }),
    );
    if (outcome === "stopped") process.exitCode = stop.status();
  } finally {
    await recorded;
    stop.end();
    metrics?.close();
  }
}

type Outcome = TrainResult["outcome"];
type Shared = Pick<TrainOptions, "beginning" | "changes" | "signal" | "onEvent">;

/** A stop while the job is being made means that the run does not begin. */
async function unlessStopped(
  { run: { steps } }: Target,
  out: string,
  { signal, onEvent }: Shared,
  work: () => Promise<Outcome>,
): Promise<Outcome> {
  try {
    return await work();
  } catch (error) {
    if (!signal.aborted || error !== signal.reason) throw error;
    onEvent({ type: "stopped", step: 0, steps, out, files: [] });
    return "stopped";
  }
}

/** Trains with one worker in this very process: no process is started and no memory is shared. */
async function trainHere(
  { run, baseDir, roots, holds }: Target,
  options: Omit<TrainOptions, "engine" | "baseDir">,
  { threads, dump }: { readonly threads: number; readonly dump: string | undefined },
): Promise<Outcome> {
  const engine = createOrtEngine({ threads, ...(dump === undefined ? {} : { dump }) });
  try {
    return (await train(run, { ...options, baseDir, roots, holds, engine })).outcome;
  } finally {
    await engine.close();
  }
}

interface WorkersOptions extends Shared {
  readonly out: string;
  readonly workers: number;
  readonly maxWorkers: number;
  readonly threads: number;
  readonly dump: string | undefined;
  readonly onWorkers: LaunchOptions["onWorkers"];
}

async function trainByWorkers(
  target: Target,
  flags: TrainFlags,
  options: WorkersOptions,
): Promise<Outcome> {
  const { run, baseDir, roots = [rootHere(baseDir)], job } = target;
  const groups = groupsOf(run, flags.minWorkers);
  if (job !== undefined) {
    const overrides = overridesOf(flags);
    return launchLocal({ ...options, ...groups, job: job.path, roots, overrides });
  }
  const folder = await makeJobFolder();
  try {
    return await launchLocal({
      ...options,
      ...groups,
      roots,
      overrides: {},
      job: async () => {
        const { files } = await jobHere(target, options.signal);
        await writeJobForNow(folder, files);
        return folder;
      },
    });
  } finally {
    await removeJobFolder(folder).catch(() => undefined);
  }
}

/** What the command line says in place of the job: a run file's job has it already. */
function overridesOf(flags: TrainFlags): JobOverrides {
  const { steps, seed, excludeBelow } = flags;
  const asked = { steps, seed, excludeBelow, ...keepingOf(flags), ...statedIn(flags) };
  return Object.fromEntries(Object.entries(asked).filter(([, value]) => value !== undefined));
}

async function trainOnHosts(
  target: Target,
  flags: TrainFlags,
  options: Shared & {
    readonly out: string;
    readonly workers: number;
    readonly maxWorkers: number;
    readonly onWorkers: LaunchOptions["onWorkers"];
  },
): Promise<Outcome> {
  const { hosts, tls = false, threads, listen, state } = flags;
  const token = requireToken(flags.token);
  const groups = groupsOf(target.run, flags.minWorkers, options.workers);
  const root = process.cwd();
  const made =
    target.job === undefined
      ? await jobFrom(target, rootFor(flags), options.signal)
      : { files: target.job.files(), head: target.job.head };
  if (made.head.data.holds === undefined) {
    options.onEvent({ type: "notice", text: DATA_NOT_HERE });
  }
  // Without hosts this machine is the first one: it has an agent of its own.
  const own =
    hosts === undefined
      ? await startAgent({
          host: meetingPlace(listen ?? "0").host,
          port: 0,
          token,
          tls,
          folder: root,
          dataRoots: (flags.dataRoot ?? [root]).map((path) => resolve(path)),
          maxWorkers: options.workers,
        })
      : undefined;
  try {
    return await launchOnHosts({
      ...options,
      name: target.run.name,
      job: made.files,
      overrides: target.job === undefined ? {} : overridesOf(flags),
      hosts: hosts ?? [own?.address ?? ""],
      ...(listen === undefined ? {} : { listen: formatAddress(meetingPlace(listen)) }),
      onListening: (address) =>
        options.onEvent({ type: "notice", text: `Machines can join: lockstep join ${address}` }),
      ...groups,
      token,
      tls,
      root,
      threads,
      ...(state === undefined ? {} : { state }),
    });
  } finally {
    await own?.close();
  }
}

/** @throws INVALID_OPTION when options do not fit together */
function checkHosts(flags: TrainFlags, { job }: Target): void {
  const { hosts, listen, dump, tls, dataRoot, state } = flags;
  const isShared = hosts !== undefined || listen !== undefined;
  const refuse = (text: string, hint?: string) => {
    throw new LockstepError("INVALID_OPTION", text, hint === undefined ? {} : { hint });
  };
  if (hosts === undefined && state !== undefined) {
    refuse("--state is for --hosts: workers of this machine end with their launcher.");
  }
  if (!isShared && tls === true) {
    refuse("--tls is for --hosts and --listen: a run on one machine sends nothing.");
  }
  if (!isShared && job === undefined && dataRoot !== undefined) {
    refuse("--data-root is for jobs: the data of a run file may lie anywhere on this machine.");
  }
  if (isShared && dump !== undefined) {
    refuse(
      "--dump is not for --hosts and --listen.",
      "The graphs of the model are in the job: lockstep job FILE --out DIR.",
    );
  }
}

function beginningOf({ resume, anew, change }: TrainFlags): Beginning {
  if (change !== undefined && resume !== true) {
    throw new LockstepError("INVALID_OPTION", "--change is for a resumed run: add --resume.");
  }
  if (resume === true && anew === true) {
    throw new LockstepError(
      "INVALID_OPTION",
      "--resume continues a run and --anew starts it again: give one of them.",
    );
  }
  if (resume === true) return "resume";
  return anew === true ? "anew" : "new";
}

function toAll(...sinks: readonly (EventSink | undefined)[]): EventSink {
  return (event) => {
    for (const sink of sinks) sink?.(event);
  };
}
