/** The options that say how workers share a step. */
import { Option } from "commander";
import { again, offload, parallel, yesOrNo, zero } from "./values.ts";

export function sharing(): [Option, Option, Option, Option, Option] {
  return [
    new Option(
      "--parallel <axes>",
      "how workers share a step, as in data=2,shard=4: data holds the whole model, shard shares it out (default: by predicted memory and time)",
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
  ];
}
