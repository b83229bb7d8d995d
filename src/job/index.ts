export {
  isJobFolder,
  type JobFolder,
  makeJobFolder,
  readJobFolder,
  removeJobFolder,
  writeJob,
  writeJobForNow,
} from "./folder.ts";
export { type JobFiles, type MadeJob, type MakeOptions, makeJob } from "./make.ts";
export { type OpenedJob, openJob } from "./open.ts";
export { type JobHead, sharingShape } from "./schema.ts";
