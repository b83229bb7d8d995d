import type { OperatorDefinition } from "../../graph/index.ts";
import { expand } from "./expand.ts";
import { identity } from "./identity.ts";
import { reshape } from "./reshape.ts";
import { transpose } from "./transpose.ts";

export const layout = {
  Expand: expand,
  Identity: identity,
  Reshape: reshape,
  Transpose: transpose,
} satisfies Record<string, OperatorDefinition>;
