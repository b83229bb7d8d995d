/**
 * What a GPU computes and moves in a published run, by operator, as a model's sizes say it: products,
 * attention, and all that is limited by the bandwidth of memory.
 */
import type { Work } from "../src/ops/index.ts";
import type { Published } from "./published.ts";

/** Bytes of an element of 16 bits. */
const HALF = 2;
/** To quantise an element: its largest is found, and it is read again and written in 8 bits. */
const QUANTISED = HALF + HALF + 1;
/** The passes of the backward part, of the forward part's operations and bytes. */
const BACKWARD = 2;
/** FlashAttention computes scores again in its backward part (Dao, 2023): 5 products for 2. */
const FLASH_BACKWARD = 2.5;

/** The forward and the backward part of a micro-batch, with what is computed again in the latter. */
export interface Passes {
  readonly F: readonly Work[];
  readonly B: readonly Work[];
}

/** By matrix of a layer: what goes in and what comes out. */
function matricesOf({ width, keyWidth, hidden, isLlama }: Published["model"]): [number, number][] {
  const up: [number, number][] = isLlama ? [[width, 2 * hidden]] : [[width, hidden]];
  return [[width, width + 2 * keyWidth], [width, width], ...up, [hidden, width]];
}

/** Of a layer, and of the head. */
export function parametersOf(model: Published["model"]) {
  const layer = matricesOf(model).reduce((sum, [from, to]) => sum + from * to, 0);
  return { layer, head: model.width * model.vocabulary };
}

/** Of all layers of one rank's stages. */
export function workOfPasses(published: Published): Passes {
  const { model, tensor, context, pipeline, microBatch, again, isEighth } = published;
  const tokens = (microBatch * published.tokens) / context;
  const layers = model.layers / pipeline;
  const times = (all: readonly Work[], by: number): Work[] =>
    all.map(({ flops, bytes }) => ({ flops: flops * by, bytes: bytes * by }));
  const products = matricesOf(model).flatMap(([from, to]) =>
    productOf(from, to / tensor, tokens, isEighth ? published.hardware.peak : undefined),
  );
  const attention = attentionOf(published, tokens);
  const rest: Work[] = [{ flops: 0, bytes: restOf(published, tokens) }];
  const F = [...products, ...attention, ...rest];
  const B = [
    ...times(products, BACKWARD),
    ...times(attention, published.isFlash ? FLASH_BACKWARD : BACKWARD),
    ...times(rest, BACKWARD),
    ...times(products, again),
    // What is not a product is computed again in any case, but flash keeps what attention makes.
    ...(again === 1 ? attention : []),
    ...(again > 0 ? rest : []),
  ];
  const head = headOf(published, tokens);
  return {
    F: [...times(F, layers), ...times(head, 1 / pipeline)],
    B: [...times(B, layers), ...times(head, BACKWARD / pipeline)],
  };
}

/** A product, with the quantisation of both operands where it is one of 8 bits. */
function productOf(
  from: number,
  to: number,
  tokens: number,
  eighth: Published["hardware"]["peak"] | undefined,
): Work[] {
  const operands = from * to + tokens * from;
  const flops = 2 * tokens * from * to;
  const bytes = HALF * (operands + tokens * to);
  if (eighth === undefined) return [{ flops, bytes }];
  // The speed of a rank is that of products of 16 bits.
  return [
    { flops: (flops * eighth.half) / eighth.eighth, bytes },
    { flops: 0, bytes: QUANTISED * operands },
  ];
}

/**
 * All scores count: a kernel that leaves out those of later tokens computes half of them, at about
 * half of the speed of products (FlashAttention-2 reaches 35% of an H100: Shah et al., 2024).
 */
function attentionOf(published: Published, tokens: number): Work[] {
  const { model, tensor, isFlash } = published;
  const flops = (4 * tokens * published.tokens * model.width) / tensor;
  const values = (tokens * (2 * model.width + 2 * model.keyWidth)) / tensor;
  const products: Work = { flops, bytes: HALF * values };
  if (isFlash) return [products];
  // Scores are written, read and written by softmax, and by dropout with its mask, and read.
  const scores = (tokens * published.tokens * model.heads) / tensor;
  return [products, { flops: 0, bytes: scores * (6 * HALF + 1) }];
}

/** The bytes of a layer between its products: norms, residual connections, activations. */
function restOf({ model, tensor, dividesRest }: Published, tokens: number): number {
  const { width, keyWidth, hidden, isLlama } = model;
  // Two norms read and write; two residual connections read two and write one, with dropout a mask.
  const whole = (2 * 2 + 2 * 3) * width * HALF + (isLlama ? 0 : 2 * width);
  // Rotary embeddings, and a gate; or an activation.
  const divided = isLlama ? 2 * (width + keyWidth) + 3 * hidden : 2 * hidden;
  return tokens * (whole / (dividesRest ? tensor : 1) + (divided * HALF) / tensor);
}

/** The head and the loss, in 32 bits: logits are converted, read for their largest and their sum. */
function headOf({ model, tensor }: Published, tokens: number): Work[] {
  const logits = (tokens * model.vocabulary) / tensor;
  const [product] = productOf(model.width, model.vocabulary / tensor, tokens, undefined);
  return [product as Work, { flops: 0, bytes: logits * (HALF + 4 + 4) }];
}
