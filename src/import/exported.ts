/**
 * Reads what PyTorch's newer exporter (`torch.onnx.export(dynamo=True)`) records of the program
 * that a file came from: the graph's signature (which weights are parameters, which buffers) and,
 * for each node, the operation that it was made for.
 */
import type { RawEntry, RawGraph, RawNode } from "../onnx/index.ts";

/**
 * An input of the exported program that is a weight: its name there, and its name in the state dict
 * of the module.
 */
export interface Placeholder {
  readonly name: string;
  readonly kind: "parameter" | "buffer" | "constant";
  readonly target: string;
}

/**
 * The operation of the exported program that a node was made for: `%linear = aten.linear(%x,
 * %p_0_weight, %p_0_bias)`.
 */
export interface Operation {
  /** The name of its result: `linear`. */
  readonly name: string;
  /** The operator without namespace and overload: `linear`. */
  readonly operator: string;
  /** The names of the values that it reads, in order. */
  readonly reads: readonly string[];
  /** All arguments, as text: `%p_0_weight, %ids, 1`. */
  readonly args: string;
  /** The path of the module that it belongs to: `encoder.layer.0`; empty for the model itself. */
  readonly module: string;
  /** The lines of source that led to it, if the file has them. */
  readonly trace: string;
}

const KINDS: Readonly<Record<string, Placeholder["kind"]>> = {
  PARAMETER: "parameter",
  BUFFER: "buffer",
  CONSTANT_TENSOR: "constant",
};

/**
 * The weights of the exported program, by their names in it; undefined for files of other
 * exporters.
 */
export function signatureOf(graph: RawGraph): ReadonlyMap<string, Placeholder> | undefined {
  const text = metadata(graph, "pkg.torch.export.ExportedProgram.graph_signature");
  if (text === undefined) return undefined;
  const found = new Map<string, Placeholder>();
  const add = (name = "", kind = "", target = "") => {
    const known = KINDS[kind];
    if (known !== undefined) found.set(name, { name, kind: known, target });
  };
  for (const [, name, kind, target] of text.matchAll(/^(\w+): (\w+) target='([^'\n]*)'/gm)) {
    add(name, kind, target);
  }
  // This is the form that versions before 2.7 print.
  const older = /InputKind\.(\w+): \d+>, arg=TensorArgument\(name='(\w+)'\), target='([^'\n]*)'/g;
  for (const [, kind, name, target] of text.matchAll(older)) add(name, kind, target);
  return found;
}

/**
 * The buffers that the module itself replaces when it runs, by their names in its state dict. The
 * graph of the file computes at most what they are replaced by.
 */
export function replacedBuffers(graph: RawGraph): readonly string[] {
  const text = metadata(graph, "pkg.torch.export.ExportedProgram.graph_signature") ?? "";
  // The second form is that of versions before 2.7.
  const forms =
    /^\w+: BUFFER_MUTATION target='([^'\n]*)'|OutputKind\.BUFFER_MUTATION: \d+>, arg=TensorArgument\(name='\w+'\), target='([^'\n]*)'/gm;
  return [...text.matchAll(forms)].map(([, target, older]) => target ?? older ?? "");
}

/** The operation that a node was made for; undefined if the file does not say. */
export function operationOf(node: RawNode): Operation | undefined {
  const text = metadata(node, "pkg.torch.onnx.fx_node");
  const [, name, target = "", args = ""] =
    /^%(\w+) :.*?call_function\[target=([^\]]*)\]\((.*)$/s.exec(text ?? "") ?? [];
  if (name === undefined) return undefined;
  const scopes = metadata(node, "pkg.torch.onnx.name_scopes") ?? "";
  const path = [...scopes.matchAll(/'([^']*)'/g)].map(([, scope = ""]) => scope);
  return {
    name,
    operator: /^torch\.ops\.\w+\.(\w+)/.exec(target)?.[1] ?? target,
    reads: [...args.matchAll(/%(\w+)/g)].map(([, read = ""]) => read),
    args: /^args = \((.*)\), kwargs/s.exec(args)?.[1] ?? "",
    module: path.at(-2) ?? "",
    trace: metadata(node, "pkg.torch.onnx.stack_trace") ?? "",
  };
}

function metadata(from: { metadataProps: RawEntry[] }, key: string): string | undefined {
  return from.metadataProps.find((entry) => entry.key === key)?.value;
}
