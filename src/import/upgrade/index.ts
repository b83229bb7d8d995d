import { composeRules } from "./compose.ts";
import { inputRules } from "./inputs.ts";
import { layerRules } from "./layers.ts";
import { placeRules } from "./places.ts";
import { recurrentRules } from "./recurrent.ts";
import type { RuleEntry, RuleTable } from "./rule.ts";
import { sequenceRules } from "./sequence.ts";
import { signalRules } from "./signal.ts";
import { staticRules } from "./static.ts";

export type { ImportNode, Rule, RuleContext, RuleEntry } from "./rule.ts";

// The order matters: first the upgrade to the newest form, then operators that need no node, then
// composed ones.
const TABLES: readonly RuleTable[] = [
  inputRules,
  layerRules,
  recurrentRules,
  staticRules,
  sequenceRules,
  signalRules,
  placeRules,
  composeRules,
];

/** All rules for an operator, in the order in which they are tried. */
export function rulesFor(op: string): readonly RuleEntry[] {
  return TABLES.flatMap((table) => (Object.hasOwn(table, op) ? (table[op] ?? []) : []));
}
