import type { OperatorDefinition } from "../../graph/index.ts";
import { concat } from "./concat.ts";
import { constant } from "./constant.ts";
import { constantOfShape } from "./constant-of-shape.ts";
import { depthToSpace } from "./depth-to-space.ts";
import { detach } from "./detach.ts";
import { expand } from "./expand.ts";
import { eyeLike } from "./eye-like.ts";
import { flatten } from "./flatten.ts";
import { identity } from "./identity.ts";
import { nonZero } from "./non-zero.ts";
import { pad } from "./pad.ts";
import { range } from "./range.ts";
import { reshape } from "./reshape.ts";
import { shapeOf } from "./shape.ts";
import { sizeOf } from "./size.ts";
import { slice } from "./slice.ts";
import { spaceToDepth } from "./space-to-depth.ts";
import { split } from "./split.ts";
import { squeeze } from "./squeeze.ts";
import { tile } from "./tile.ts";
import { transpose } from "./transpose.ts";
import { trilu } from "./trilu.ts";
import { unsqueeze } from "./unsqueeze.ts";

export const layout = {
  Concat: concat,
  Constant: constant,
  ConstantOfShape: constantOfShape,
  DepthToSpace: depthToSpace,
  Expand: expand,
  EyeLike: eyeLike,
  Flatten: flatten,
  Identity: identity,
  NonZero: nonZero,
  Pad: pad,
  Range: range,
  Reshape: reshape,
  Shape: shapeOf,
  Size: sizeOf,
  Slice: slice,
  SpaceToDepth: spaceToDepth,
  Split: split,
  Squeeze: squeeze,
  Tile: tile,
  Transpose: transpose,
  Trilu: trilu,
  Unsqueeze: unsqueeze,
  "lockstep::Detach": detach,
} satisfies Record<string, OperatorDefinition>;
