/** The end of a run: exports, compares with other models of text, generates a sample, reports. */
import type { History, Report } from "../telemetry/index.ts";
import { baselines } from "./baselines.ts";
import { exportModel, trainedGraph } from "./export.ts";
import { engineName, parameterCount, tokensPerSample } from "./figures.ts";
import { checkpointsName, FILES, saveReport } from "./folder.ts";
import { generateText } from "./generate.ts";
import { notesOf } from "./notes.ts";
import type { Session } from "./session.ts";
import { unlessAborted } from "./unless-aborted.ts";

/** For workers that do not come and go. */
const NOTHING_HAPPENED: History = {
  workersLost: 0,
  workersJoined: 0,
  generations: 1,
  stepsRepeated: 0,
  recoverySeconds: [],
};

export interface Results {
  readonly trainLoss: number;
  readonly validationLoss: number | undefined;
  readonly seconds: number;
}

/** @throws the signal's reason when a stop is asked for; a resumed run then continues here */
export async function finish(session: Session, results: Results): Promise<Report> {
  const { run, options, model, data, exporting } = session;
  const { folder, engine, signal, onEvent } = options;
  const { trainLoss, validationLoss, seconds } = results;
  const exported = await exportModel(session);
  signal.throwIfAborted();
  const bitsPerByte = await unlessAborted(baselines(data, validationLoss), signal);
  signal.throwIfAborted();
  const sample = await sampleText(session);
  const { samplesCommitted: samples, samplesRepeated } = session.samples.ledger;
  const tokens = tokensPerSample(model, data);
  const report: Report = {
    name: run.name,
    steps: run.steps,
    samples,
    trainLoss,
    validationLoss: validationLoss ?? null,
    tokensPerSecond: tokens === undefined ? null : (samples * tokens) / seconds,
    samplesPerSecond: samples / seconds,
    parameters: parameterCount(model),
    seconds,
    seed: run.seed,
    weightsSha256: exported.weightsSha256,
    engine: engineName(engine),
    workers: session.ranks?.group.size ?? 1,
    threads: engine.threads,
    batch: run.batch,
    bitsPerByte: bitsPerByte ?? null,
    sample: sample ?? null,
    modelBatch: exporting?.batch ?? "any",
    notes: notesOf(session),
    history: {
      ...(options.members?.history() ?? NOTHING_HAPPENED),
      samplesCommitted: samples,
      samplesRepeated,
    },
  };
  await saveReport(folder, report);
  const files = [...exported.files, checkpointsName(folder), FILES.metrics, FILES.report];
  onEvent({ type: "finished", report, files, out: folder.path });
  return report;
}

/** Generates a sample with a model of text; undefined for other models. */
async function sampleText({ run, options, data, trainer }: Session): Promise<string | undefined> {
  if (data.text === undefined || run.sample === undefined) return undefined;
  const { prompt = "", tokens = 300 } = run.sample;
  const pieces: string[] = [];
  for await (const piece of generateText({
    engine: options.engine,
    graph: await trainedGraph(run, trainer, 1),
    tokenizer: data.text.tokenizer,
    prompt,
    tokens,
    seed: run.seed,
  })) {
    options.signal.throwIfAborted();
    pieces.push(piece);
  }
  return pieces.join("");
}
