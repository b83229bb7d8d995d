/** Matches fields of the data to inputs of the model: by name, then checked by type and shape. */
import { LockstepError } from "../errors.ts";
import {
  bytesPerElement,
  elementCount,
  formatShape,
  formatType,
  type Shape,
  sameShape,
} from "../tensor/index.ts";
import { convertible, type FieldType } from "./convert.ts";
import type { ModelInput, OpenRequest, SourceOptions } from "./source.ts";

/** A field: one value for each sample. `shape` is the shape for one sample, without the batch. */
export interface Field {
  readonly type: FieldType;
  readonly shape: Shape;
  /** The factor for integers that feed a float input. */
  readonly scale?: number | undefined;
}

export interface Match {
  readonly input: ModelInput;
  readonly name: string;
  readonly field: Field;
}

/** The size of one value of a field, in bytes. */
export function bytesOf(type: FieldType): number {
  return type === "number" ? 8 : bytesPerElement(type);
}

/** Throws DATA_FORMAT, naming both sides, for an input that no field can feed. */
export function matchFields(
  request: OpenRequest,
  options: SourceOptions,
  available: Readonly<Record<string, Field>>,
  source: string,
): Match[] {
  for (const input of Object.keys(options.fields ?? {})) {
    if (request.inputs.some(({ name }) => name === input)) continue;
    throw mismatch(
      `${source}: \`fields\` names the input "${input}", which the model does not have`,
      {
        hint: `The model's inputs are ${list(request.inputs.map(({ name }) => name))}.`,
      },
    );
  }
  return request.inputs.map((input) => {
    const name = options.fields?.[input.name] ?? input.name;
    const field = Object.hasOwn(available, name) ? available[name] : undefined;
    if (field === undefined) {
      throw mismatch(
        `The model's input "${input.name}" (${formatType(input.type)}) needs a field "${name}", and ${source} has none`,
        {
          hint:
            `Its fields are ${list(Object.entries(available).map(([key, value]) => `"${key}" (${describe(value)})`))}. ` +
            `Say which one feeds it: { fields: { "${input.name}": … } }.`,
        },
      );
    }
    checkField(input, name, field, source);
    return { input, name, field };
  });
}

function checkField(input: ModelInput, name: string, field: Field, source: string): void {
  const wanted = input.type.shape.slice(1);
  const both = `The model's input "${input.name}" is ${formatType(input.type)}, a sample of ${formatShape(wanted)}; field "${name}" of ${source} is ${describe(field)} a sample`;
  if (input.type.shape.length === 0) {
    throw mismatch(`The model's input "${input.name}" is a scalar, but data comes in batches`, {
      hint: "Give it a first dim: the batch.",
    });
  }
  if (!fits(field.shape, wanted)) {
    throw mismatch(both, { hint: "Their shapes must agree, but for dims of size 1." });
  }
  if (!convertible(field.type, input.type.dtype)) {
    throw mismatch(both, { hint: "Floats do not feed integers: convert the data first." });
  }
}

/**
 * Whether shapes are equal except for dims of size 1, or one is the other flattened: [28, 28] feeds
 * [1, 28, 28] and [784].
 */
function fits(have: Shape, want: Shape): boolean {
  const squeeze = (shape: Shape) => shape.filter((size) => size !== 1);
  if (sameShape(squeeze(have), squeeze(want))) return true;
  return elementCount(have) === elementCount(want) && (have.length === 1 || want.length === 1);
}

function describe(field: Field): string {
  return `${field.type}${formatShape(field.shape)}`;
}

function list(names: readonly string[]): string {
  return names.length === 0 ? "none" : names.join(", ");
}

function mismatch(sentence: string, options: { hint: string }): LockstepError {
  return new LockstepError("DATA_FORMAT", `${sentence}.`, options);
}
