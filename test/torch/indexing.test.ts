import { checkFamily } from "./support.ts";

checkFamily("indexing");
