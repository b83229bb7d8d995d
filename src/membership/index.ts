export { BEAT_MS, patienceOf } from "./bounds.ts";
export { decide, firstState } from "./decide.ts";
export type {
  Action,
  Beat,
  Decision,
  Generation,
  Member,
  MembershipEvent,
  MembershipOptions,
  MembershipState,
  Place,
  Verdict,
} from "./types.ts";
