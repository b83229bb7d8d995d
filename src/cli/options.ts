/**
 * The commands and their options. Each command has its own file; this one defines their names.
 */
import { Command } from "commander";
import { DEFAULT_KINDS, KIND_HELP } from "../chaos/index.ts";
import { version } from "../package.ts";
import { DEFAULT_AGENT_PORT } from "../protocol/index.ts";
import { CHANGEABLE } from "../run/index.ts";
import { agentCommand, joinCommand } from "./agent.ts";
import { chaosCommand } from "./chaos.ts";
import { addLauncher } from "./chaos-launcher.ts";
import { checkpointsCommand } from "./checkpoints.ts";
import { exportCommand } from "./export.ts";
import { inspectCommand } from "./inspect.ts";
import { jobCommand } from "./job.ts";
import { planCommand } from "./plan.ts";
import { resumeCommand } from "./resume.ts";
import { sampleCommand } from "./sample.ts";
import {
  dataRoot,
  fewest,
  maxJob,
  most,
  tls,
  token,
  withRun,
  withSharing,
} from "./shared-options.ts";
import type { TrainFlags } from "./target.ts";
import { trainCommand } from "./train.ts";
import { changes, duration, fraction, memory, names, ports, whole, workers } from "./values.ts";

const DIR = "the folder of a run, or the place of its checkpoints, as s3://bucket/prefix";

/**
 * Throws CommanderError for words that it does not understand, and for `--help` after printing the
 * help.
 */
export function commandLine(): Command {
  const command = new Command("lockstep")
    .description(
      "Distributed training for TypeScript: any ONNX model, trained in step on any machines.",
    )
    .version(version())
    .exitOverride()
    .configureOutput({ outputError: () => undefined });
  withRun(command.command("train"))
    .description("train the run that a TypeScript module exports, or a job")
    .option(
      "--workers <n>",
      "processes that share each step, or `cores` for one per core (default: 1); with --hosts, on each host",
      workers,
    )
    .addOption(fewest())
    .addOption(most())
    .option(
      "--hosts <list>",
      "agents to run on: a,b:4100 … Each needs the data below its --data-root. The run is sent to them as a job, and the first one writes the run's folder",
      names,
    )
    .option(
      "--listen <[host:]port>",
      "wait at this address of this machine for others that `lockstep join` the run",
    )
    .option(
      "--state <place>",
      "with --hosts: keep in this folder, or at etcd://HOST:PORT/NAME, what another launcher needs to go on with the run. The workers go on without a launcher for five minutes; the same command, typed anew here or on another machine that reaches the place, takes them over",
    )
    .addOption(token())
    .addOption(tls())
    .action((file: string, flags: TrainFlags) => trainCommand(file, flags));
  addLauncher(command);
  withRun(command.command("chaos"))
    .description(
      "train like `lockstep train`, and do faults to the run's own workers and its launcher",
    )
    .option("--workers <n>", "processes (default: 4); with --hosts, on each host", whole(1))
    .addOption(fewest())
    .addOption(most())
    .option("--every <time>", "mean time between two faults, as in 5s or 500ms", duration, 5000)
    .option("--kinds <list>", "faults to choose from (see below)", names, DEFAULT_KINDS)
    .option("--faults <n>", "most faults (default: no limit)", whole(1))
    .option("--chaos-seed <n>", "seed of the faults (default: drawn, and printed)", whole(0))
    .option("--hosts <list>", "agents to run on, as for `lockstep train`", names)
    .addOption(token())
    .addOption(tls())
    .option("--replay <file>", "do the faults of this chaos.jsonl, each after the same step")
    .addHelpText("after", KIND_HELP)
    .action(chaosCommand);
  withSharing(command.command("resume"))
    .description("continue the run of a folder: the command that started it, with --resume")
    .argument("<dir>", DIR)
    .option("--steps <n>", "optimizer steps, with --change steps", whole(1))
    .option("--workers <n>", "processes that share each step, or `cores`", workers)
    .addOption(fewest())
    .addOption(most())
    .option("--threads <n>", "threads of each worker", whole(1))
    .option(
      "--change <names>",
      `options that may differ from before: ${CHANGEABLE.join(", ")}`,
      changes,
    )
    .addOption(token())
    .action(resumeCommand);
  command
    .command("checkpoints")
    .description("list the checkpoints of a run, check that they are whole, or compare two")
    .argument("<dir>", DIR)
    .option("--verify", "read every shard and compare it with its hash")
    .option("--diff <steps...>", "compare the checkpoints of two steps, as in --diff 100 200")
    .action(checkpointsCommand);
  command
    .command("export")
    .description("write the model of a checkpoint, as the run itself does at its end")
    .argument("<dir>", DIR)
    .requiredOption("--to <file>", "model.onnx, or model.safetensors for Hugging Face tools")
    .option(
      "--step <n>",
      "the step of the checkpoint (default: the newest that is whole)",
      whole(1),
    )
    .option("--run <file>", "the run file or job of the run, if the folder does not record it")
    .action(exportCommand);
  command
    .command("job")
    .description("write the run of a TypeScript module as a job: data that any lockstep can train")
    .argument("<file>", "a module with: export default defineRun({…})")
    .requiredOption("--out <dir>", "the folder of the job")
    .option("--steps <n>", "optimizer steps", whole(1))
    .option("--batch <n>", "samples of a step", whole(1))
    .option("--seed <n>", "seed of weights, sample order and dropout", whole(0))
    .option("--data <glob...>", "text files or folders to train on, instead of the run's data")
    .addOption(dataRoot("folder that the job names its data relative to"))
    .action(jobCommand);
  command
    .command("agent")
    .description(
      "take jobs of `lockstep train --hosts`: data, never code. Runs are written below the current folder",
    )
    .option(
      "--listen <[host:]port>",
      "address of this machine for the agent and its workers; without a host, only this machine reaches it",
      String(DEFAULT_AGENT_PORT),
    )
    .option(
      "--ports <first-last>",
      "ports that the workers of this machine listen on, one for each worker, to be opened in a firewall (default: any)",
      ports,
    )
    .addOption(token())
    .addOption(tls())
    .addOption(dataRoot("folder below which jobs may read data"))
    .option(
      "--max-workers <n>",
      "workers that a job may start here (default: 4 per core)",
      whole(1),
    )
    .addOption(maxJob())
    .action(agentCommand);
  command
    .command("join")
    .description("let this machine take part in a run that listens (`lockstep train --listen`)")
    .argument("<host:port>", "where the launcher of the run listens")
    .option("--workers <n>", "workers of this machine (default: one for each core)", whole(1))
    .option("--folder <dir>", "folder that runs are written below (default: the current one)")
    .option(
      "--host <address>",
      "address of this machine that its workers listen at (default: the one that the launcher is reached from)",
    )
    .option("--ports <first-last>", "ports that its workers listen on (default: any)", ports)
    .addOption(token())
    .addOption(tls())
    .addOption(dataRoot("folder below which jobs may read data"))
    .addOption(maxJob())
    .action(joinCommand);
  command
    .command("inspect")
    .description("describe an .onnx file: operators, parameters, flops, missing gradients")
    .argument("<model>", "a .onnx file")
    .option("--json", "as one JSON object")
    .action(inspectCommand);
  withSharing(command.command("plan"))
    .description("show what each worker of a run would do in a step: stages, memory, traffic")
    .argument("<file>", "a module with: export default defineRun({…}), or the folder of a job")
    .option("--workers <n>", "workers that share each step", whole(1), 2)
    .option("--rank <n>", "rank of the worker to show", whole(0), 0)
    .option("--machines <n>", "machines that the workers are on, equally many on each", whole(1), 1)
    .option(
      "--bucket <bytes>",
      "bytes of gradients that travel together between machines (default: from bandwidth and latency)",
      whole(1),
    )
    .option(
      "--memory <size>",
      "that each worker may have, as in 8GB (default: its part of this machine's; with --machines: no limit)",
      memory,
    )
    .option("--gflops <x>", "billion operations per second of one worker", fraction, 80)
    .option("--bandwidth <x>", "bandwidth of a collective, in GB/s", fraction, 1)
    .option("--latency <x>", "latency of a collective, in microseconds", fraction, 100)
    .option(
      "--links <file>",
      "JSON with measured speeds, in place of the three above (docs/auto.md): of a worker, and between workers within and between machines",
    )
    .option("--json", "the step of all workers and the program of this one, as one JSON object")
    .option(
      "--to <file>",
      "write how workers divide the model as an .onnx file with multi-device annotations, which Netron shows and `withDevices` follows",
    )
    .action(planCommand);
  command
    .command("sample")
    .description("generate text with a trained model")
    .argument("<dir>", "the folder of a run")
    .option("--prompt <text>", "beginning of the text", "")
    .option("--tokens <n>", "number of tokens to generate", whole(1), 300)
    .option("--temperature <x>", "randomness; 0 always takes the most likely token", fraction, 0.8)
    .option("--seed <n>", "seed; each gives another text for the same prompt", whole(0), 1)
    .option("--threads <n>", "threads (default: all cores)", whole(1))
    .action(sampleCommand);
  return command;
}
