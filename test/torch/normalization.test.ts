import { checkFamily } from "./support.ts";

checkFamily("normalization");
