/** Functions of a file: how they are found, and what becomes of inputs that a caller leaves out. */
import type { Value } from "../../graph/index.ts";
import type { RawFunction, RawNode } from "../schema.ts";
import { domainOf } from "./scope.ts";

/** The body of a function, with the inputs that its caller left out as the empty name. */
export function withoutAbsent(
  body: RawFunction,
  inputs: readonly (Value | undefined)[],
): readonly RawNode[] {
  const absent = new Set(body.input.filter((_, index) => inputs[index] === undefined));
  if (absent.size === 0) return body.node;
  return body.node.map((node) => ({
    ...node,
    input: node.input.map((input) => (absent.has(input) ? "" : input)),
  }));
}

export function functionKey(domain: string, name: string, overload: string): string {
  return `${domainOf(domain)}::${name}::${overload}`;
}
