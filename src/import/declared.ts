/**
 * Parameters as their owner lists them, from the module itself: their names, which are trained, and
 * which are the same tensor. The list decides; weights of the file are found by name, or by their
 * values if the list has those.
 */
import { readFileSync } from "node:fs";
import { LockstepError } from "../errors.ts";
import { fileError } from "../files/index.ts";
import type { OnnxFile, RawTensor } from "../onnx/index.ts";
import { parseSafetensors } from "../safetensors/index.ts";
import { isFloat, type Tensor } from "../tensor/index.ts";
import { GraphEdit } from "./edit.ts";
import { areTransposed, sameBytes } from "./same.ts";
import { type Read, readsOf, type Weight, type WeightPlan } from "./weights.ts";

/** A parameter of the module that a file was exported from. */
export interface DeclaredParameter {
  /** The name in the module's state dict. */
  readonly name: string;
  /** Whether it is trained. Default: true. */
  readonly requiresGrad?: boolean;
  /** The name of another parameter that shares its tensor. */
  readonly tiedTo?: string;
}

interface Declared extends DeclaredParameter {
  readonly tensor?: Tensor | undefined;
  /** Whether the list says that this is a parameter: a plain state dict also contains buffers. */
  readonly certain: boolean;
}

/**
 * The plan with the roles, names and ties that a list, or a safetensors file of a state dict,
 * gives.
 * @throws INVALID_OPTION naming each parameter that is not in the file; FILE_NOT_FOUND,
 * FILE_CORRUPT
 */
export function declareParameters(
  file: OnnxFile,
  plan: WeightPlan,
  given: string | readonly DeclaredParameter[],
): WeightPlan {
  const list = typeof given === "string" ? readList(given) : given.map(certain);
  return new Declaration(file, plan, list).plan();
}

function certain(item: DeclaredParameter): Declared {
  return { ...item, certain: true };
}

/** The tensors of a safetensors file; its metadata field `parameters` may tell more about them. */
function readList(path: string): Declared[] {
  let bytes: Uint8Array;
  try {
    bytes = readFileSync(path);
  } catch (error) {
    throw fileError(error, "read", path);
  }
  const { tensors, metadata } = parseSafetensors(bytes, path);
  const text = metadata["parameters"];
  if (text === undefined) {
    return [...tensors]
      .filter(([, { dtype }]) => isFloat(dtype))
      .map(([name, tensor]) => ({ name, tensor, certain: false }));
  }
  return parseList(text, path).map((item) => {
    const tensor = tensors.get(item.name) ?? tensors.get(item.tiedTo ?? "");
    return { ...certain(item), tensor };
  });
}

function parseList(text: string, path: string): DeclaredParameter[] {
  const bad = (): never => {
    throw new LockstepError("FILE_CORRUPT", `"${path}": its list of parameters is not valid.`, {
      hint: 'Its metadata "parameters" must be a JSON array of { name, requiresGrad, tiedTo }.',
      fields: { path },
    });
  };
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    return bad();
  }
  if (!Array.isArray(parsed)) return bad();
  return parsed.map((item: unknown) => (isDeclared(item) ? item : bad()));
}

function isDeclared(item: unknown): item is DeclaredParameter {
  if (typeof item !== "object" || item === null) return false;
  const { name, requiresGrad = true, tiedTo = "" } = item as Record<string, unknown>;
  return (
    typeof name === "string" && typeof requiresGrad === "boolean" && typeof tiedTo === "string"
  );
}

type Match = "same" | "transposed";

class Declaration {
  readonly #file: OnnxFile;
  readonly #plan: WeightPlan;
  readonly #list: readonly Declared[];
  readonly #edit: GraphEdit;
  readonly #initializers: ReadonlyMap<string, RawTensor>;
  readonly #reads = new Map<string, Read[]>();
  readonly #taken = new Map<string, Weight>();
  readonly #weights = new Map<string, Weight>();
  readonly #unplaced: string[] = [];

  constructor(file: OnnxFile, plan: WeightPlan, list: readonly Declared[]) {
    this.#file = file;
    this.#plan = plan;
    this.#list = list;
    this.#edit = new GraphEdit(plan.graph);
    this.#initializers = new Map(plan.graph.initializer.map((raw) => [raw.name, raw]));
    for (const read of readsOf(plan.graph, this.#initializers)) {
      this.#reads.set(read.initializer, [...(this.#reads.get(read.initializer) ?? []), read]);
    }
  }

  plan(): WeightPlan {
    for (const item of this.#list) if (item.tiedTo === undefined) this.#own(item);
    for (const item of this.#list) if (item.tiedTo !== undefined) this.#tied(item, item.tiedTo);
    this.#checkPlaced();
    for (const weight of this.#plan.weights.values()) {
      if (this.#taken.has(weight.name) || this.#weights.has(weight.name)) continue;
      const isLeft = weight.role === "parameter";
      const rest = isLeft
        ? ({ role: "constant", why: "not among the parameters given" } as const)
        : {};
      const { unclear: _, ...known } = weight;
      this.#weights.set(weight.name, { ...known, ...rest });
    }
    const { gradients } = this.#plan;
    return { graph: this.#edit.result(), weights: this.#weights, notices: [], gradients, lost: [] };
  }

  #own(item: Declared): void {
    const found = this.#find(item);
    if (found === undefined) {
      if (item.requiresGrad !== false) this.#unplaced.push(item.name);
      return;
    }
    const [weight, match] = found;
    this.#taken.set(weight.name, weight);
    const isBuffer = !item.certain && weight.role !== "parameter" && weight.unclear !== true;
    const trained = item.requiresGrad !== false && !isBuffer;
    const name = item.name;
    if (name !== weight.name) {
      this.#edit.copy(weight.name, name);
      for (const read of this.#reads.get(weight.name) ?? []) this.#edit.redirect(read, name);
    }
    this.#weights.set(name, {
      name,
      role: weight.role === "statistic" ? "statistic" : trained ? "parameter" : "constant",
      why: trained ? "among the parameters given" : "given as not trained",
      given: weight.given,
      layout: match === "transposed" ? "transposed" : weight.layout,
      ties: [],
    });
  }

  /**
   * Adds a second name. If the file has a separate weight for it, that weight's readers read the
   * first one.
   */
  #tied(item: Declared, tiedTo: string): void {
    const first = this.#weights.get(tiedTo);
    if (first === undefined) {
      if (item.requiresGrad !== false) this.#unplaced.push(`${item.name} (tied to ${tiedTo})`);
      return;
    }
    this.#weights.set(tiedTo, { ...first, ties: [...first.ties, item.name] });
    const found = this.#find(item);
    if (found === undefined) return;
    const [weight] = found;
    this.#taken.set(weight.name, weight);
    const source = [...this.#taken.values()].find(({ given }) => given === first.given);
    const [a, b] = [this.#tensor(source?.name ?? ""), this.#tensor(weight.name)];
    if (a === undefined || b === undefined) return;
    const isSame = sameBytes(a, b) && a.shape.length === b.shape.length;
    if (!isSame && !areTransposed(a, b)) {
      this.#unplaced.push(`${item.name} (its values are not those of ${tiedTo})`);
      return;
    }
    const value = isSame
      ? tiedTo
      : this.#edit.prepend("Transpose", [tiedTo], `${tiedTo}/transposed`, { perm: [1, 0] });
    for (const read of this.#reads.get(weight.name) ?? []) this.#edit.redirect(read, value);
  }

  #find(item: Declared): readonly [Weight, Match | undefined] | undefined {
    const open = [...this.#plan.weights.values()].filter(({ name }) => !this.#taken.has(name));
    const named =
      open.find(({ name }) => name === item.name) ??
      open.find(({ ties }) => ties.includes(item.name)) ??
      open.find(({ given, module }) => given === item.name || module === item.name);
    if (item.tensor === undefined) return named && [named, undefined];
    if (named !== undefined) {
      const match = this.#match(named, item.tensor);
      if (match !== undefined || named.layout === "rows") return [named, match];
    }
    for (const weight of open) {
      const match = this.#match(weight, item.tensor);
      if (match !== undefined) return [weight, match];
    }
    return undefined;
  }

  #match(weight: Weight, tensor: Tensor): Match | undefined {
    const own = this.#tensor(weight.name);
    if (own === undefined) return undefined;
    if (weight.layout === "transposed" && areTransposed(tensor, own)) return "transposed";
    if (sameBytes(own, tensor)) return "same";
    return areTransposed(tensor, own) ? "transposed" : undefined;
  }

  #tensor(name: string): Tensor | undefined {
    const raw = this.#initializers.get(name);
    return raw && this.#file.tensor(raw);
  }

  #checkPlaced(): void {
    if (this.#unplaced.length === 0) return;
    const shown = this.#unplaced.slice(0, 6).join(", ");
    const more = this.#unplaced.length > 6 ? ` and ${this.#unplaced.length - 6} more` : "";
    throw new LockstepError(
      "INVALID_OPTION",
      `${this.#file.name}: these of the given parameters are not in the file: ${shown}${more}.`,
      {
        hint:
          "Neither their names nor their values are there. Leave out what the model does not use, give the values from which the file " +
          "was exported, or export without the exporter's optimizer (docs/exporting.md).",
        fields: { file: this.#file.name },
      },
    );
  }
}
