export { Bucket, type Listed, type Patience } from "./bucket.ts";
export { accessFrom, type Environment, parseS3, type S3Place } from "./place.ts";
export { copy, endUploads, upload } from "./upload.ts";
