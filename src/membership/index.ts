export type { Beat } from "./beats.ts";
export { BEAT_MS, patienceOf } from "./bounds.ts";
export { decide, firstState } from "./decide.ts";
export { answerToLeave } from "./leave.ts";
export type {
  Action,
  Decision,
  Generation,
  Member,
  MembershipEvent,
  MembershipOptions,
  MembershipState,
  Place,
  Verdict,
} from "./types.ts";
