import { checkFamily } from "./support.ts";

checkFamily("sampling");
