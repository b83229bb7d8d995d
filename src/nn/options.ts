/** Checks of options that layers share. */
import { anything, checkOptions, type OptionKinds } from "../options.ts";
import type { Scope } from "./scope.ts";

/** An option that is an initializer; it is not checked here. */
export const initial = anything.optional();

/** Throws INVALID_OPTION with the place of the layer and its kind, as in `blocks.3.up (linear)`. */
export function checkLayer<T extends object>(
  scope: Scope,
  layer: string,
  options: T,
  kinds: OptionKinds<T>,
): void {
  checkOptions(scope.path === "" ? layer : `${scope.path} (${layer})`, options, kinds);
}
