/** Which rule of the optimizer updates which parameter, and where each lies: the flat vectors of a run. */
import { LockstepError } from "../errors.ts";
import {
  isSelected,
  type Optimizer,
  type ParameterInfo,
  type Rules,
  rulesOf,
  type UpdateRule,
} from "../optimizer/index.ts";
import { isFloat, type TensorType } from "../tensor/index.ts";
import { type Layout, type LayoutGroup, planLayout } from "./layout.ts";

/** Parameters that one rule updates in one way. */
export interface UpdateGroup {
  readonly rule: UpdateRule;
  /** The rule's place in the optimizer. */
  readonly index: number;
  readonly decays: boolean;
  readonly group: LayoutGroup;
}

export interface ParameterPlan {
  readonly parameters: Layout;
  /** Groups of the parameters first, at the same places; then what else is summed over micro-batches. */
  readonly gradients: Layout;
  readonly updates: readonly UpdateGroup[];
}

/**
 * Lays out parameters and gradients.
 * @param summed further tensors that are summed over micro-batches beside the gradients
 * @throws INVALID_OPTION when there is nothing to train, or a parameter is not a float
 */
export function planParameters(
  parameters: readonly ParameterInfo[],
  optimizer: Optimizer,
  summed: readonly { readonly name: string; readonly type: TensorType }[] = [],
): ParameterPlan {
  if (parameters.length === 0) {
    throw new LockstepError("INVALID_OPTION", "The model has no parameter to train.");
  }
  const rules = rulesOf(optimizer);
  const items = parameters.map((parameter) => ({
    name: parameter.name,
    type: parameter.type,
    group: groupKey(parameter, optimizer, rules),
  }));
  items.sort((a, b) => (a.group < b.group ? -1 : a.group > b.group ? 1 : 0));
  const layout = planLayout(items);
  const others = summed.map(({ name, type }) => ({ name, type, group: "summed" }));
  return {
    parameters: layout,
    gradients: planLayout([...items, ...others], layout.tile),
    updates: layout.groups.map((group) => updateGroup(group, rules)),
  };
}

function groupKey(parameter: ParameterInfo, optimizer: Optimizer, rules: Rules): string {
  if (!isFloat(parameter.type.dtype)) {
    throw new LockstepError(
      "INVALID_OPTION",
      `Parameter "${parameter.name}" is ${parameter.type.dtype}: only floats are trained.`,
    );
  }
  const index = rules.findIndex(({ selects }) => isSelected(selects, parameter));
  const rule = rules[index]?.rule;
  if (rule === undefined) {
    throw new LockstepError(
      "INVALID_OPTION",
      `No rule of the optimizer "${optimizer.kind}" selects the parameter "${parameter.name}".`,
      { hint: "End the rules with one that selects every parameter." },
    );
  }
  const wanted = rule.decay === undefined ? parameter.decay : isSelected(rule.decay, parameter);
  const decays = rule.weightDecay !== 0 && wanted;
  return `${index}:${decays ? "decay" : "plain"}`;
}

function updateGroup(group: LayoutGroup, rules: Rules): UpdateGroup {
  const [index, kind] = group.key.split(":") as [string, string];
  const found = rules[Number(index)] as Rules[number];
  return { rule: found.rule, index: Number(index), decays: kind === "decay", group };
}
