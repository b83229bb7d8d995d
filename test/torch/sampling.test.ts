import { roiAlign } from "../../src/functional/index.ts";
import type { Value } from "../../src/graph/index.ts";
import { checkFamily } from "./support.ts";

checkFamily("sampling", {
  roiAlign: ([x, boxes, pictures], attributes) =>
    roiAlign(x as Value, boxes as Value, pictures as Value, attributes as never),
});
