/**
 * Resolves the names of a file: there is one scope for the model's graph, and one for each inlined
 * branch or function.
 */
import { LockstepError } from "../errors.ts";
import type { Attributes, AttributeValue, Value } from "../graph/index.ts";
import type { OnnxFile } from "../onnx/index.ts";
import {
  ATTRIBUTE_TYPES,
  type RawAttribute,
  type RawGraph,
  type RawOpsetId,
} from "../onnx/index.ts";

export class Scope {
  readonly file: OnnxFile;
  /** The prefix of the names of nodes and values; empty for the model's own graph. */
  readonly prefix: string;
  /** The number of functions and branches around this one. */
  readonly depth: number;
  readonly #opsets: ReadonlyMap<string, number>;
  readonly #parent: Scope | undefined;
  readonly #values = new Map<string, Value>();
  readonly #failures = new Map<string, LockstepError>();
  readonly #bindings: ReadonlyMap<string, RawAttribute>;

  constructor(options: {
    readonly file: OnnxFile;
    readonly opsets: readonly RawOpsetId[];
    readonly prefix?: string;
    /** The enclosing scope, whose values it sees. */
    readonly parent?: Scope;
    readonly depth?: number;
    /** The values of a function's attributes. */
    readonly bindings?: ReadonlyMap<string, RawAttribute>;
  }) {
    this.file = options.file;
    this.prefix = options.prefix ?? "";
    this.depth = options.depth ?? 0;
    this.#parent = options.parent;
    this.#bindings = options.bindings ?? new Map();
    this.#opsets = new Map(options.opsets.map((id) => [domainOf(id.domain), id.version]));
  }

  /** A scope for a branch: it sees these values, and the same operators. */
  branch(prefix: string): Scope {
    return new Scope({
      file: this.file,
      opsets: [...this.#opsets].map(([domain, version]) => ({ domain, version })),
      prefix,
      parent: this,
      depth: this.depth + 1,
      bindings: this.#bindings,
    });
  }

  opset(domain: string): number | undefined {
    return this.#opsets.get(domainOf(domain));
  }

  define(name: string, value: Value): void {
    this.#values.set(name, value);
  }

  /** Records why nothing provides this value: whoever needs it gets this error. */
  fail(name: string, reason: LockstepError): void {
    this.#failures.set(name, reason);
  }

  /** Throws the error of the node that should have provided the value. */
  find(name: string): Value | undefined {
    const reason = this.#failures.get(name);
    if (reason !== undefined) throw reason;
    return this.#values.get(name) ?? this.#parent?.find(name);
  }

  /**
   * Attributes by name, in which references to a function's attributes are resolved; subgraphs are
   * separate.
   */
  attributes(
    raw: readonly RawAttribute[],
    where: string,
  ): { attributes: Attributes; graphs: ReadonlyMap<string, RawGraph> } {
    const attributes: Record<string, AttributeValue> = {};
    const graphs = new Map<string, RawGraph>();
    for (const own of raw) {
      const bound = this.bound(own);
      if (bound === undefined) continue;
      if (bound.g !== undefined) graphs.set(own.name, bound.g);
      else attributes[own.name] = this.#value(bound, `${where}: attribute "${own.name}"`);
    }
    return { attributes, graphs };
  }

  /**
   * The attribute itself, or the one that it refers to; undefined if the caller of the function
   * omitted that.
   */
  bound(raw: RawAttribute): RawAttribute | undefined {
    return raw.refAttrName === "" ? raw : this.#bindings.get(raw.refAttrName);
  }

  #value(raw: RawAttribute, where: string): AttributeValue {
    switch (raw.type) {
      case ATTRIBUTE_TYPES.float:
        return { kind: "float", value: raw.f ?? 0 };
      case ATTRIBUTE_TYPES.int:
        return { kind: "int", value: raw.i ?? 0 };
      case ATTRIBUTE_TYPES.string:
        return { kind: "string", value: utf8.decode(raw.s) };
      case ATTRIBUTE_TYPES.floats:
        return { kind: "floats", value: raw.floats };
      case ATTRIBUTE_TYPES.ints:
        return { kind: "ints", value: raw.ints };
      case ATTRIBUTE_TYPES.strings:
        return { kind: "strings", value: raw.strings.map((bytes) => utf8.decode(bytes)) };
      case ATTRIBUTE_TYPES.tensor:
        if (raw.t !== undefined) return { kind: "tensor", value: this.file.tensor(raw.t) };
        break;
    }
    throw new LockstepError("ONNX_UNSUPPORTED", `${where} is of a kind that is not supported.`, {
      fields: { file: this.file.name, kind: raw.type },
    });
  }
}

const utf8 = new TextDecoder();

/** ONNX's own operators have the empty domain. */
export function domainOf(domain: string): string {
  return domain === "ai.onnx" ? "" : domain;
}
