import { checkFamily } from "./support.ts";

checkFamily("elementwise");
