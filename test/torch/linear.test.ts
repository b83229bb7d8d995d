import { checkFamily } from "./support.ts";

checkFamily("linear");
