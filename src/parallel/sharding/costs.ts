/** What dividing a graph costs: seconds of a rank, for computing and for conversions. */
import { type Division, type Graph, type Node, typeOf } from "../../graph/index.ts";
import { type AxisPlacement, isShard } from "../../mesh/index.ts";
import { flopsOfNode } from "../../ops/index.ts";
import { byteLength } from "../../tensor/index.ts";
import { stepsBetween } from "./convert.ts";

/** What a rank can do. */
export interface RankSpeed {
  readonly flopsPerSecond: number;
  /** Of memory, read and written. */
  readonly bytesPerSecond: number;
  /** Between ranks of the axis: of one exchange, with the pieces before and behind it. */
  readonly link: { readonly latency: number; readonly bytesPerSecond: number };
}

/** A part that is taken of something that is there is one more small node. */
const NODE_SECONDS = 5e-6;

/** The seconds of a conversion of a value of so many bytes, whole. */
export function secondsOfConversion(
  bytes: number,
  from: AxisPlacement | undefined,
  to: AxisPlacement | undefined,
  ranks: number,
  { bytesPerSecond, link }: RankSpeed,
): number {
  const part = bytes / ranks;
  const moved = (own: number) => link.latency + own / link.bytesPerSecond;
  return stepsBetween(from, to).reduce((sum, step) => {
    switch (step) {
      // Each rank reads what all others have of the value.
      case "all-reduce":
        return sum + moved(bytes * ranks);
      case "reduce-scatter":
      case "all-gather":
      // It sends nothing, but is what a sum is sent for behind it.
      case "among zeros":
        return sum + moved(bytes);
      case "all-to-all":
        return sum + moved(part);
      case "own part":
        return sum + NODE_SECONDS + (2 * part) / bytesPerSecond;
      case "on first":
        return sum + NODE_SECONDS + (2 * bytes) / bytesPerSecond;
    }
  }, 0);
}

/** The seconds that a rank computes for a node that is divided in this way. */
export function secondsOfNode(
  graph: Graph,
  node: Node,
  { inputs, outputs, exchanged }: Division,
  ranks: number,
  { flopsPerSecond, bytesPerSecond, link }: RankSpeed,
): number {
  const flops = flopsOfNode(graph, node);
  const isDivided = [...inputs, ...outputs].some(isShard);
  const held = (name: string, on: AxisPlacement | undefined) =>
    name === "" ? 0 : byteLength(typeOf(graph, name)) / (isShard(on) ? ranks : 1);
  const read = node.inputs.reduce((sum, name, at) => sum + held(name, inputs[at]), 0);
  const made = node.outputs.reduce((sum, name, at) => sum + held(name, outputs[at]), 0);
  const sent = exchanged === undefined ? 0 : 2 * link.latency + exchanged / link.bytesPerSecond;
  return flops / flopsPerSecond / (isDivided ? ranks : 1) + (read + made) / bytesPerSecond + sent;
}
