/** `lockstep sample DIR --prompt TEXT`. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { tokenizerFromJson } from "../data/index.ts";
import { createOrtEngine } from "../engine/index.ts";
import { LockstepError } from "../errors.ts";
import { readFileWhole } from "../files/index.ts";
import { importGraph } from "../import/index.ts";
import { availableCores } from "../launch/index.ts";
import { readModel } from "../onnx/index.ts";
import { FILES, generateText } from "../run/index.ts";
import { printable } from "../telemetry/index.ts";

export interface SampleFlags {
  readonly prompt: string;
  readonly tokens: number;
  readonly temperature: number;
  readonly seed: number;
  readonly threads?: number;
}

export async function sampleCommand(dir: string, flags: SampleFlags): Promise<void> {
  const [model, tokenizer] = [join(dir, FILES.model), join(dir, FILES.tokenizer)];
  for (const path of [model, tokenizer]) {
    if (existsSync(path)) continue;
    throw new LockstepError("FILE_NOT_FOUND", `There is no file "${path}".`, {
      hint: "Name the folder of a finished or stopped run of a language model, such as runs/gpt.",
    });
  }
  const { graph } = importGraph(readModel(model), { dims: { batch: 1 } });
  const engine = createOrtEngine({ threads: flags.threads ?? availableCores() });
  let isHeard = true;
  process.stdout.once("error", () => {
    isHeard = false;
  });
  try {
    const { prompt, tokens, temperature, seed } = flags;
    const json = new TextDecoder().decode(await readFileWhole(tokenizer));
    for await (const piece of generateText({
      engine,
      graph,
      tokenizer: tokenizerFromJson(json, tokenizer),
      prompt,
      tokens,
      temperature,
      seed,
    })) {
      if (!isHeard) break; // as in `lockstep sample … | head`
      process.stdout.write(process.stdout.isTTY ? printable(piece) : piece);
    }
    process.stdout.write("\n");
  } finally {
    await engine.close();
  }
}
