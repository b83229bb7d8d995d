/** Builds the update of parameters as tasks, one for each way in which a rule updates. */
import { LockstepError } from "../errors.ts";
import { REPLICATED } from "../mesh/index.ts";
import {
  isSelected,
  type Optimizer,
  type ParameterInfo,
  type Rules,
  rulesOf,
  updateType,
} from "../optimizer/index.ts";
import { isFloat } from "../tensor/index.ts";
import { StepBuilder, SUMMARY } from "./step-builder.ts";
import { type StepGraph, type UpdateTask, valueName } from "./step-graph.ts";

/**
 * A step that only updates parameters from given gradients, for tests and benchmarks of optimizers.
 */
export function buildUpdates(
  parameters: readonly ParameterInfo[],
  optimizer: Optimizer,
): StepGraph {
  const step = new StepBuilder({ name: "updates" }, 1);
  step.value("summary", "step", { dtype: "float32", shape: [4] });
  for (const { name, type } of parameters) {
    step.value("parameter", name, type);
    step.value("gradient", name, type);
  }
  step.tasks.push(...updatesOf(step, parameters, optimizer));
  return step;
}

/**
 * The update tasks. Parameters of one element type that a rule updates in one way are updated
 * together.
 */
export function updatesOf(
  step: StepBuilder,
  parameters: readonly ParameterInfo[],
  optimizer: Optimizer,
): UpdateTask[] {
  if (parameters.length === 0) {
    throw new LockstepError("INVALID_OPTION", "The model has no parameter to train.");
  }
  const rules = rulesOf(optimizer);
  const keyed = parameters.map((parameter) => {
    return { parameter, ...ruleOf(parameter, optimizer.kind, rules) };
  });
  const keyOf = (item: (typeof keyed)[number]) =>
    `${item.index}:${item.decays ? "decay" : "plain"}`;
  keyed.sort((a, b) => (keyOf(a) < keyOf(b) ? -1 : keyOf(a) > keyOf(b) ? 1 : 0));
  const groups = new Map<string, typeof keyed>();
  for (const item of keyed) {
    const key = `${keyOf(item)}:${item.parameter.type.dtype}`;
    groups.set(key, [...(groups.get(key) ?? []), item]);
  }
  return [...groups.values()].map((items): UpdateTask => {
    const [{ index, decays }] = items as [(typeof keyed)[number]];
    const { rule } = rules[index] as Rules[number];
    const written: string[] = [];
    const read = items.flatMap(({ parameter: { name, type } }) => {
      written.push(step.value("parameter", name, type, REPLICATED, "next parameter"));
      const slots = rule.slots.map((slot) => {
        const own = updateType(type);
        const slotType = slot.typeOf?.(own) ?? own;
        written.push(step.value("slot", `${name}.${slot.name}`, slotType, REPLICATED, "next slot"));
        return step.value("slot", `${name}.${slot.name}`, slotType);
      });
      return [valueName("parameter", name), valueName("gradient", name), ...slots];
    });
    return {
      kind: "update",
      name: `update by ${rule.name}${decays ? ", with decay" : ""}`,
      rule: index,
      decays,
      granularity: rule.granularity,
      axes: [],
      inputs: [...read, SUMMARY],
      outputs: written,
    };
  });
}

function ruleOf(
  parameter: ParameterInfo,
  kind: string,
  rules: Rules,
): { readonly index: number; readonly decays: boolean } {
  if (!isFloat(parameter.type.dtype)) {
    throw new LockstepError(
      "INVALID_OPTION",
      `Parameter "${parameter.name}" is ${parameter.type.dtype}, but only floats can be trained.`,
    );
  }
  const index = rules.findIndex(({ selects }) => isSelected(selects, parameter));
  const rule = rules[index]?.rule;
  if (rule === undefined) {
    throw new LockstepError(
      "INVALID_OPTION",
      `No rule of the optimizer "${kind}" selects the parameter "${parameter.name}".`,
      { hint: "End the rules with one that selects every parameter." },
    );
  }
  const wanted = rule.decay === undefined ? parameter.decay : isSelected(rule.decay, parameter);
  return { index, decays: rule.weightDecay !== 0 && wanted };
}
