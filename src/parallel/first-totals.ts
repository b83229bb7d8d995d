/**
 * What a loss needs of its whole batch before any gradient (`plan/totals.ts`) is computed from the
 * fields of the data, or with parameters too: the share of the tokens that an expert gets is of the
 * second kind. Then each rank must hold the parameters whole.
 */
import { LockstepError } from "../errors.ts";
import { isOfKind, type StepGraph, TOTALS, valueOf } from "../plan/index.ts";

/**
 * @param way how ranks share the parameters, as the user states it
 * @throws INVALID_OPTION if totals of the batch are computed with parameters
 */
export function checkTotals(step: StepGraph, way: string): void {
  const task = step.tasks.filter(isOfKind("compute")).find(({ graph }) => graph === TOTALS);
  const reads = task?.inputs.some((name) => valueOf(step, name).role === "parameter") ?? false;
  if (!reads) return;
  throw new LockstepError(
    "INVALID_OPTION",
    `${way} does not go together yet with the loss of "${step.name}": before any gradient it needs numbers of the whole batch that are computed with all parameters.`,
    {
      hint: 'Share the step with data, or with zero 1 or 2. With experts in the model, balanceOver: "sequence" needs no such numbers.',
    },
  );
}
