/**
 * Generates text with a language model, token by token. Sampling is a graph too: the Gumbel trick,
 * then ArgMax.
 */
import type { TokenDecoder, Tokenizer } from "../data/index.ts";
import type { Binding, Device, HostTensor } from "../engine/index.ts";
import { LockstepError } from "../errors.ts";
import {
  add,
  cast,
  gather,
  log,
  maximum,
  mul,
  neg,
  reshape,
  uniform,
} from "../functional/index.ts";
import { type Graph, typeOf } from "../graph/index.ts";
import { extendGraph } from "../ops/index.ts";
import { byteLength, tensorFrom } from "../tensor/index.ts";

export interface GenerateOptions {
  readonly engine: Device;
  /** Takes ids int32 (1, context); its first output is logits (1, context, vocabulary). */
  readonly graph: Graph;
  readonly tokenizer: Tokenizer;
  readonly prompt: string;
  /** The number of tokens to generate. */
  readonly tokens: number;
  /** Scales randomness: 0 takes the most likely token. Default: 0.8. */
  readonly temperature?: number;
  readonly seed?: number;
}

/** Yields the prompt, then pieces of text as soon as their last byte is there. */
export async function* generateText(options: GenerateOptions): AsyncGenerator<string> {
  const { engine, tokenizer, prompt, tokens, temperature = 0.8, seed = 1 } = options;
  const sampler = await openSampler(engine, options.graph);
  try {
    const context = sampler.context;
    const decoder: TokenDecoder = tokenizer.decoder();
    const history = [tokenizer.separator, ...tokenizer.encode(prompt)];
    yield prompt;
    for (let made = 0; made < tokens; made++) {
      const seen = history.slice(-context);
      const token = await sampler.next(seen, temperature, seed + made);
      history.push(token);
      const piece = decoder.push(token);
      if (piece !== "") yield piece;
    }
    yield decoder.end();
  } finally {
    sampler.close();
  }
}

interface Sampler {
  readonly context: number;
  next(seen: readonly number[], temperature: number, key: number): Promise<number>;
  close(): void;
}

async function openSampler(engine: Device, forward: Graph): Promise<Sampler> {
  const graph = samplingGraph(forward);
  const executable = await engine.compile(graph);
  const places = new Map<string, HostTensor>();
  for (const name of [...graph.inputs, ...graph.outputs]) {
    const type = typeOf(graph, name);
    places.set(name, engine.allocateHost(Math.max(64, byteLength(type))).tensor(type));
  }
  const pick = (names: readonly string[]) =>
    Object.fromEntries(names.map((name) => [name, places.get(name) as HostTensor]));
  const binding: Binding = executable.bind({
    inputs: pick(graph.inputs),
    outputs: pick(graph.outputs),
  });
  const write = (name: string, numbers: readonly number[]) => {
    const place = places.get(name) as HostTensor;
    place.bytes.set(tensorFrom(place.dtype, [numbers.length], numbers).bytes);
  };
  const ids = graph.inputs[0] as string;
  const context = typeOf(graph, ids).shape[1] as number;
  return {
    context,
    async next(seen, temperature, key) {
      write(ids, [...seen, ...new Array<number>(context - seen.length).fill(0)]);
      write("position", [seen.length - 1]);
      write("temperature", [temperature]);
      write("key", [key]);
      await binding.run();
      const { bytes } = places.get(graph.outputs[0] as string) as HostTensor;
      return new DataView(bytes.buffer, bytes.byteOffset).getInt32(0, true);
    },
    close() {
      binding.close();
      executable.close();
      for (const place of places.values()) place.buffer.close();
    },
  };
}

/**
 * Adds sampling to a forward graph: the logits at one position, plus Gumbel noise times the
 * temperature, then ArgMax.
 */
export function samplingGraph(forward: Graph): Graph {
  const builder = extendGraph(forward);
  const [output = ""] = forward.outputs;
  const logits = builder.value(output);
  const [batch, context, vocabulary] = logits.shape;
  if (forward.inputs.length !== 1 || logits.shape.length !== 3 || batch !== 1) {
    throw new LockstepError(
      "INVALID_OPTION",
      `Model "${forward.name}" cannot generate text: it must take ids (1, context) and give logits (1, context, vocabulary).`,
      { hint: "Sample from the run of a gpt model." },
    );
  }
  const position = builder.input("position", { dtype: "int32", shape: [1] });
  const temperature = builder.input("temperature", { dtype: logits.dtype, shape: [1] });
  const key = builder.input("key", { dtype: "int32", shape: [1] });
  const rows = reshape(logits, [context as number, vocabulary as number]);
  const row = reshape(gather(rows, position), [vocabulary as number]);
  const noise = maximum(uniform(builder, [vocabulary as number], key), 1e-20);
  const gumbel = neg(log(maximum(neg(log(noise)), 1e-20)));
  // This makes the same choice as row / temperature + gumbel, and takes the most likely token at
  // temperature 0.
  const scores = add(row, mul(cast(gumbel, logits.dtype), temperature));
  const token = builder.one("ArgMax", [scores], { axis: 0, keepdims: 0 });
  return builder.build([cast(token, "int32")]);
}
