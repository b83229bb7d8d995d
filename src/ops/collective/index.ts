import type { OperatorDefinition } from "../../graph/index.ts";
import { allGather } from "./all-gather.ts";
import { allReduce } from "./all-reduce.ts";
import { allToAll } from "./all-to-all.ts";
import { amongZeros } from "./among-zeros.ts";
import { axisPlace } from "./axis-place.ts";
import { onFirst } from "./on-first.ts";
import { ownPart } from "./own-part.ts";
import { reduceScatter } from "./reduce-scatter.ts";
import { shift } from "./shift.ts";

export const collective = {
  "lockstep::AllGather": allGather,
  "lockstep::AllReduce": allReduce,
  "lockstep::AllToAll": allToAll,
  "lockstep::AmongZeros": amongZeros,
  "lockstep::AxisPlace": axisPlace,
  "lockstep::OnFirst": onFirst,
  "lockstep::OwnPart": ownPart,
  "lockstep::ReduceScatter": reduceScatter,
  "lockstep::Shift": shift,
} satisfies Record<string, OperatorDefinition>;
