export { type LaunchOptions, launchLocal } from "./local.ts";
