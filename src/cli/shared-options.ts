/** Options that several commands have. */
import { type Command, Option } from "commander";
import { DEFAULT_SCHEDULE, SCHEDULES } from "../plan/index.ts";
import { CHANGEABLE } from "../run/index.ts";
import {
  again,
  attention,
  changes,
  offload,
  parallel,
  part,
  place,
  timetable,
  whole,
  yesOrNo,
  zero,
} from "./values.ts";

/** How workers share a step. */
export function withSharing(command: Command): Command {
  const options = [
    new Option(
      "--parallel <axes>",
      "how workers share a step, as in data=2,shard=4: data holds the whole model, shard shares out its state, tensor divides its matrices, context its sequences, expert its experts, pipeline its layers (default: auto, by predicted memory and time)",
    ).argParser(parallel),
    new Option(
      "--zero <stage>",
      "what workers share: optimizer state (1), gradients too (2), parameters too (3)",
    ).argParser(zero),
    new Option(
      "--recompute <how>",
      "recompute activations in the backward pass: of all blocks, or of as few as let those of a micro-batch fit, as in 2GB",
    ).argParser(again),
    new Option(
      "--offload <where>",
      "disk: keep the optimizer's state in files of the run folder's disk, and with --zero 3 the parameters, too: less memory, slower",
    ).argParser(offload),
    new Option(
      "--buddies <word>",
      "no: what is sharded over several machines has no copy on another machine, and is lost with its own (default: yes)",
    ).argParser(yesOrNo),
    new Option(
      "--timetable <name>",
      `which stages the workers of a pipeline have, and in which order they compute parts of micro-batches: ${SCHEDULES.join(", ")} (interleaved-3: three stages a worker; zb-h1+2: workers are two micro-batches further ahead, and wait less for slow ones), or a file with a timetable, as "lockstep plan" prints it (default: ${DEFAULT_SCHEDULE})`,
    ).argParser(timetable),
    new Option(
      "--attention <way>",
      "ring: with --parallel context=N, keys and values of attention go round the workers, so that no worker has all of them (default: auto, by heads or by queries, whatever is predicted to be faster)",
    ).argParser(attention),
  ];
  for (const option of options) command.addOption(option);
  return command;
}

/** The options of a run, wherever its workers are. */
export function withRun(command: Command): Command {
  return withSharing(command)
    .argument("<file>", "a module with: export default defineRun({…}), or the folder of a job")
    .option("--steps <n>", "optimizer steps", whole(1))
    .option("--batch <n>", "samples of a step", whole(1))
    .option("--threads <n>", "threads of each worker (default: all cores, divided)", whole(1))
    .option("--seed <n>", "seed of weights, sample order and dropout", whole(0))
    .option("--out <dir>", "folder that the run is written to (default: runs/NAME)")
    .option("--data <glob...>", "text files or folders to train on, instead of the run's data")
    .addOption(dataRoot("folder below which the data of a job lies"))
    .option(
      "--exclude-below <part>",
      "a worker leaves the run if its speed stays below this part of that of the others, as in 0.3 (default: 0, none does)",
      part,
    )
    .option(
      "--checkpoint-every <n>",
      "steps between checkpoints (default: a tenth of the run)",
      whole(1),
    )
    .option("--keep-last <n>", "how many of the newest checkpoints are kept (default: 2)", whole(1))
    .option(
      "--keep-every <n>",
      "checkpoints whose step is a multiple of it are kept for good (default: none)",
      whole(1),
    )
    .option(
      "--checkpoints <place>",
      "keep checkpoints in s3://bucket/prefix, with the prefix for this run alone (default: in the run's folder)",
      place,
    )
    .option("--resume", "continue from the run's last checkpoint")
    .option(
      "--change <names>",
      `with --resume: options that may differ from before: ${CHANGEABLE.join(", ")}`,
      changes,
    )
    .option("--anew", "start again where an unfinished run lies; its files are moved aside")
    .option("--dump <dir>", "write every compiled graph to this folder as .onnx files");
}

export function token(): Option {
  return new Option(
    "--token <secret>",
    "the same secret for all, 16 characters or more; other users can read it on the command line, but not in the environment",
  ).env("LOCKSTEP_TOKEN");
}

export function dataRoot(what: string): Option {
  return new Option(
    "--data-root <dir...>",
    `${what}, after following links (default: the current one)`,
  );
}

export function maxJob(): Option {
  return new Option(
    "--max-job <n>",
    "limit of the files of a job, in MiB (default: 1024)",
  ).argParser(whole(1));
}

export function fewest(): Option {
  const text = "with fewer workers the run waits (default: 1)";
  return new Option("--min-workers <n>", text).argParser(whole(1));
}

export function most(): Option {
  return new Option(
    "--max-workers <n>",
    "workers beyond this number stand by, ready to take the place of one that is lost (default: as many as the run starts with; with --listen, as many as a step can be shared by)",
  ).argParser(whole(1));
}

export function tls(): Option {
  return new Option(
    "--tls",
    "encrypt the traffic with a key derived from the token; the same on all",
  );
}
